"""The response's iterable for the server, which notices how far it comes and how it ends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from types import GeneratorType
from typing import Any, Final

from cleanclose.core.asking import stop_if_gone
from cleanclose.core.deliver.pieces import Source
from cleanclose.servers import is_servers_file, teller
from cleanclose.wsgi._delivery import Delivery
from cleanclose.wsgi._ending import Ending
from cleanclose.wsgi._witness import END, WsgiWatch, size_of

__all__ = ["Body", "ResponseFile", "SizedBody"]

_THERE: Final[tuple[type, ...]] = (type(iter([])), type(iter(())))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
"""The iterators of responses that already exist as a whole."""


class Body:
    """The response's iterable. Not a generator: its close() must work before the first next().

    Args:
        ending: Learns how the response ends.
        watch: The exchange.
        result: The application's iterable.
        delivery: Delivers the response, if the request has a body that is not read yet.
    """

    __slots__ = (
        "_closed",
        "_delivery",
        "_ending",
        "_iterated",
        "_outer",
        "_pieces",
        "_result",
        "_watch",
    )

    def __init__(
        self,
        ending: Ending,
        watch: WsgiWatch,
        result: Iterable[bytes],
        delivery: Delivery | None = None,
    ) -> None:
        self._ending = ending
        self._watch = watch
        self._result = result
        self._delivery = delivery
        self._pieces: Iterator[bytes] | None = None
        self._iterated = False
        self._closed = False
        # An exception that was being handled when the application was called says nothing about its
        # response.
        self._outer = sys.exception() is not None

    def prepare(self, delivery: Delivery) -> None:
        """Get the first piece, and do what has to happen before the server gets it."""
        try:
            piece = self._next()
        except BaseException:
            self.close()
            raise
        if piece is not END:
            delivery.pending.appendleft(piece)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        delivery = self._delivery
        if delivery is not None and delivery.pending:
            piece = delivery.pending.popleft()
        else:
            piece = self._next()
        if piece is END:
            self._watch.response_completed()
            raise StopIteration
        self._watch.response_piece(size_of(piece))
        return piece

    def _next(self) -> bytes:
        """The next piece; `END` behind the last one."""
        delivery = self._delivery
        try:
            if self._watch.stoppable:
                self._stop_if_gone()
            if self._pieces is None:
                self._pieces = iter(() if self._watch.refused else self._result)
            if delivery is None:
                return next(self._pieces, END)
            return delivery.next_piece(self._pieces, self._source(self._pieces))
        except BaseException as error:  # noqa: BLE001 - `answer` raises, too
            if delivery is not None:
                delivery.let_pending_go()
            self._pieces = iter(self._ending.answer(error, self._watch))
        if delivery is None:
            return next(self._pieces, END)
        return delivery.next_piece(self._pieces, Source.THERE)

    def _source(self, pieces: Iterator[bytes]) -> Source:
        if type(pieces) in _THERE:
            return Source.THERE
        if is_servers_file(self._result, self._watch.environ):
            return Source.FILE
        return Source.GENERATOR if isinstance(pieces, GeneratorType) else Source.ITERATOR

    def _stop_if_gone(self) -> None:
        """Close the application's iterable once nobody waits for its next piece.

        Raises:
            ClientLeft: Nobody waits.
        """
        stop_if_gone(self._watch, self._close_result)

    def _close_result(self) -> None:
        # Closing the response later will find it closed.
        result, self._result = self._result, ()
        close: Callable[[], object] | None = getattr(result, "close", None)
        if close is not None:
            close()

    def close(self) -> None:
        """Close the application's iterable; see how the response has ended."""
        if self._closed:
            return
        self._closed = True
        error = None if self._outer else sys.exception()
        close: Callable[[], object] | None = getattr(self._result, "close", None)
        self._ending.closed(self._watch, error, close)


class SizedBody(Body):
    """The same over a list: some servers compute a Content-Length from its items."""

    __slots__ = ()

    def __len__(self) -> int:
        size: int = len(self._result)  # type: ignore[arg-type]
        return size

    def __iter__(self) -> Iterator[bytes]:
        if self._iterated:
            # gevent goes through it once more, while it sends the first piece.
            return iter(self._result)
        self._iterated = True
        # Iterating over this iterator goes on with the same iteration.
        return iter(self.__next__, END)


class ResponseFile:
    """The end of a file that the server sends by itself, as the wrapper's own ``close()``."""

    def __init__(self, ending: Ending, watch: WsgiWatch, file: Any) -> None:
        self._ending = ending
        self._watch = watch
        # Not the file: it will refer to us.
        self._file = id(file)
        self._close: Callable[[], object] | None = getattr(file, "close", None)
        self._outer = sys.exception() is not None
        self._tell = teller(file)
        self._start = self._tell()

    def stand_behind(self, file: Any) -> bool:
        """Replace the file's close(); False if it does not accept another one."""
        try:
            file.close = self
        except (AttributeError, TypeError):
            return False
        return True

    def __call__(self) -> None:
        """Close the file; see how the response has ended."""
        close, self._close = self._close, None
        error = None if self._outer else sys.exception()
        if error is not None and not self._watch.ended:
            at = None if self._start is None else self._tell()
            self._watch.file_broke_off(None if at is None else at - (self._start or 0))
        self._ending.closed(self._watch, error, close, through=self._file)
