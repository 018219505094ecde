"""ASGI in, ASGI out: the middleware as its users have it, and one exchange from end to end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Unpack

from cleanclose.asgi._messages import ASGIApp, Receive, Scope, Send
from cleanclose.asgi._serving import Serving
from cleanclose.asgi._websocket import WebSocketWatch
from cleanclose.asgi._witness import NO_SCOPE, HttpWatch, UploadWatch
from cleanclose.core import Outlet, Settings, SettingsOptions
from cleanclose.core.blame.watch import COMPLETE, CURRENT, OPEN, Watch
from cleanclose.core.deliver.framing import BODILESS
from cleanclose.core.nesting import Nesting, nesting_of
from cleanclose.core.setup import Setup
from cleanclose.core.stop import Stoppable
from cleanclose.core.wrapper import Wrapper
from cleanclose.quiet import quieten
from cleanclose.surge import make_reporter

__all__ = ["CleanCloseMiddleware"]

# Looked up once: this is done for every request.
_clock: Final = time.monotonic
_enter: Final = CURRENT.set
_around: Final = CURRENT.get
# inspect.currentframe() would have to be kept in a local, which is a cycle.
_frame: Final = sys._getframe  # pyright: ignore[reportPrivateUsage]
# Type checkers would not see that the application's calls change these.
_BEGUN: Final = int(OPEN)
_NOTHING: Final[Any] = None


class CleanCloseMiddleware(Wrapper):
    """Pure ASGI middleware: delivers early responses, and reports whose fault a broken one was.

    An early response reaches a client that is still uploading. A client that leaves, on HTTP or on
    a websocket, is one event; exceptions that only follow from its departure end here. Everything
    else stays as it was. All attributes of the wrapped application stay reachable.

    It belongs outermost: code around it waits until the delivery is over, and where such code
    answers for an application's exception, its answer does not pass through the middleware.

    Args:
        app: The ASGI application.
        outlets: What receives the events, in this order; see `cleanclose.core.Outlet`.
            Default: one `cleanclose.core.StructlogOutlet`.
        stop_work: Which requests are cancelled as a whole when their client has left, as if all
            of the application were in a block of `stop_work`. True: those with a safe method. A
            callable: those of them for which it returns true, given the scope. A
            `cleanclose.core.Stoppable` may name unsafe methods, too. Default: none.
        **settings: The fields of `cleanclose.core.Settings`.

    Raises:
        ValueError: A setting is out of its range, or ``stop_work`` is none of these.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        outlets: Sequence[Outlet] | None = None,
        stop_work: bool | Callable[[Scope], bool] | Stoppable = False,
        **settings: Unpack[SettingsOptions],
    ) -> None:
        stoppable = Stoppable.of(stop_work)
        limits = Settings(**settings)
        setup = Setup.of(limits, make_reporter(outlets, limits))
        super().__init__(Serving(app, setup, stoppable))

    def _begin(self) -> None:
        quieten(self._serving.setup.settings, self.app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Serve one scope, and return what the application returns."""
        outer = _around()
        if outer is not None and not outer.is_over:
            return await self._serve_inside(outer, scope, receive, send)
        try:
            kind = scope["type"]
        except KeyError:
            kind = None
        watch: HttpWatch | WebSocketWatch
        serving: Serving = self._serving
        if kind == "http":
            if scope["method"] in BODILESS:
                watch = HttpWatch()
            else:
                watch = upload = UploadWatch()
                scope = serving.begin_upload(upload, scope)
        elif kind == "websocket":
            watch = WebSocketWatch()
        else:
            return await self.app(scope, receive, send)
        watch.started = now = _clock()
        watch.progress = _BEGUN
        watch.scope = scope
        watch.server_receive = receive
        watch.send_to = send
        watch.plain = True
        watch.emptied = _NOTHING
        if now >= serving.reporter.sample_at:
            watch.plain = False
            serving.reporter.request_begins(watch)
        _enter(watch)
        inner = serving.inner
        try:
            result = await inner(scope, watch.receive, watch.send)
        except BaseException as error:
            if watch.fails_early(error) and watch.calls.is_caller(_frame(1)):
                await watch.deliver().app_failed()
            if not await serving.over(watch, error):
                raise
            return None
        if watch.progress == COMPLETE and watch.plain:
            if watch.emptied is not None:
                # Timers and callbacks have copied the context, and outlive the request.
                watch.server_receive, watch.send_to = watch.emptied
                watch.scope = NO_SCOPE
        else:
            await serving.over(watch)
        return result

    async def _serve_inside(self, outer: Watch, scope: Scope, receive: Receive, send: Send) -> Any:
        if nesting_of(outer, scope, from_server=False) is Nesting.SAME:
            return await self._serving.inner(scope, receive, send)
        _enter(None)
        try:
            return await self(scope, receive, send)
        finally:
            # A handler has called this application itself, and goes on.
            _enter(outer)
