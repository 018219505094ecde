"""The response's iterable for the server, which notices how far it comes and how it ends."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

from cleanclose.core.blame.provenance import raise_as_it_is
from cleanclose.core.blame.watch import COMPLETE, CURRENT, GONE
from cleanclose.core.stop import ClientLeft
from cleanclose.core.tell.reporter import Reporter
from cleanclose.wsgi._delivery import Delivery
from cleanclose.wsgi._witness import WsgiWatch

__all__ = [
    "Body",
    "DeliveredBody",
    "Dropped",
    "FilePieces",
    "ResponseFile",
    "SizedBody",
    "SizedDeliveredBody",
    "leave",
]


FILE_PIECE: Final = 32 * 1024
"""Bytes that uWSGI reads at once from a file that it cannot send by its number."""

# Looked up once: this is done for every request.
_current: Final = CURRENT.get
_enter: Final = CURRENT.set


class Listener(Protocol):
    """Learns how a response has ended."""

    reporter: Reporter

    def answer(self, error: BaseException, watch: WsgiWatch) -> list[bytes] | BaseException | None:
        """The application has raised. Returns what to send or to raise instead, or None."""
        ...

    def close_failed(self, error: BaseException, watch: WsgiWatch) -> BaseException | None:
        """The application's ``close()`` has raised. Returns what to raise, or None."""
        ...

    def over(self, watch: WsgiWatch, error: BaseException | None = None) -> None:
        """The response is over, and the application has not raised."""
        ...


def leave(watch: WsgiWatch) -> None:
    """The exchange is over: this thread works for the next one."""
    if watch.input is not None:
        watch.leave_input()
    if _current() is watch:
        _enter(None)


def end_response(
    listener: Listener,
    watch: WsgiWatch,
    error: BaseException | None,
    close: Callable[[], object] | None,
    delivery: Delivery | None = None,
    *,
    through: int | None = None,
) -> None:
    """The one end of a response: the server closes it.

    Args:
        listener: The object that learns of it.
        watch: The exchange.
        error: What the server was handling when it closed the response, if anything.
        close: The application's own ``close()``, if there is one.
        delivery: The delivery to complete after that.
        through: The id of a file of the application's that the server itself has sent.
    """
    watch.closing = True
    try:
        if not watch.ended:
            watch.response_closed(error, through)
        over = watch.progress != COMPLETE or delivery is not None
        if through is not None and isinstance(error, Exception) and not over:
            # It came out of the file: an upstream's, perhaps.
            listener.close_failed(error, watch)
        if _closed(listener, watch, close, delivery, all_sent=error is None) and over:
            listener.over(watch, _outside(error))
        if watch.is_sample:
            listener.reporter.request_over(watch)
    finally:
        leave(watch)


def _closed(
    listener: Listener,
    watch: WsgiWatch,
    close: Callable[[], object] | None,
    delivery: Delivery | None,
    *,
    all_sent: bool,
) -> bool:
    """Close the application's iterable, and complete the delivery. Returns False if it raised."""
    try:
        if close is not None:
            close()
    except BaseException as failure:
        if delivery is not None:
            delivery.close(all_sent=all_sent and watch.response_complete)
        if not listener.close_failed(failure, watch):
            raise
        return False
    if delivery is not None:
        delivery.close(all_sent=all_sent and watch.response_complete)
    return True


class Dropped:
    """A response that sends nothing."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    def close(self) -> None:
        """Close the application's."""
        close: Callable[[], object] | None = getattr(self._result, "close", None)
        if close is not None:
            close()


