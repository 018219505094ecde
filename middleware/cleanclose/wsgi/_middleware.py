"""WSGI in, WSGI out: what happens on the connection is told to the core, and its steps are done."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Unpack, cast

from cleanclose.core import Outlet, Settings, SettingsOptions, Side, Verdict
from cleanclose.core.deliver.exchange import Connection, Exchange
from cleanclose.core.deliver.framing import CHUNKED, NO_BODY, body_length, wants_continue
from cleanclose.core.deliver.places import Places
from cleanclose.core.deliver.proxied import PROXY_FIELDS, names_caddy
from cleanclose.core.judge import mark
from cleanclose.core.server import Server
from cleanclose.core.stop import Stoppable
from cleanclose.core.watch import CURRENT, OPEN
from cleanclose.linger import can_linger
from cleanclose.quiet import install_quiet_logs
from cleanclose.servers import forget_head, is_servers_own, wsgi_response
from cleanclose.surge import make_reporter
from cleanclose.wsgi._bodies import (
    Body,
    DeliveredBody,
    ListBody,
    ResponseFile,
    SizedBody,
    SizedDeliveredBody,
    leave,
)
from cleanclose.wsgi._connection import ClientConnection, find_connection, has_rest_of_chunks
from cleanclose.wsgi._delivery import Delivery
from cleanclose.wsgi._input import WitnessedInput
from cleanclose.wsgi._witness import Environ, StartResponse, WsgiWatch

__all__ = ["CleanCloseMiddleware", "skip"]

WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

_SKIP_KEY: Final = "cleanclose.skip"
_PROXY_KEYS: Final = frozenset("HTTP_" + name.upper().replace("-", "_") for name in PROXY_FIELDS)
# Looked up once: this is done for every request.
_clock: Final = time.monotonic
_new_watch: Final = object.__new__
_enter: Final = CURRENT.set


class CleanCloseMiddleware:
    """WSGI middleware: early responses are delivered, and whose fault an error is, is told.

    It belongs outermost: then ``start_response`` is the server's own. Requests that ask for a
    websocket pass through.

    Args:
        app: The WSGI application.
        outlets: What receives the events, in this order; see `cleanclose.core.Outlet`.
            Default: one `cleanclose.core.StructlogOutlet`.
        stop_work: In which requests the kernel is asked, before each piece of a response that is
            made while it is sent, whether the client is still there; if it has left, the iterable
            is closed. True for those with a safe method, a callable for those of them for whose
            environ it is true, or a `cleanclose.core.Stoppable`, which may name unsafe methods.
            Default: none. (What runs before the response can only ask by itself: see
            `cleanclose.core.raise_if_gone`.)
        **settings: The fields of `cleanclose.core.Settings`.

    Raises:
        ValueError: A setting is out of its range, or ``stop_work`` is none of these.
    """

    def __init__(
        self,
        app: WSGIApp,
        *,
        outlets: Sequence[Outlet] | None = None,
        stop_work: bool | Callable[[Environ], bool] | Stoppable = False,
        **settings: Unpack[SettingsOptions],
    ) -> None:
        self.app = app
        self._stoppable = Stoppable.of(stop_work)
        self._settings = Settings(**settings)
        self.reporter = make_reporter(outlets, self._settings)
        if self._settings.quiet_logs:
            install_quiet_logs(self._settings.level_table(), app=app)
        self._lock = threading.Lock()
        self._places: Places | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "app":
            # Not constructed yet (copy, pickle): looking it up would ask for it again.
            raise AttributeError(name)
        return getattr(self.app, name)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        if "HTTP_UPGRADE" in environ and "websocket" in environ["HTTP_UPGRADE"].lower():
            # The connection becomes the application's own: what it raises then is no answer.
            return self.app(environ, start_response)
        watch = _new_watch(WsgiWatch)
        watch.started = _clock()
        watch.progress = OPEN
        watch.environ = environ
        watch.server_start_response = start_response
        if watch.started >= self.reporter.sample_at:
            self.reporter.request_begins(watch)
        if self._stoppable is not None:
            watch.stoppable = self._stoppable.applies(
                environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""), environ
            )
        if environ.get("CONTENT_LENGTH", "0") not in ("", "0") or (
            "HTTP_TRANSFER_ENCODING" in environ
        ):
            length = _length(watch)
            if length != NO_BODY:
                return self._serve_upload(watch, length)
            _close_behind_chunks(watch)
        _enter(watch)
        try:
            result = self.app(environ, watch.start_response)
        except BaseException as error:
            answer = self.answer(error, watch, None)
            if not isinstance(answer, list):
                self._abandon(watch, None)
                if answer is None:
                    raise
                try:
                    raise answer from error
                finally:
                    # Its traceback refers to this frame.
                    del answer
            result = answer
        if type(result) is list:
            return ListBody(self, watch, cast("Sequence[bytes]", result))
        return self._hand_over(watch, result)

    def _serve_upload(self, watch: WsgiWatch, length: int) -> Iterable[bytes]:
        delivery = self._delivery(watch, length)
        _enter(watch)
        try:
            result = self.app(watch.environ, delivery.start_response)
        except BaseException as error:
            answer = self.answer(error, watch, delivery)
            if not isinstance(answer, list):
                if answer is None and isinstance(error, Exception):
                    delivery.make_way()
                self._abandon(watch, delivery)
                if answer is None:
                    raise
                try:
                    raise answer from error
                finally:
                    # Its traceback refers to this frame.
                    del answer
            result = answer
        if watch.body_complete and not delivery.pending:
            # Nothing to deliver any more.
            return self._hand_over(watch, result)
        kind = SizedDeliveredBody if hasattr(result, "__len__") else DeliveredBody
        body = kind(self, watch, result, delivery)
        if delivery.server.ends_with_response:
            body.prepare()
        return body

    def answer(
        self, error: BaseException, watch: WsgiWatch, delivery: Delivery | None
    ) -> list[bytes] | BrokenPipeError | None:
        """The application has raised, from its call or from its response's iteration.

        Returns:
            What to respond with instead; or what to raise instead, where the response has begun
            and can only break off; None if the exception is the server's to see.
        """
        if isinstance(error, Exception):
            # Whether the client has left as well.
            watch.ask()
            if delivery is not None:
                delivery.notice()
        hidden = self._is_hidden(error, watch) or self._is_unanswered(error, watch)
        quiet = self._ended(watch, error, hidden=hidden)
        if not quiet and not hidden:
            return None
        if quiet:
            # Nobody reads it.
            status, body = "400 Bad Request", b""
        else:
            status, body = "500 Internal Server Error", b"Internal Server Error\n"
        headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
        traceback = error.__traceback__
        if watch.status is not None:
            forget_head(watch.server_start_response, watch.server)
        start = watch.start_response if delivery is None else delivery.start_response
        try:
            start(status, headers, (type(error), error, traceback))
        except BaseException:  # noqa: BLE001 - PEP 3333: the error itself, if the head was sent
            # Without this frame, which refers to it.
            error.__traceback__ = traceback
            if quiet and (isinstance(error, OSError) or _is_word_of(watch.server, error)):
                # The server knows best what to do with its own.
                return None
            return _broken_pipe(error, watch.departure if quiet else None)
        return [body]

    def close_failed(self, error: BaseException, watch: WsgiWatch, *, told: bool) -> bool:
        """The application's ``close()`` has raised, behind its response.

        Returns:
            Whether the exception ends here.
        """
        return self._ended(watch, error, hidden=self._is_hidden(error, watch), told=told)

    def over(self, watch: WsgiWatch, error: BaseException | None = None, *, told: bool) -> None:
        """The response is over, and the application has not raised.

        Args:
            watch: The exchange.
            error: What ended the response from outside, if that is no Exception.
            told: Whether the end of the exchange is told by another event already.
        """
        if not watch.ended:
            self._ended(watch, error, told=told)

    def report_drained(self, delivery: Delivery) -> bool:
        """Report what became of an early response, unless the lingerer will.

        Returns:
            Whether it was one.
        """
        self.reporter.report(delivery.event())
        return delivery.early

    def _ended(
        self,
        watch: WsgiWatch,
        error: BaseException | None,
        *,
        hidden: bool = False,
        told: bool = False,
    ) -> bool:
        if error is not None and not hidden and self._may_be_hidden(error, watch):
            # It is raised all the same. Told twice is better than told by nobody.
            hidden = True
        # A second error, of close(): the departure has been told with the first.
        told = told or watch.ended
        end = watch.app_ended(time.monotonic(), error, told=told, restored=hidden)
        for event in end.events:
            self.reporter.report(event)
        return end.quiet

    def _is_hidden(self, error: BaseException, watch: WsgiWatch) -> bool:
        """Whether the server is known to take this exception for its client's."""
        server = _known_server(watch)
        return (
            isinstance(error, OSError)
            and server is not None
            and server.hides is not None
            and server.hides(error)
        )

    def _is_unanswered(self, error: BaseException, watch: WsgiWatch) -> bool:
        """Whether it is an upstream's, and the server would log it but send no 500."""
        server = _known_server(watch)
        return (
            isinstance(error, OSError)
            and server is not None
            and not server.answers
            and watch.judge(error).side is Side.UPSTREAM
        )

    def _may_be_hidden(self, error: BaseException, watch: WsgiWatch) -> bool:
        """Whether a server that we do not know may do so."""
        return (
            isinstance(error, OSError)
            and _known_server(watch) is None
            and watch.judge(error).side is Side.UPSTREAM
        )

    def _delivery(self, watch: WsgiWatch, length: int) -> Delivery:
        environ, server = watch.environ, watch.server
        # A bound method where nothing has wrapped it: gunicorn's Response, for one.
        response = wsgi_response(watch.server_start_response, server)
        connection = find_connection(environ, server)
        watch.body_complete = False
        if length != CHUNKED:
            watch.expected_in = length
            # Not needed by whoever knows the length; and Werkzeug says that the client has left
            # only where it looks after the length by itself.
            environ.pop("wsgi.input_terminated", None)
        # A list, which copies of the environ share.
        wishes = environ[_SKIP_KEY] = list[bool]()
        delivery = Delivery(
            watch,
            server,
            response,
            connection,
            length,
            wishes,
            self._begin,
            self.reporter.report,
            self._settings.max_lingering,
        )

        def finish(asked_for: set[str]) -> None:
            trailers = server.trailers
            if (
                trailers is not None
                and trailers not in asked_for
                and not has_rest_of_chunks(delivery.stream, trailers, connection)
            ):
                delivery.force_close()

        chunks = server.trailers is not None and length == CHUNKED
        environ["wsgi.input"] = watch.input = WitnessedInput(
            delivery.stream, delivery, finish if chunks else None
        )
        return delivery

    def _begin(self, delivery: Delivery) -> Exchange:
        """The exchange of a response that begins while the body is incomplete."""
        watch, server, connection = delivery.watch, delivery.server, delivery.connection
        environ = watch.environ
        greenlets = connection is not None and connection.greenlets
        timeout = server.worker_timeout
        relayed = (
            server.relays
            and connection is not None
            and not connection.is_peer(environ.get("REMOTE_ADDR"), environ.get("REMOTE_PORT"))
        )
        return Exchange(
            self._settings,
            self._places_for(watch, delivery.response, connection),
            server=server,
            connection=Connection(
                address=environ.get("REMOTE_ADDR") or None,
                lingers=connection is not None and can_linger(),
                proxied=relayed or not _PROXY_KEYS.isdisjoint(environ),
                half_closes=not relayed,
                blocking=not greenlets,
                framed=delivery.framed,
                worker_timeout=timeout and timeout(environ, delivery.response),
            ),
            facts=watch.facts(),
            length=delivery.length,
            awaits_continue=not delivery.has_read
            and wants_continue(environ.get("HTTP_EXPECT"))
            and not names_caddy(environ.get("HTTP_VIA")),
            started=watch.started,
            received=watch.bytes_in,
        )

    def _hand_over(self, watch: WsgiWatch, result: Any) -> Iterable[bytes]:
        """Give the server the application's response: it is all there, or made as it is sent."""
        if isinstance(result, list | tuple):
            return ListBody(self, watch, cast("Sequence[bytes]", result))
        wrapper = watch.environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(result, wrapper):
            # The server knows its own class, and sends the file without us.
            watch.response_completed()
            if ResponseFile(self, watch, result).stand_behind(result):
                _enter(None)
            else:
                self._abandon(watch, None)
            return cast("Iterable[bytes]", result)
        if isinstance(result, str | bytes) or not hasattr(result, "__iter__"):
            # A server's own sign that there is nothing to do, or an error of the application's.
            self._abandon(watch, None)
            return cast("Iterable[bytes]", result)
        body = SizedBody if hasattr(result, "__len__") else Body
        return body(self, watch, result)

    def _abandon(self, watch: WsgiWatch, delivery: Delivery | None) -> None:
        """There will be no response's end to see."""
        try:
            if delivery is not None:
                delivery.close(all_sent=False)
                self.report_drained(delivery)
            self.over(watch, told=False)
        finally:
            leave(watch)

    def _places_for(
        self, watch: WsgiWatch, response: object, connection: ClientConnection | None
    ) -> Places:
        # Only a request knows how many threads there are.
        with self._lock:
            if self._places is None:
                count = watch.server.threads
                # More than one, where the server says so but not how many.
                several = 2 if watch.environ.get("wsgi.multithread") else None
                self._places = Places.for_workers(
                    several if count is None else count(watch.environ, response),
                    most=self._settings.max_draining,
                    greenlets=connection is not None and connection.greenlets,
                )
            return self._places


