"""The two callables of an ASGI server for one exchange, and what can be asked of them."""

from __future__ import annotations

from types import FrameType
from typing import Any, NamedTuple

from cleanclose.core.server import Server
from cleanclose.servers import _callers, _lookup

__all__ = ["Calls", "Stopping"]


class Calls(NamedTuple):
    """A server's ``receive`` and ``send``, as it gave them.

    Behind a middleware that wraps them, most questions have no answer.

    Args:
        receive: The one.
        send: The other one.
    """

    receive: Any
    send: Any

    @property
    def server(self) -> Server:
        """The server, as far as they show which one it is."""
        return _lookup.asgi_server(self.receive, self.send)

    @property
    def socket(self) -> Any:
        """The client's socket, or what stands in for it; None if it is not in reach."""
        return _lookup.asgi_socket(self.receive, self.send)

    @property
    def has_all(self) -> bool:
        """Whether all of the request's body has arrived, as far as the server shows it."""
        return _lookup.has_arrived(self.receive, self.send)

    @property
    def is_stopping(self) -> bool:
        """Whether the server is stopping and waits for this exchange, as far as it shows that."""
        return _lookup.is_asgi_stopping(self.receive, self.send)

    @property
    def wants_answer(self) -> bool:
        """Whether who calls takes an end without a response for an error of the application's."""
        return _callers.wants_answer(self.receive)

    def is_caller(self, frame: FrameType | None) -> bool:
        """Whether the server itself calls, with nobody in between who could want the body.

        Args:
            frame: The caller's frame.
        """
        return _callers.is_called_by_server(frame, self.receive, self.send)

    def close(self) -> None:
        """Make the server close the connection after the response, if there is a way."""
        _lookup.close_asgi(self.receive, self.send)

    def stop_reading(self) -> None:
        """Stop the server from reading a connection that somebody else goes on reading."""
        _lookup.stop_reading(self.receive, self.send)


class Stopping:
    """Whether a server has begun to stop since somebody began to look.

    If it says so from the start, it proves nothing later: some servers' sign is also that of a
    connection which will not be used again.

    Args:
        calls: The server's callables.
    """

    __slots__ = ("_before", "_calls")

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._before = calls.is_stopping

    @property
    def has_begun(self) -> bool:
        """Whether it has, as far as the server shows that."""
        return not self._before and self._calls.is_stopping
