"""WSGI in, WSGI out: puts the exchange's own callables in the place of the server's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from sys import exception
from typing import Any, Final, cast

from cleanclose.core.blame.watch import CURRENT, OPEN, Watch
from cleanclose.core.deliver.framing import CHUNKED, NO_BODY, asks_for_websocket
from cleanclose.core.nesting import Nesting, nesting_of
from cleanclose.core.setup import Setup
from cleanclose.core.stop import Stoppable
from cleanclose.core.tell.reporter import Reporter
from cleanclose.servers import (
    SELF_ENDING,
    close_behind_chunks,
    file_in_pieces,
    is_servers_file,
    is_servers_own,
    plain_length,
    wsgi_length,
    wsgi_server,
)
from cleanclose.wsgi._bodies import Body, ResponseFile, SizedBody
from cleanclose.wsgi._ending import Ending
from cleanclose.wsgi._input import ChunkedInput, WitnessedInput
from cleanclose.wsgi._upload import UploadWatch
from cleanclose.wsgi._witness import Environ, StartResponse, WsgiWatch

__all__ = ["Serving", "WSGIApp"]

WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

# Looked up once: this is done for every request.
_clock: Final = time.monotonic
_current: Final = CURRENT.get
_enter: Final = CURRENT.set


class Serving:
    """Serves the requests of one application.

    Args:
        app: The WSGI application.
        setup: What all exchanges share.
        stoppable: Which requests' work may be stopped; None for none.
    """

    def __init__(self, app: WSGIApp, setup: Setup, stoppable: Stoppable | None) -> None:
        self.app = app
        self.setup = setup
        self.reporter: Reporter = setup.reporter
        self._stoppable = stoppable
        self._ending = Ending(setup)

    def serve(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        if "HTTP_UPGRADE" in environ and asks_for_websocket(environ["HTTP_UPGRADE"]):
            # The connection becomes the application's own: what it raises then is no answer.
            return self.app(environ, start_response)
        outer = _current()
        if outer is not None:
            return self._serve_inside(outer, environ, start_response)
        declared = environ.get("CONTENT_LENGTH")
        if declared or "HTTP_TRANSFER_ENCODING" in environ:
            length = plain_length(environ, declared)
            if length is None:
                length = wsgi_length(environ, start_response)
            if length != NO_BODY:
                return self._serve_upload(environ, start_response, length)
            close_behind_chunks(environ, start_response)
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
            result = self._ending.answer_call(error, watch)
        if type(result) is list:
            # As `_respond_with`.
            watch.ending = self._ending
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
        from_server = is_servers_own(start_response, wsgi_server(environ, start_response))
        nesting = nesting_of(outer, environ, from_server=from_server)
        if nesting is Nesting.SAME:
            return self.app(environ, start_response)
        _enter(None)
        try:
            return self.serve(environ, start_response)
        finally:
            if nesting is Nesting.CALLED:
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
        watch.ending = self._ending
        watch.deliverer = None
        watch.stream = stream = environ["wsgi.input"]
        if started >= self.reporter.sample_at or self._stoppable is not None:
            self._begins(watch)
        upload: WitnessedInput
        if length == CHUNKED:
            watch.expected_in = watch.left = None
            upload = ChunkedInput(stream, watch, raw=watch.server.raw_chunks)
        else:
            watch.expected_in = watch.left = length
            # Not needed if the length is known.
            environ.pop(SELF_ENDING, None)
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
            result = self._ending.answer_call(error, watch)
        if not watch.body_complete:
            return self._hand_over_early(watch, result)
        if type(result) is list:
            # As `_respond_with`.
            watch.result = result
            watch.pieces = None
            if exception() is not None:
                watch.outer = True
            return watch
        return self._hand_over(watch, result)

    # The response, whole or made as it is sent.

    def _respond_with(self, watch: WsgiWatch, result: Any) -> WsgiWatch:
        """A list or a tuple: the watch itself is the iterable."""
        watch.ending = self._ending
        watch.result = result
        watch.pieces = None
        if exception() is not None:
            # What was being handled when the application was called says nothing about its
            # response.
            watch.outer = True
        return watch

    def _hand_over(self, watch: WsgiWatch, result: Any) -> Iterable[bytes]:
        if type(result) is list or type(result) is tuple:
            return self._respond_with(watch, result)
        result = file_in_pieces(result, watch.environ)
        if is_servers_file(result, watch.environ):
            # The server knows its own class, and sends the file without us.
            watch.response_completed()
            if ResponseFile(self._ending, watch, result).stand_behind(result):
                _enter(None)
            else:
                self._ending.abandon(watch)
            return cast("Iterable[bytes]", result)
        if isinstance(result, str | bytes) or not hasattr(result, "__iter__"):
            # A server's own sign that there is nothing to do, or an error of the application's.
            self._ending.abandon(watch)
            return cast("Iterable[bytes]", result)
        kind = SizedBody if hasattr(result, "__len__") else Body
        return kind(self._ending, watch, result)

    def _hand_over_early(self, watch: UploadWatch, result: Any) -> Iterable[bytes]:
        """The same before the body's end."""
        result = file_in_pieces(result, watch.environ)
        delivery = watch.delivering()
        kind = SizedBody if hasattr(result, "__len__") and not watch.refused else Body
        body = kind(self._ending, watch, result, delivery)
        if watch.server.ends_with_response:
            body.prepare(delivery)
        return body
