"""What a WSGI server shows of its client, reported to the core."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import length_hint
from sys import exception
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from cleanclose.core import Facts, Mechanism, Witness
from cleanclose.core.blame.blocking import BlockingWatch
from cleanclose.core.blame.watch import COMPLETE, CURRENT, GONE
from cleanclose.core.deliver.framing import awaited_length, needs_length
from cleanclose.core.kernel import tcp_info
from cleanclose.core.server import Server
from cleanclose.core.tcp_info import idle_before
from cleanclose.core.tracing import ids_of
from cleanclose.servers import (
    came_out_of,
    can_replace_head,
    client_left,
    client_socket,
    forget_head,
    how_gone,
    is_servers_own,
    is_surely_there,
    wsgi_server,
)

if TYPE_CHECKING:
    from cleanclose.wsgi._delivery import Delivery
    from cleanclose.wsgi._ending import Ending
    from cleanclose.wsgi._input import WitnessedInput

__all__ = [
    "END",
    "Environ",
    "ExcInfo",
    "Headers",
    "StartResponse",
    "Write",
    "WsgiWatch",
    "code_of",
    "fields",
    "size_of",
]

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | None
Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]

END: Final[Any] = object()
"""What comes behind the last piece."""
_PREFIX: Final = "HTTP_"
# Looked up once: this is done for every request.
_current: Final = CURRENT.get
_enter: Final = CURRENT.set


class WsgiWatch(BlockingWatch):
    """One request: ``start_response``, ``write()``, ``wsgi.input`` and the response's end.

    `Serving` sets these attributes by itself: calling an ``__init__`` is a good part of what a GET
    costs. It also serves as the application's ``write()``, and as the iterable of a response that
    is a list: each further object would cost as much as everything else.
    """

    __slots__ = (
        "_headers",
        "_request",
        "_server_write",
        "_status",
        "ending",
        "environ",
        "input",
        "is_sample",
        "pieces",
        "result",
        "server_start_response",
    )

    environ: Environ
    server_start_response: StartResponse
    _status: str
    _headers: Headers
    _request: Any
    _server_write: Write
    stoppable: bool = False
    """Whether to ask before each piece of the response if anybody still waits for it."""
    input: WitnessedInput | None
    """The application's ``wsgi.input``, if somebody watches its reading."""
    is_sample: bool
    deliverer: Delivery | None = None
    """The delivery of a response that has begun before its request's body was complete."""
    ending: Ending | None
    """What ends it, where the response is a list or the request has a body; None once a list is
    closed."""
    result: Sequence[bytes]
    pieces: Iterator[bytes] | None
    outer: bool = False
    """Whether an exception was being handled when the application had returned."""

    if TYPE_CHECKING:

        def __init__(self) -> None:
            """Without arguments."""

    else:
        __init__ = object.__init__

    @property
    def status(self) -> int | None:
        # Not set before the response begins: that would be one more store for every request.
        status: str | None = getattr(self, "_status", None)
        if status is None:
            return None
        return code_of(status)

    @property
    def server(self) -> Server:
        """What is special about the server."""
        return wsgi_server(self.environ, self.server_start_response)

    def facts(self) -> Facts:
        environ = self.environ
        return Facts(
            framework="wsgi",
            server=self.server.name,
            method=environ["REQUEST_METHOD"],
            client=environ.get("REMOTE_ADDR") or None,
            route=_route(environ, getattr(self, "_request", None)),
            **ids_of(lambda name: environ.get(_PREFIX + name.replace("-", "_").upper())),
        )

    def is_for(self, request: Mapping[str, Any], /) -> bool:
        # A copied environ keeps its input.
        stream: object = request.get("wsgi.input")
        return request is self.environ or (
            stream is not None and stream is self.environ.get("wsgi.input")
        )

    # What the application calls.

    def start_response(self, status: str, headers: Headers, exc_info: ExcInfo = None) -> Write:
        """What the application has as ``start_response``."""
        if not self.progress and not is_surely_there(self.environ):
            # A client that has left by now will not get this response.
            self.ask()
        # Passed on at once: a server may need it before the first piece. (Not called as a method:
        # the interpreter looks for one first, in all classes.)
        start_response = self.server_start_response
        if exc_info is None:
            self._server_write = start_response(status, headers)
        else:
            try:
                self._server_write = start_response(status, headers, exc_info)
            finally:
                # PEP 3333: the traceback would be a reference cycle.
                exc_info = None
        self._status = status
        self._headers = headers
        if "werkzeug.request" in self.environ:
            # Flask takes it out of the environ before the response goes out.
            self._request = self.environ["werkzeug.request"]
        return self

    def declare_length(self, size: int, response: object) -> None:
        """Give a response that is there as a whole its length, if it has none.

        Args:
            size: Its bytes.
            response: The server's object behind ``start_response``.
        """
        server = self.server
        if can_replace_head(response, server) and needs_length(self._status, self._headers):
            forget_head(response, server)
            headers = [*self._headers, ("Content-Length", str(size))]
            self.server_start_response(self._status, headers, (None, None, None))
            self._headers = headers

    def __call__(self, data: bytes) -> object:
        """What the application gets from it, as ``write()``."""
        if self.refused:
            return None
        self.response_piece(len(data))
        try:
            return self._server_write(data)
        except Exception as error:
            self.server_failed(Witness.WRITE, error, time.monotonic())
            raise

    def begin(self, status: str, headers: Headers, exc_info: ExcInfo = None) -> Write:
        """Begin the response as the application would."""
        return self.start_response(status, headers, exc_info)

    def delivering(self) -> Delivery | None:
        """The delivery of a response that begins before the body's end; None without a body."""
        return None

    def leave_input(self) -> None:
        """The exchange is over: nobody notices further reads."""

    # What else shows that the peer has left.

    def ask(self) -> None:
        if self.progress == COMPLETE or self.progress == GONE:
            return
        seen = client_left(self.environ, self.server)
        if seen is not None:
            self.seen_gone(*seen, time.monotonic())

    def how_gone(self) -> Mechanism | None:
        return how_gone(self._socket())

    def idle_before(self, now: float) -> float | None:
        return idle_before(tcp_info(self._socket()), now - self.started)

    def find_witness(self, error: BaseException) -> None:
        if came_out_of(error, self._socket()):
            self.peer_gone(Witness.INPUT, time.monotonic(), error)

    def _socket(self) -> Any:
        """The client's socket, if it is in reach."""
        return client_socket(self.environ, self.environ.get("wsgi.input"), self.server)

    @property
    def known_server(self) -> Server | None:
        """The server, if we know what it hides and if it calls us itself."""
        server = self.server
        own = is_servers_own(self.server_start_response, server)
        return server if own and server.hides is not None else None

    @property
    def content_length(self) -> str | None:
        """The response's Content-Length."""
        headers: Headers = getattr(self, "_headers", [])
        return next((value for name, value in headers if name.lower() == "content-length"), None)

    def declared_out(self) -> int | None:
        method = self.environ["REQUEST_METHOD"]
        return awaited_length(method, self.status or 0, self.content_length)

    # The response's iterable, where it is a list: it cannot raise, and the server goes through it
    # alone. Its own iterator shows how far the server has come.

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        # Some servers make a Content-Length of a list with a single piece.
        return len(self.result)

    def __iter__(self) -> Iterator[bytes]:
        pieces = iter(self.result)
        if self.pieces is None:
            # gevent goes through it once more, while it sends the first piece.
            self.pieces = pieces
        return pieces

    def close(self) -> None:
        """The server has finished with it; see how."""
        ending = self.ending
        if ending is None:
            return
        self.ending = None
        error = exception()
        pieces = self.pieces
        # Nobody iterates further, and a length hint costs twice as much.
        at_end = not self.result if pieces is None else next(pieces, END) is END
        if at_end and error is None and not self.progress:
            # Nearly always, there is nothing to report.
            self.progress = COMPLETE
            if self.is_sample:
                ending.reporter.request_over(self)
            if self.input is not None:
                self.leave_input()
            if _current() is self:
                _enter(None)
            return
        if not self.ended:
            left = 0 if at_end else len(self.result)
            if left and pieces is not None:
                left = 1 + length_hint(pieces)
            for piece in self.result[: len(self.result) - left]:
                self.response_piece(size_of(piece))
            if at_end:
                self.response_completed()
        ending.closed(self, None if self.outer else error)


def size_of(piece: Any) -> int:
    """The size of a piece of the response. The server rejects anything but bytes, and says so."""
    return len(piece) if isinstance(piece, bytes) else 0


def code_of(status: str) -> int:
    """The code in a status line; 0 without one."""
    # The server has accepted it although it is not a number.
    return int(status[:3]) if status[:3].isdigit() else 0


def fields(environ: Mapping[str, Any]) -> dict[str, str]:
    """The request's headers, by their names in lower case."""
    return {
        key.removeprefix(_PREFIX).replace("_", "-").lower(): value
        for key, value in environ.items()
        if key.startswith(_PREFIX)
    }


def _route(environ: Environ, request: object) -> str | None:
    """The route's pattern, where a framework leaves it: Flask and Bottle do."""
    rule: object = getattr(request or environ.get("werkzeug.request"), "url_rule", None)
    pattern: object = getattr(rule or environ.get("bottle.route"), "rule", None)
    return pattern if isinstance(pattern, str) else None
