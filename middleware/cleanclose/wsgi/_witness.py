"""What a WSGI server shows of its client, reported to the core."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from operator import length_hint
from sys import exception
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from cleanclose.core import Facts, Mechanism, Side, TruncatedBodyError, Watch, Witness
from cleanclose.core.blame.judge import is_wrapper
from cleanclose.core.blame.provenance import came_from, passed_object, says_lost
from cleanclose.core.blame.short_uploads import is_refused
from cleanclose.core.blame.watch import COMPLETE, CURRENT, GONE
from cleanclose.core.conduct import Treatment, is_lost_midway, wsgi_treatment
from cleanclose.core.deliver.framing import awaited_length, needs_length
from cleanclose.core.kernel import is_established, tcp_info
from cleanclose.core.server import UNKNOWN, Server
from cleanclose.core.tcp_info import idle_before
from cleanclose.core.tell.reporter import Reporter
from cleanclose.core.tracing import trace_id
from cleanclose.servers import (
    client_socket,
    forget_head,
    has_read_rest,
    is_servers_own,
    is_surely_there,
    wsgi_server,
)
from cleanclose.wsgi._connection import how_gone
from cleanclose.wsgi._input import WitnessedInput

if TYPE_CHECKING:
    from cleanclose.wsgi._delivery import Delivery

__all__ = [
    "Environ",
    "ExcInfo",
    "Headers",
    "StartResponse",
    "Write",
    "WsgiWatch",
    "answer_of",
    "code_of",
]

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | None
Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]

_ANSWERS: Final = {
    # Nobody reads it.
    400: ("400 Bad Request", b""),
    500: ("500 Internal Server Error", b"Internal Server Error\n"),
}
_END: Final[Any] = object()
"""What comes behind the last piece."""
# Looked up once: this is done for every request.
_current: Final = CURRENT.get
_enter: Final = CURRENT.set


class Listener(Protocol):
    """Learns how a response has ended."""

    reporter: Reporter

    def closed(self, watch: WsgiWatch, error: BaseException | None) -> None:
        """The server has closed a response that is a list: why, if it was not over."""
        ...


def answer_of(status: int) -> tuple[tuple[str, Headers], bytes]:
    """An answer of our own: its head and its body."""
    line, body = _ANSWERS[status]
    return (line, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]), body


class WsgiWatch(Watch):
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
        "environ",
        "input",
        "is_sample",
        "listener",
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
    closing: bool = False
    """Whether the server is closing the response: nothing can be answered any more."""
    refused: bool = False
    """Whether the application answered half a body as if it were whole: nothing of that goes
    out."""
    _ended_unnoticed: bool = False
    half_closed: bool = False
    """Whether the client has closed its half of the connection only to end its body."""
    stoppable: bool = False
    """Whether to ask before each piece of the response if anybody still waits for it."""
    input: WitnessedInput | None
    """The application's ``wsgi.input``, if somebody watches its reading."""
    is_sample: bool
    listener: Listener | None
    """If the response is a list: the object that learns of its end, until that has come."""
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
        # Not set before the response begins: another store for every request.
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
            request_id=environ.get("HTTP_X_REQUEST_ID"),
            trace_id=trace_id(environ.get("HTTP_TRACEPARENT")),
            idempotency_key=environ.get("HTTP_IDEMPOTENCY_KEY"),
        )

    def is_of(self, environ: Environ) -> bool:
        """Whether an environ, or what it was copied from, is this exchange's."""
        if environ is self.environ:
            return True
        stream: object = environ.get("wsgi.input")
        return stream is not None and stream is self.environ.get("wsgi.input")

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
        if server.head_attribute is not None and response is None:
            # It would add the second head to the first one.
            return
        if server.replaces_head and needs_length(self._status, self._headers):
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
            self.server_failed(Witness.WRITE, error)
            raise

    def begin(self, status: str, headers: Headers, exc_info: ExcInfo = None) -> Write:
        """Begin the response as the application would."""
        return self.start_response(status, headers, exc_info)

    def delivering(self) -> Delivery | None:
        """The delivery of a response that begins before the body's end; None without a body."""
        return None

    def leave_input(self) -> None:
        """The exchange is over: nobody notices further reads."""

    @property
    def has_begun_as_no_error(self) -> bool:
        """Whether the response has begun as a success, and so takes the body for whole."""
        status = self.status
        return status is not None and is_refused(status)

    @property
    def is_reset(self) -> bool:
        """Whether the client is known to have reset its connection."""
        return self.departure is not None and self.departure.mechanism is Mechanism.RESET

    def is_taken(self, stream: Any) -> bool:
        """Whether the server itself has read what is left of the body."""
        return has_read_rest(stream, self.server)

    def body_ended(self, raised: bool) -> None:
        """The application has found the stream's end before the body's.

        Args:
            raised: Whether its reading raises; if not, it gets the end as it comes.

        Raises:
            TruncatedBodyError: So it is. The error is marked as the client's.
        """
        if not raised:
            self._ended_unnoticed = True
            self.body_truncated(time.monotonic())
            return
        error = TruncatedBodyError(self.bytes_in, self.expected_in or 0)
        self.body_truncated(time.monotonic(), error)
        try:
            raise error
        finally:
            # Its traceback refers to this frame.
            del error

    def body_failed(self, error: Exception) -> None:
        """Reading the request's body raised."""
        server = self.server
        is_word = server.breaks_off is not None and server.breaks_off(error)
        if not (is_word or isinstance(error, OSError)) or not came_from(error, server.name):
            return
        mechanism = None
        errno = getattr(error, "errno", None)
        if errno is None and not isinstance(error, ConnectionError | TimeoutError):
            # A server's own word, for a body that breaks off as for one that is malformed.
            mechanism = how_gone(self._socket())
            if mechanism is None:
                return
        self.peer_gone(Witness.INPUT, time.monotonic(), error, mechanism)

    # What else shows that the peer has left.

    def ask(self) -> None:
        if self.progress == COMPLETE or self.progress == GONE:
            return
        server = self.server
        if server is UNKNOWN:
            return
        sock = client_socket(self.environ, self.environ.get("wsgi.input"), server)
        # A socket in the environ has been asked already, where the response begins.
        if sock is not None and server.socket_key is None and is_established(sock):
            return
        if server.gone_key is not None:
            is_gone: Any = self.environ.get(server.gone_key)
            if callable(is_gone) and is_gone():
                self.peer_gone(Witness.SERVER, time.monotonic(), late=True)
        else:
            mechanism = how_gone(sock)
            if mechanism is Mechanism.EOF and self.half_closed:
                return
            if mechanism is not None and mechanism is not Mechanism.UNKNOWN:
                self.peer_gone(Witness.SOCKET, time.monotonic(), mechanism=mechanism, late=True)

    def idle_before(self, now: float) -> float | None:
        return idle_before(tcp_info(self._socket()), now - self.started)

    def find_witness(self, error: BaseException) -> None:
        if not isinstance(error, OSError) or not says_lost(error):
            return
        sock = client_socket(self.environ, self.environ.get("wsgi.input"), self.server)
        # The standard library's readers, below a wsgi.input that has no body.
        if sock is not None and passed_object(
            error, lambda each: each is sock or getattr(each, "_sock", None) is sock
        ):
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

    def treatment(self, error: BaseException, side: Side) -> Treatment:
        return wsgi_treatment(
            self.known_server,
            error,
            answerable=not self.closing,
            lost=is_lost_midway(
                self.departure, begun=self.status is not None, closing=self.closing
            ),
        )

    def has_left(self, error: BaseException | None = None) -> bool:
        # Once it is over, an error is ours, and stands for one that has been judged.
        if self.departure is not None or error is None or self.stopping or self.ended:
            return super().has_left()
        return self._is_loss(error)

    def server_failed(
        self, witness: Witness, error: BaseException, through: int | None = None
    ) -> None:
        """The server raised, and the response did not go out because of it.

        Args:
            witness: Where it was seen.
            error: What it raised.
            through: The id of an object of the application's own which the server used. An error
                that came through that is not the client's.
        """
        if self._is_loss(error, through):
            self.response_failed()
            self.peer_gone(witness, time.monotonic(), error)
            if self._is_sent_whole():
                # The server broke off in the last piece, before it could find out that it was.
                self.response_completed()

    def _is_loss(self, error: BaseException, through: int | None = None) -> bool:
        """Whether the server has raised it for its client's connection."""
        return (
            is_wrapper(error) or (isinstance(error, OSError) and says_lost(error))
        ) and came_from(error, self.server.name, through)

    def response_closed(self, error: BaseException | None, through: int | None = None) -> None:
        """The server closes the response, for this reason if it is not its end.

        Args:
            error: What it was handling.
            through: The id of a file of the application's that it has sent by itself.
        """
        if isinstance(error, Exception):
            self.server_failed(Witness.CLOSE, error, through)
        elif error is None and self.progress not in (COMPLETE, GONE):
            self.closed_early()

    def closed_early(self) -> None:
        """The server closed the response before it had asked for all of it, and gives no reason.

        It need not ask for pieces that the client does not want, or that exceed the length.
        """
        if self._is_sent_whole():
            self.response_completed()
        else:
            self.peer_gone(Witness.CLOSE, time.monotonic())

    def _is_sent_whole(self) -> bool:
        headers: Headers = getattr(self, "_headers", [])
        length = next((value for name, value in headers if name.lower() == "content-length"), None)
        awaited = awaited_length(self.environ["REQUEST_METHOD"], self.status or 0, length)
        return awaited is not None and self.bytes_out >= awaited

    # The response's iterable, where it is a list: it cannot raise, and the server goes through it
    # alone. How far it has come, its own iterator tells.

    def respond_with(self, listener: Listener, result: Sequence[bytes]) -> Self:
        """Be the response's iterable over a list or a tuple."""
        self.listener = listener
        self.result = result
        self.pieces = None
        if exception() is not None:
            # What was being handled when the application was called says nothing about its
            # response.
            self.outer = True
        return self

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
        """The server has done with it; see how."""
        listener = self.listener
        if listener is None:
            return
        self.listener = None
        error = exception()
        pieces = self.pieces
        # Nobody iterates further, and a length hint costs twice as much.
        at_end = not self.result if pieces is None else next(pieces, _END) is _END
        if at_end and error is None and not self.progress:
            # Nearly always, there is nothing to report.
            self.progress = COMPLETE
            if self.is_sample:
                listener.reporter.request_over(self)
            if self.input is not None:
                self.leave_input()
            if _current() is self:
                _enter(None)
            return
        if self.outer:
            error = None
        if not self.ended:
            left = 0 if at_end else len(self.result)
            if left and pieces is not None:
                left = 1 + length_hint(pieces)
            for piece in self.result[: len(self.result) - left]:
                self.response_piece(_size(piece))
            if at_end:
                self.response_completed()
        listener.closed(self, error)


def _size(piece: Any) -> int:
    # The server rejects anything but bytes, and says so.
    return len(piece) if isinstance(piece, bytes) else 0


def code_of(status: str) -> int:
    # The server has accepted it although it is not a number.
    return int(status[:3]) if status[:3].isdigit() else 0


def _route(environ: Environ, request: object) -> str | None:
    """The route's pattern, where a framework leaves it: Flask and Bottle do."""
    rule: object = getattr(request or environ.get("werkzeug.request"), "url_rule", None)
    pattern: object = getattr(rule or environ.get("bottle.route"), "rule", None)
    return pattern if isinstance(pattern, str) else None