def skip(environ: Environ) -> None:
    """Leave this request's response alone: send it as if there were no middleware.

    Call it before the response begins. Without effect where the middleware is not installed.

    Args:
        environ: The request's environ (``request.environ`` in Flask, ``request.META`` in
            Django).
    """
    wishes = environ.get(_SKIP_KEY)
    if isinstance(wishes, list):
        wishes.append(True)  # pyright: ignore[reportUnknownMemberType]


def _length(watch: WsgiWatch) -> int:
    environ = watch.environ
    length = body_length(
        method=environ["REQUEST_METHOD"],
        http_version=environ.get("SERVER_PROTOCOL", "").removeprefix("HTTP/"),
        content_length=environ.get("CONTENT_LENGTH"),
        transfer_encoding=environ.get("HTTP_TRANSFER_ENCODING"),
        upgrade=environ.get("HTTP_UPGRADE"),
    )
    if (
        length == CHUNKED
        and not environ.get("wsgi.input_terminated")
        and find_connection(environ, watch.server) is None
    ):
        # Nothing says where wsgi.input ends, and the connection is not in reach either.
        return NO_BODY
    return length


def _close_behind_chunks(watch: WsgiWatch) -> None:
    """A body that nobody looks after must not become the next request."""
    server = watch.server
    environ = watch.environ
    if server.trailers is not None and server.close and "HTTP_TRANSFER_ENCODING" in environ:
        handler: object = getattr(watch.server_start_response, "__self__", None)
        server.close(handler, environ["wsgi.input"])


def _known_server(watch: WsgiWatch) -> Server | None:
    """The server, if it is known what it hides, and if it is the one that calls us."""
    server = watch.server
    own = is_servers_own(watch.server_start_response, server)
    return server if own and server.hides is not None else None


def _is_word_of(server: Server, error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == server.name


def _broken_pipe(error: BaseException, departure: Verdict | None) -> BrokenPipeError:
    """What every server takes for the end of a connection, and for nothing else."""
    broken = BrokenPipeError(errno.EPIPE, "the response breaks off")
    broken.__cause__ = error
    if departure is not None:
        mark(broken, departure)
    return broken
