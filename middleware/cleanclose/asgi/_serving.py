"""One scope in, one out: reports what happens on the connection to the core, takes its steps."""

from __future__ import annotations

import sys
import time
from typing import Any, Final

from cleanclose.asgi._delivery import Delivery
from cleanclose.asgi._messages import (
    ASGIApp,
    Receive,
    Scope,
    Send,
    can_be_read_again,
)
from cleanclose.asgi._stop import StoppedApp
from cleanclose.asgi._websocket import WebSocketWatch
from cleanclose.asgi._witness import NO_SCOPE, HttpWatch, UploadWatch
from cleanclose.core.blame.provenance import raise_as_it_is
from cleanclose.core.blame.watch import COMPLETE, CURRENT, OPEN, Watch
from cleanclose.core.conduct import ends_quietly
from cleanclose.core.deliver.exchange import Connection
from cleanclose.core.deliver.framing import BODILESS, is_multiplexed
from cleanclose.core.nesting import Nesting, nesting_of
from cleanclose.core.setup import Setup
from cleanclose.core.stop import Stoppable
from cleanclose.linger import can_linger
from cleanclose.stop import pass_cancellation_on

__all__ = ["Serving", "skip"]

# Looked up once: this is done for every request.
_clock: Final = time.monotonic
_enter: Final = CURRENT.set
_around: Final = CURRENT.get
# inspect.currentframe() would have to be kept in a local, which is a cycle.
_frame: Final = sys._getframe  # pyright: ignore[reportPrivateUsage]
# Type checkers would not see that the application's calls change these.
_BEGUN: Final = int(OPEN)
_NOTHING: Final[Any] = None
_SKIP_KEY: Final = "cleanclose.skip"


class Serving:
    """Serves the scopes of one application.

    An object of its own: looking something up on one with ``__getattr__`` costs.

    Args:
        app: The application.
        setup: What all exchanges share.
        stoppable: Which requests end when nobody waits for them; None for none.
    """

    __slots__ = ("_app", "_serve", "_stoppable", "reporter", "setup")

    def __init__(self, app: ASGIApp, setup: Setup, stoppable: Stoppable | None) -> None:
        self.setup = setup
        self.reporter = setup.reporter
        self._stoppable = stoppable
        self.app = app

    @property
    def app(self) -> ASGIApp:
        """The wrapped application."""
        return self._app

    @app.setter
    def app(self, app: ASGIApp) -> None:
        self._app = app
        self._serve: ASGIApp = app if self._stoppable is None else StoppedApp(app, self._stoppable)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Serve one scope, and return what the application returns."""
        outer = _around()
        if outer is not None and not outer.is_over:
            return await self._serve_inside(outer, scope, receive, send)
        try:
            kind = scope["type"]
        except KeyError:
            kind = None
        watch: HttpWatch | WebSocketWatch
        if kind == "http":
            if scope["method"] in BODILESS:
                watch = HttpWatch()
            else:
                watch = upload = UploadWatch()
                scope = self._begin_upload(upload, scope)
        elif kind == "websocket":
            watch = WebSocketWatch()
        else:
            return await self._app(scope, receive, send)
        watch.started = now = _clock()
        watch.progress = _BEGUN
        watch.scope = scope
        watch.server_receive = receive
        watch.send_to = send
        watch.plain = True
        watch.emptied = _NOTHING
        if now >= self.reporter.sample_at:
            watch.plain = False
            self.reporter.request_begins(watch)
        _enter(watch)
        serve = self._serve
        try:
            result = await serve(scope, watch.receive, watch.send)
        except BaseException as error:
            if watch.fails_early(error) and watch.calls.is_caller(_frame(1)):
                await watch.deliver().app_failed()
            if not await self._over(watch, error):
                raise
            return None
        if watch.progress == COMPLETE and watch.plain:
            if watch.emptied is not None:
                # Timers and callbacks have copied the context, and outlive the request.
                watch.server_receive, watch.send_to = watch.emptied
                watch.scope = NO_SCOPE
        else:
            await self._over(watch)
        return result

    def _begin_upload(self, watch: UploadWatch, scope: Scope) -> Scope:
        """Begin a watch for a request that may have a body; return its scope."""
        if not can_be_read_again(scope["headers"]):
            scope = {**scope, "headers": [(name, value) for name, value in scope["headers"]]}
        watch.begin_delivery = self._delivery
        watch.whole = watch.has_read = False
        watch.receiving = watch.bytes_in = 0
        # A list, which copies of the scope share.
        scope[_SKIP_KEY] = []
        return scope

    async def _over(
        self, watch: HttpWatch | WebSocketWatch, error: BaseException | None = None
    ) -> bool:
        """The application has returned or raised, and there may be something to say or to finish.

        Returns:
            Whether what it raised ends here.
        """
        if error is None and watch.is_alone and watch.progress == COMPLETE:
            if watch.is_sample:
                self.reporter.request_over(watch)
            watch.let_go()
            return True
        try:
            if watch.messages is not None:
                await watch.messages.app_ended(failed=error is not None)
        except BaseException as failure:
            ends_here = self._ended(watch, failure)
            if not ends_here:
                raise
        else:
            ends_here = self._ended(watch, error)
        finally:
            watch.stand_alone()
        stops = watch.stops
        if stops is not None and stops.may_hide_cancelling(
            failed=error is not None, quiet=ends_here
        ):
            pass_cancellation_on()
        return ends_here

    async def _serve_inside(self, outer: Watch, scope: Scope, receive: Receive, send: Send) -> Any:
        if nesting_of(outer, scope, from_server=False) is Nesting.SAME:
            return await self._serve(scope, receive, send)
        _enter(None)
        try:
            return await self.serve(scope, receive, send)
        finally:
            # A handler has called this application itself, and goes on.
            _enter(outer)

    def _ended(self, watch: HttpWatch | WebSocketWatch, error: BaseException | None) -> bool:
        """Report the end of an exchange.

        Returns:
            Whether the error ends here.

        Raises:
            BaseException: The application's own error, which the client's had hidden.
        """
        watch.ask()
        end = self.reporter.exchange_over(watch, time.monotonic(), error)
        quiet = error is not None and ends_quietly(
            end.conduct, begun=watch.status is not None, wants_answer=watch.calls.wants_answer
        )
        try:
            if end.error is not None and end.error is not error:
                raise_as_it_is(end.error)
        finally:
            # Its traceback refers to this frame.
            del end
        return quiet

    def _delivery(self, watch: UploadWatch) -> Delivery:
        """The delivery of a response that begins while the body is incomplete."""
        scope, calls, setup = watch.scope, watch.calls, self.setup
        server, sock = calls.server, calls.socket
        exchange = setup.begin_delivery(
            watch,
            time.monotonic(),
            server=server,
            connection=Connection(
                in_reach=can_linger() and sock is not None,
                multiplexed=is_multiplexed(scope["http_version"]),
            ),
            headers=watch.headers,
        )
        if scope[_SKIP_KEY]:
            exchange.leave_alone()
        return Delivery(
            exchange, calls, lambda: watch.receiving > 0, setup, server=server, sock=sock
        )


def skip(scope: Scope) -> None:
    """Leave this request's response alone: send it as if there were no middleware.

    Call it before the response begins. It has no effect if the middleware is not installed.

    Args:
        scope: The request's scope (``request.scope`` in Starlette and FastAPI).
    """
    wishes = scope.get(_SKIP_KEY)
    if isinstance(wishes, list):
        wishes.append(True)  # pyright: ignore[reportUnknownMemberType]
