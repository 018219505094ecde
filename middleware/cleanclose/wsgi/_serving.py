"""WSGI in, WSGI out: reports what happens on the connection to the core, and takes its steps."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Sequence
from sys import exception
from typing import Any, Final, cast

from cleanclose.core import Settings, Verdict
from cleanclose.core.blame.judge import mark
from cleanclose.core.blame.provenance import raise_as_it_is
from cleanclose.core.blame.watch import CURRENT, OPEN, Watch
from cleanclose.core.conduct import Conduct, End
from cleanclose.core.deliver.exchange import Connection, Exchange
from cleanclose.core.deliver.framing import (
    CHUNKED,
    NO_BODY,
    body_length,
    wants_continue,
)
from cleanclose.core.deliver.places import Places
from cleanclose.core.deliver.proxied import PROXY_FIELDS, names_caddy
from cleanclose.core.process import Lock
from cleanclose.core.server import Server
from cleanclose.core.stop import Stoppable
from cleanclose.core.tell.reporter import Reporter
from cleanclose.linger import can_linger
from cleanclose.servers import (
    forget_head,
    is_servers_own,
    plain_length,
    wsgi_response,
    wsgi_server,
)
from cleanclose.wsgi._bodies import (
    Body,
    DeliveredBody,
    Dropped,
    FilePieces,
    ResponseFile,
    SizedBody,
    SizedDeliveredBody,
    end_response,
    leave,
)
from cleanclose.wsgi._connection import ClientConnection, find_connection, has_rest_of_chunks
from cleanclose.wsgi._delivery import Delivery
from cleanclose.wsgi._input import ChunkedInput, WitnessedInput
from cleanclose.wsgi._upload import UploadWatch
from cleanclose.wsgi._witness import Environ, StartResponse, WsgiWatch, answer_of

__all__ = ["Serving", "WSGIApp"]

WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

_THERE: Final[tuple[type, ...]] = (list, tuple)
"""Types of responses that already exist as a whole, and have nothing to close."""
_PROXY_KEYS: Final = frozenset("HTTP_" + name.upper().replace("-", "_") for name in PROXY_FIELDS)
# Looked up once: this is done for every request.
_clock: Final = time.monotonic
_current: Final = CURRENT.get
_enter: Final = CURRENT.set


class Serving:
    """Serves the requests of one application.

    Args:
        app: The WSGI application.
        reporter: Reports the events.
        settings: The settings.
        stoppable: Which requests' work may be stopped; None for none.
    """

    def __init__(
        self, app: WSGIApp, reporter: Reporter, settings: Settings, stoppable: Stoppable | None
    ) -> None:
        self.app = app
        self.reporter = reporter
        self._settings = settings
        self._stoppable = stoppable
        self._lock = Lock()
        self._places: Places | None = None

    def serve(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        if "HTTP_UPGRADE" in environ and "websocket" in environ["HTTP_UPGRADE"].lower():
            # The connection becomes the application's own: what it raises then is no answer.
            return self.app(environ, start_response)
        outer = _current()
        if outer is not None:
            return self._serve_inside(outer, environ, start_response)
        declared = environ.get("CONTENT_LENGTH")
        if declared or "HTTP_TRANSFER_ENCODING" in environ:
            length = None
            if declared and "HTTP_TRANSFER_ENCODING" not in environ:
                length = plain_length(environ, declared)
            if length is None:
                length = _length(environ, wsgi_server(environ, start_response))
            if length != NO_BODY:
                return self._serve_upload(environ, start_response, length)
            _close_behind_chunks(environ, start_response, wsgi_server(environ, start_response))
        watch = WsgiWatch()
        watch.started = started = _clock()
        watch.progress = OPEN
        watch.is_sample = False
        watch.input = None
        watch.environ = environ
        watch.server_start_response = start_response
        if started >= self.reporter.sample_at or self._stoppable is not None:
            self._begins(watch)
        _enter(watch)
        app = self.app
        try:
            result = app(environ, watch.start_response)
        except BaseException as error:  # noqa: BLE001 - which raises, too
            result = self.answer_or_raise(error, watch)
        if type(result) is list:
            watch.listener = self
            watch.result = result
            watch.pieces = None
            if exception() is not None:
                watch.outer = True
            return watch
        return self._hand_over(watch, result)

    def _begins(self, watch: WsgiWatch) -> None:
        """The questions that most requests need not ask."""
        if watch.started >= self.reporter.sample_at:
            self.reporter.request_begins(watch)
        if self._stoppable is not None:
            environ = watch.environ
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
        # response silently.
        dropped = outer.ended or is_servers_own(
            start_response, wsgi_server(environ, start_response)
        )
        _enter(None)
        try:
            return self.serve(environ, start_response)
        finally:
            if not dropped:
                _enter(outer)

    def _serve_upload(
        self, environ: Environ, start_response: StartResponse, length: int
    ) -> Iterable[bytes]:
        watch = UploadWatch()
        watch.started = started = _clock()
        watch.progress = OPEN
        watch.is_sample = watch.body_complete = watch.has_read = False
        watch.bytes_in = 0
        watch.environ = environ
        watch.server_start_response = start_response
        watch.serving = self
        watch.deliverer = None
        watch.stream = stream = environ["wsgi.input"]
        if started >= self.reporter.sample_at or self._stoppable is not None:
            self._begins(watch)
        upload: WitnessedInput
        if length == CHUNKED:
            watch.expected_in = watch.left = None
            upload = self._chunked_input(watch, watch.server)
        else:
            watch.expected_in = watch.left = length
            # Not needed if the length is known; and Werkzeug reports that the client has left only
            # if it checks the length itself.
            environ.pop("wsgi.input_terminated", None)
            upload = WitnessedInput()
            upload.stream = stream
            upload.watch = watch
        watch.input = upload
        environ["wsgi.input"] = upload
        _enter(watch)
        app = self.app
        try:
            result = app(environ, watch.begin)
        except BaseException as error:  # noqa: BLE001 - which raises, too
            result = self.answer_or_raise(error, watch)
        if not watch.body_complete:
            return self._hand_over_early(watch, result)
        if type(result) is list:
            # As `respond_with`.
            watch.listener = self
            watch.result = result
            watch.pieces = None
            if exception() is not None:
                watch.outer = True
            return watch
        return self._hand_over(watch, result)

    def _hand_over_early(self, watch: UploadWatch, result: Any) -> Iterable[bytes]:
        """Give the server a response that has come before the body's end."""
        result = _in_pieces(result, watch.environ.get("wsgi.file_wrapper"))
        if watch.refused:
            result = Dropped(result)
        kind = SizedDeliveredBody if hasattr(result, "__len__") else DeliveredBody
        body = kind(self, watch, result, watch.delivering())
        if watch.server.ends_with_response:
            body.prepare()
        return body

    def answer_or_raise(self, error: BaseException, watch: WsgiWatch) -> list[bytes]:
        """The application has raised from its call. Returns the response that replaces the error.

        Raises:
            BaseException: What the server is to see.
        """
        answer = self.answer(error, watch)
        if isinstance(answer, list):
            return answer
        self._abandon(watch, None if watch.body_complete else watch.delivering())
        if answer is None:
            raise  # noqa: PLE0704 - it is being handled
        # Its traceback will refer to this frame.
        held = [answer]
        del answer, error
        return raise_as_it_is(held.pop())

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
            delivery = None if watch.body_complete else watch.delivering()
            if delivery is not None:
                delivery.app_failed(own)
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
                # The server knows best how to handle its own file.
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

    def closed(self, watch: WsgiWatch, error: BaseException | None) -> None:
        """The server has closed a response that is a list: why, if it was not over."""
        end_response(self, watch, error, None)

    def over(self, watch: WsgiWatch, error: BaseException | None = None) -> None:
        """The response is over, and the application has not raised.

        Args:
            watch: The exchange.
            error: What ended the response from outside, if that is not an Exception.
        """
        if not watch.ended:
            self._ended(watch, error)

    def _ended(self, watch: WsgiWatch, error: BaseException | None) -> End:
        end = watch.app_ended(time.monotonic(), error)
        for event in end.events:
            self.reporter.report(event)
        return end

    def _chunked_input(self, watch: UploadWatch, server: Server) -> ChunkedInput:
        environ, stream, trailers = watch.environ, watch.stream, server.trailers

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

        return ChunkedInput(
            stream, watch, None if trailers is None else finish, raw=server.raw_chunks
        )

    def deliver(self, watch: UploadWatch) -> Delivery:
        """The response begins before the body's end."""
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
            awaits_continue=not watch.has_read
            and wants_continue(environ.get("HTTP_EXPECT"))
            and not names_caddy(environ.get("HTTP_VIA")),
            started=watch.started,
            received=watch.bytes_in,
        )

    def _hand_over(self, watch: WsgiWatch, result: Any) -> Iterable[bytes]:
        """Give the server the application's response, whole or made as it is sent."""
        if type(result) in _THERE:
            return watch.respond_with(self, cast("Sequence[bytes]", result))
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
                # More than one, if the server says so but not how many.
                several = 2 if watch.environ.get("wsgi.multithread") else None
                self._places = Places.for_workers(
                    several if count is None else count(watch.environ, response),
                    most=self._settings.max_draining,
                    greenlets=connection is not None and connection.greenlets,
                )
            return self._places


def _in_pieces(result: Any, wrapper: object) -> Any:
    """An iterable for a file that the server's wrapper has left as a file."""
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
    """A body that nobody reads must not become the next request."""
    if server.trailers is not None and server.close and "HTTP_TRANSFER_ENCODING" in environ:
        handler: object = getattr(start_response, "__self__", None)
        server.close(handler, environ["wsgi.input"])


def _is_word_of(server: Server, error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == server.name


def _broken_pipe(error: BaseException, departure: Verdict | None) -> BrokenPipeError:
    """An error that every server takes for the end of a connection, and for nothing else."""
    broken = BrokenPipeError(errno.EPIPE, "the response breaks off")
    broken.__cause__ = error
    if departure is not None:
        mark(broken, departure)
    return broken