class FilePieces:
    """A file in pieces, as the server itself would have sent it.

    uWSGI's ``wsgi.file_wrapper`` gives the file back, and remembers it. Nobody else would know that
    it should not be read by lines, because one line may be the whole file.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        return iter(functools.partial(self._file.read, FILE_PIECE), b"")

    def close(self) -> None:
        """Close the file."""
        close: Callable[[], object] | None = getattr(self._file, "close", None)
        if close is not None:
            close()


class Body:
    """The response's iterable. Not a generator: its close() must work before the first next()."""

    __slots__ = (
        "_closed",
        "_delivery",
        "_iterated",
        "_middleware",
        "_outer",
        "_pieces",
        "_ready",
        "_result",
        "_watch",
    )

    def __init__(self, middleware: Listener, watch: WsgiWatch, result: Iterable[bytes]) -> None:
        self._middleware = middleware
        self._watch = watch
        self._result = result
        self._pieces: Iterator[bytes] | None = None
        self._iterated = False
        self._closed = False
        # An exception that was being handled when the application was called says nothing about its
        # response.
        self._outer = sys.exception() is not None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            piece = self._next()
        except StopIteration:
            self._watch.response_completed()
            raise
        self._watch.response_piece(_size(piece))
        return piece

    def _next(self) -> bytes:
        try:
            if self._watch.stoppable:
                self._stop_if_gone()
            if self._pieces is None:
                self._pieces = iter(self._result)
            return next(self._pieces)
        except StopIteration:
            raise
        except BaseException as error:
            answer = self._middleware.answer(error, self._watch)
            if not isinstance(answer, list):
                if answer is None:
                    raise
                # Its traceback will refer to this frame.
                held = [answer]
                del answer
                raise_as_it_is(held.pop())
        self._pieces = iter(answer)
        return next(self._pieces)

    def _stop_if_gone(self) -> None:
        """Close the application's iterable once nobody waits for its next piece.

        Raises:
            ClientLeft: Nobody waits.
        """
        watch = self._watch
        watch.ask()
        if watch.progress != GONE or not watch.may_stop():
            return
        # Closing the response later will find it closed.
        result, self._result = self._result, ()
        watch.write_stops().ended(cut=True)
        close: Callable[[], object] | None = getattr(result, "close", None)
        if close is not None:
            close()
        raise ClientLeft

    def close(self) -> None:
        """Close the application's iterable; see how the response has ended."""
        if self._closed:
            return
        self._closed = True
        error = None if self._outer else sys.exception()
        close: Callable[[], object] | None = getattr(self._result, "close", None)
        end_response(self._middleware, self._watch, error, close, self._to_see_through())

    def _to_see_through(self) -> Delivery | None:
        """The delivery that ends with this response."""
        return None


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
        return _Pieces(self)


class _Pieces:
    """One iteration over a body that can be iterated twice."""

    __slots__ = ("_body",)

    def __init__(self, body: Body) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._body)


class DeliveredBody(Body):
    """The same for an exchange whose request has a body that is not read yet."""

    __slots__ = ()

    _delivery: Delivery
    _ready: bool

    def __init__(
        self,
        middleware: Listener,
        watch: WsgiWatch,
        result: Iterable[bytes],
        delivery: Delivery,
    ) -> None:
        super().__init__(middleware, watch, result)
        self._delivery = delivery
        wrapper = watch.environ.get("wsgi.file_wrapper")
        # Nobody reads the request's body while the server's own wrapper reads a file.
        self._ready = isinstance(wrapper, type) and isinstance(result, wrapper)

    def prepare(self) -> None:
        """Get the first piece, and do what has to happen before the server gets it."""
        try:
            piece = self._next()
        except StopIteration:
            return
        except BaseException:
            self.close()
            raise
        self._delivery.pending.appendleft(piece)

    def _next(self) -> bytes:
        delivery = self._delivery
        if delivery.pending:
            return delivery.pending.popleft()
        try:
            if self._watch.stoppable:
                self._stop_if_gone()
            if self._pieces is None:
                self._pieces = iter(self._result)
            piece = delivery.next_piece(self._pieces, ready=self._ready)
        except BaseException as error:
            delivery.let_pending_go()
            answer = self._middleware.answer(error, self._watch)
            if not isinstance(answer, list):
                delivery.abandon()
                if answer is None:
                    raise
                # Its traceback will refer to this frame.
                held = [answer]
                del answer
                raise_as_it_is(held.pop())
            self._pieces = iter(answer)
            piece = delivery.next_piece(self._pieces, ready=False)
        if piece is None:
            raise StopIteration
        return piece

    def _to_see_through(self) -> Delivery | None:
        return self._delivery


class SizedDeliveredBody(DeliveredBody, SizedBody):
    """The same over a list."""

    __slots__ = ()


class ResponseFile:
    """The end of a file that the server sends by itself, as the wrapper's own ``close()``."""

    def __init__(self, middleware: Listener, watch: WsgiWatch, file: Any) -> None:
        self._middleware = middleware
        self._watch = watch
        # Not the file: it will refer to us.
        self._file = id(file)
        self._close: Callable[[], object] | None = getattr(file, "close", None)
        self._outer = sys.exception() is not None
        self._tell = _teller(file)
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
        end_response(self._middleware, self._watch, error, close, through=self._file)


def _teller(wrapper: Any) -> Callable[[], int | None]:
    """A function that says how far a server has come with its wrapped file; None without one."""
    # The first name is wsgiref's and gunicorn's, the other one Werkzeug's and waitress's.
    file: Any = getattr(wrapper, "filelike", None) or getattr(wrapper, "file", None)

    def tell() -> int | None:
        try:
            at: object = file.tell()
        except (AttributeError, OSError, ValueError):
            return None
        return at if isinstance(at, int) else None

    return tell


def _size(piece: Any) -> int:
    # The server rejects anything but bytes, and says so.
    return len(piece) if isinstance(piece, bytes) else 0


def _outside(error: BaseException | None) -> BaseException | None:
    """The exceptions that end an exchange from outside: a stopping worker, or a time limit."""
    return None if isinstance(error, Exception) else error
