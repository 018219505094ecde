"""WSGI in, WSGI out: what happens on the connection is told to the core, and its steps are done."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Unpack, cast

from cleanclose.core import Outlet, Settings, SettingsOptions, Verdict
from cleanclose.core.blame.judge import mark
from cleanclose.core.blame.provenance import raise_as_it_is
from cleanclose.core.blame.watch import CURRENT, OPEN, Watch
from cleanclose.core.conduct import Conduct, End
from cleanclose.core.deliver.exchange import Connection, Exchange
from cleanclose.core.deliver.framing import CHUNKED, NO_BODY, body_length, wants_continue
from cleanclose.core.deliver.places import Places
from cleanclose.core.deliver.proxied import PROXY_FIELDS, names_caddy
from cleanclose.core.process import COPYING, Lock
from cleanclose.core.server import Server
from cleanclose.core.stop import Stoppable
from cleanclose.core.tell.reporter import Reporter
from cleanclose.linger import can_linger
from cleanclose.quiet import install_quiet_logs
from cleanclose.servers import forget_head, is_servers_own, wsgi_response, wsgi_server
from cleanclose.surge import make_reporter
from cleanclose.wsgi._bodies import (
    Body,
    DeliveredBody,
    Dropped,
    FilePieces,
    ListBody,
    ResponseFile,
    SizedBody,
    SizedDeliveredBody,
    leave,
)
from cleanclose.wsgi._connection import ClientConnection, find_connection, has_rest_of_chunks
from cleanclose.wsgi._delivery import Delivery
from cleanclose.wsgi._input import WitnessedInput
from cleanclose.wsgi._witness import Environ, StartResponse, UploadWatch, WsgiWatch, answer_of

__all__ = ["CleanCloseMiddleware", "skip"]

WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

_NO_LENGTHS: Final = ("", "0")
_THERE: Final[tuple[type, ...]] = (list, tuple)
"""Responses that are there already, and have nothing to close."""
_PROXY_KEYS: Final = frozenset("HTTP_" + name.upper().replace("-", "_") for name in PROXY_FIELDS)
# Looked up once: this is done for every request.
_clock: Final = time.monotonic
_new_watch: Final = object.__new__
_current: Final = CURRENT.get
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
        self.reporter: Reporter = make_reporter(outlets, self._settings)
        self._quieten()
        self._lock = Lock()
        self._places: Places | None = None

    def _quieten(self) -> None:
        if self._settings.quiet_logs:
            install_quiet_logs(self._settings.level_table(), app=self.app)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin as a copy, in another process maybe."""
        self.__dict__.update(state)
        self._quieten()

    def __getattr__(self, name: str) -> Any:
        if name == "app" or name in COPYING:
            # Not constructed yet: looking it up would ask for it again. Nor is a copy of the
            # application one of this.
            raise AttributeError(name)
        return getattr(self.app, name)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        if "HTTP_UPGRADE" in environ and "websocket" in environ["HTTP_UPGRADE"].lower():
            # The connection becomes the application's own: what it raises then is no answer.
            return self.app(environ, start_response)
        outer = _current()
        if outer is not None:
            return self._serve_inside(outer, environ, start_response)
        if environ.get("CONTENT_LENGTH", "0") not in _NO_LENGTHS or (
            "HTTP_TRANSFER_ENCODING" in environ
        ):
            server = wsgi_server(environ, start_response)
            length = _length(environ, server)
            if length != NO_BODY:
                upload = _new_watch(UploadWatch)
                self._begins(upload, environ, start_response)
                return self._serve_upload(upload, server, length)
            _close_behind_chunks(environ, start_response, server)
        watch = _new_watch(WsgiWatch)
        self._begins(watch, environ, start_response)
        _enter(watch)
        try:
            result = self.app(environ, watch.start_response)
        except BaseException as error:
            answer = self.answer(error, watch)
            if not isinstance(answer, list):
                self._abandon(watch, None)
                if answer is None:
                    raise
                # Its traceback will refer to this frame.
                held = [answer]
                del answer
                raise_as_it_is(held.pop())
            result = answer
        return self._hand_over(watch, result)

    def _begins(self, watch: WsgiWatch, environ: Environ, start_response: StartResponse) -> None:
        watch.started = started = _clock()
        watch.progress = OPEN
        watch.environ = environ
        watch.server_start_response = start_response
        if started >= self.reporter.sample_at:
            self.reporter.request_begins(watch)
        if self._stoppable is not None:
            watch.stoppable = self._stoppable.applies(
                environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""), environ
            )

    def _serve_inside(
        self, outer: Watch, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Serve a request while the thread works for an exchange already."""
        if not outer.ended and isinstance(outer, WsgiWatch) and outer.is_of(environ):
            # The application is wrapped as well, and mounted in one that is: one exchange.
            return self.app(environ, start_response)
        # The application has called another one, as a client does; or a server has dropped a
        # response without a word.
        dropped = outer.ended or is_servers_own(
            start_response, wsgi_server(environ, start_response)
        )
        _enter(None)
        try:
            return self(environ, start_response)
        finally:
            if not dropped:
                _enter(outer)

    def _serve_upload(self, watch: UploadWatch, server: Server, length: int) -> Iterable[bytes]:
        self._witness_input(watch, server, length)
        _enter(watch)
        try:
            result = self.app(watch.environ, watch.begin)
        except BaseException as error:
            answer = self.answer(error, watch)
            if not isinstance(answer, list):
                delivery = None if watch.body_complete else watch.delivering()
                self._abandon(watch, delivery)
                if answer is None:
                    raise
                # Its traceback will refer to this frame.
                held = [answer]
                del answer
                raise_as_it_is(held.pop())
            result = answer
        if watch.body_complete:
            # Nothing to deliver any more.
            return self._hand_over(watch, result)
        result = _in_pieces(result, watch.environ.get("wsgi.file_wrapper"))
        if watch.refused:
            result = Dropped(result)
        kind = SizedDeliveredBody if hasattr(result, "__len__") else DeliveredBody
        body = kind(self, watch, result, watch.delivering())
        if watch.server.ends_with_response:
            body.prepare()
        return body

    def answer(self, error: BaseException, watch: WsgiWatch) -> list[bytes] | BaseException | None:
        """The application has raised, from its call or from its response's iteration.

        Returns:
            What to respond with instead; or what to raise instead, where the response has begun
            and can only break off, or where the client's error hides one of the application's;
            None if the exception is the server's to see.
        """
        if isinstance(error, Exception):
            # Whether the client has left as well.
            watch.ask()
        end = self._ended(watch, error)
        own = end.error or error
        answer = self._answer(own, watch, end.conduct)
        if answer is None:
            delivery = watch.delivering() if isinstance(own, Exception) else None
            if delivery is not None and not watch.body_complete:
                delivery.make_way()
            return None if own is error else own
        return answer

    def _answer(
        self, error: BaseException, watch: WsgiWatch, conduct: Conduct
    ) -> list[bytes] | BrokenPipeError | None:
        if conduct.status is None:
            return None
        quiet = conduct.quiet
        head, body = answer_of(conduct.status)
        traceback = error.__traceback__
        if watch.status is not None:
            forget_head(wsgi_response(watch.server_start_response, watch.server), watch.server)
        try:
            watch.begin(*head, (type(error), error, traceback))
        except BaseException:  # noqa: BLE001 - PEP 3333: the error itself, if the head was sent
            # Without this frame, which refers to it.
            error.__traceback__ = traceback
            if quiet and (isinstance(error, OSError) or _is_word_of(watch.server, error)):
                # The server knows best what to do with its own.
                return None
            return _broken_pipe(error, watch.departure if quiet else None)
        return [body]

    def close_failed(self, error: BaseException, watch: WsgiWatch) -> BaseException | None:
        """The application's ``close()`` has raised, behind its response.

        Returns:
            What to raise; None if the exception ends here.
        """
        end = self._ended(watch, error)
        return None if end.conduct.quiet else end.error or error

    def over(self, watch: WsgiWatch, error: BaseException | None = None) -> None:
        """The response is over, and the application has not raised.

        Args:
            watch: The exchange.
            error: What ended the response from outside, if that is no Exception.
        """
        if not watch.ended:
            self._ended(watch, error)

    def _ended(self, watch: WsgiWatch, error: BaseException | None) -> End:
        end = watch.app_ended(time.monotonic(), error)
        for event in end.events:
            self.reporter.report(event)
        return end

    def _witness_input(self, watch: UploadWatch, server: Server, length: int) -> None:
        environ = watch.environ
        stream = environ["wsgi.input"]
        watch.body_complete = False
        watch.bytes_in = 0
        watch.deliver = self._deliver
        if length != CHUNKED:
            watch.expected_in = length
            # Not needed by whoever knows the length; and Werkzeug says that the client has left
            # only where it looks after the length by itself.
            environ.pop("wsgi.input_terminated", None)
            environ["wsgi.input"] = watch.input = WitnessedInput(stream, watch, length)
            return
        watch.expected_in = None
        trailers = server.trailers

        def finish(asked_for: set[str]) -> None:
            if (
                trailers is not None
                and trailers not in asked_for
                and not has_rest_of_chunks(
                    stream, trailers, find_connection(environ, stream, server)
                )
                and server.close is not None
            ):
                server.close(wsgi_response(watch.server_start_response, server), stream)

        environ["wsgi.input"] = watch.input = WitnessedInput(
            stream, watch, None, None if trailers is None else finish, raw=server.raw_chunks
        )

    def _deliver(self, watch: UploadWatch) -> Delivery:
        return Delivery(
            watch,
            self._begin,
            self.reporter.report,
            self._settings.max_lingering,
        )

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
            awaits_continue=not delivery.input.has_read
            and wants_continue(environ.get("HTTP_EXPECT"))
            and not names_caddy(environ.get("HTTP_VIA")),
            started=watch.started,
            received=watch.bytes_in,
        )

    def _hand_over(self, watch: WsgiWatch, result: Any) -> Iterable[bytes]:
        """Give the server the application's response: it is all there, or made as it is sent."""
        if type(result) in _THERE:
            return ListBody(self, watch, cast("Sequence[bytes]", result))
        wrapper = watch.environ.get("wsgi.file_wrapper")
        result = _in_pieces(result, wrapper)
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
            self.over(watch)
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
    # Copies of the environ share it; and who has put another one in its place has read it.
    stream: object = environ.get("wsgi.input")
    if isinstance(stream, WitnessedInput):
        stream.left_alone = True


def _in_pieces(result: Any, wrapper: object) -> Any:
    """A file as something to go through, where the server's wrapper has left it one."""
    if wrapper is None or isinstance(wrapper, type) or not hasattr(result, "read"):
        return result
    return FilePieces(result)


def _length(environ: Environ, server: Server) -> int:
    length = body_length(
        method=environ["REQUEST_METHOD"],
        http_version=environ.get("SERVER_PROTOCOL", "").removeprefix("HTTP/"),
        content_length=environ.get("CONTENT_LENGTH"),
        transfer_encoding=environ.get("HTTP_TRANSFER_ENCODING"),
        upgrade=environ.get("HTTP_UPGRADE"),
    )
    if length != NO_BODY and not server.declares_length:
        # A filter in front of the application may have changed it: only the end tells.
        return CHUNKED
    if (
        length == CHUNKED
        and not environ.get("wsgi.input_terminated")
        and find_connection(environ, environ["wsgi.input"], server) is None
    ):
        # Nothing says where wsgi.input ends, and the connection is not in reach either.
        return NO_BODY
    return length


def _close_behind_chunks(environ: Environ, start_response: StartResponse, server: Server) -> None:
    """A body that nobody looks after must not become the next request."""
    if server.trailers is not None and server.close and "HTTP_TRANSFER_ENCODING" in environ:
        handler: object = getattr(start_response, "__self__", None)
        server.close(handler, environ["wsgi.input"])


def _is_word_of(server: Server, error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == server.name


def _broken_pipe(error: BaseException, departure: Verdict | None) -> BrokenPipeError:
    """What every server takes for the end of a connection, and for nothing else."""
    broken = BrokenPipeError(errno.EPIPE, "the response breaks off")
    broken.__cause__ = error
    if departure is not None:
        mark(broken, departure)
    return broken
