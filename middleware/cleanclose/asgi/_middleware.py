"""ASGI in, ASGI out: reports what happens on the connection to the core, and takes its steps."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Unpack

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
from cleanclose.core import Outlet, Settings, SettingsOptions
from cleanclose.core.blame.provenance import raise_as_it_is
from cleanclose.core.blame.watch import COMPLETE, CURRENT, OPEN, Watch
from cleanclose.core.conduct import ends_quietly
from cleanclose.core.deliver.exchange import Connection
from cleanclose.core.deliver.framing import is_multiplexed
from cleanclose.core.deliver.places import Places
from cleanclose.core.process import COPYING
from cleanclose.core.setup import Setup
from cleanclose.core.stop import Stoppable
from cleanclose.linger import can_linger
from cleanclose.quiet import install_quiet_logs
from cleanclose.stop import pass_cancellation_on
from cleanclose.surge import make_reporter

__all__ = ["CleanCloseMiddleware", "skip"]

# Looked up once: this is done for every request.
_clock: Final = time.monotonic
_enter: Final = CURRENT.set
_around: Final = CURRENT.get
# inspect.currentframe() would have to be kept in a local, which is a cycle.
_frame: Final = sys._getframe  # pyright: ignore[reportPrivateUsage]
# Type checkers would not see that the application's calls change these.
_BEGUN: Final = int(OPEN)
_NOTHING: Final[Any] = None
_EXCHANGES: Final = ("http", "websocket")
_SKIP_KEY: Final = "cleanclose.skip"


class _Parts:
    """The parts of the middleware that each request needs.

    In one place, because a class with ``__getattr__`` pays for each look at an attribute.
    """

    __slots__ = ("app", "reporter", "serve", "setup", "stoppable")

    app: ASGIApp
    """The wrapped application."""
    serve: ASGIApp
    """The same, with requests that end when nobody waits for them if a user wants that."""

    def __init__(self, app: ASGIApp, stoppable: Stoppable | None, setup: Setup) -> None:
        self.stoppable = stoppable
        self.setup = setup
        self.reporter = setup.reporter
        self.wrap(app)

    def wrap(self, app: ASGIApp) -> None:
        """Wrap this application."""
        self.app = app
        self.serve = app if self.stoppable is None else StoppedApp(app, self.stoppable)


class CleanCloseMiddleware:
    """Pure ASGI middleware: delivers early responses, and reports whose fault a broken one was.

    An early response reaches a client that is still uploading. A client that leaves, on HTTP or on
    a websocket, is one event; exceptions that only follow from that end here. Everything else goes
    on as it was. All attributes of the wrapped application stay reachable.

    It belongs outermost: anything around it waits until the delivery is over, and answers that code
    around it gives to an application's exception do not pass through it.

    Args:
        app: The ASGI application.
        outlets: What receives the events, in this order; see `cleanclose.core.Outlet`.
            Default: one `cleanclose.core.StructlogOutlet`.
        stop_work: Which requests are cancelled as a whole when their client has left, as if all
            of the application were in a block of `stop_work`: True for those with a safe method,
            a callable for those of them for whose scope it is true, or a
            `cleanclose.core.Stoppable`, which may name unsafe methods. Default: none.
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
        setup = Setup(
            settings=limits,
            places=Places(limits.max_draining),
            reporter=make_reporter(outlets, limits),
        )
        self._parts = _Parts(app, stoppable, setup)
        self._quieten()

    @property
    def app(self) -> ASGIApp:
        """The wrapped application."""
        return self._parts.app

    @app.setter
    def app(self, app: ASGIApp) -> None:
        self._parts.wrap(app)

    def _quieten(self) -> None:
        settings = self._parts.setup.settings
        if settings.quiet_logs:
            install_quiet_logs(settings.level_table(), app=self.app)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin as a copy, in another process maybe."""
        self.__dict__.update(state)
        self._quieten()

    def __getattr__(self, name: str) -> Any:
        if name in ("app", "_parts") or name in COPYING:
            # Not constructed yet: looking it up would ask for it again. Nor is a copy of the
            # application one of this.
            raise AttributeError(name)
        return getattr(self.app, name)

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
        if kind == "http":
            # A body has no defined meaning in these (RFC 9110, sections 9.3.1, 9.3.2).
            if scope["method"] == "GET" or scope["method"] == "HEAD":
                watch = HttpWatch()
            else:
                watch = upload = UploadWatch()
                scope = self._begin_upload(upload, scope)
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
        parts = self._parts
        if now >= parts.reporter.sample_at:
            watch.plain = False
            parts.reporter.request_begins(watch)
        _enter(watch)
        serve = parts.serve
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
                self._parts.reporter.request_over(watch)
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
        if watch.stops is not None and (watch.stops.stopped if error is None else ends_here):
            pass_cancellation_on()
        return ends_here

    async def _serve_inside(self, outer: Watch, scope: Scope, receive: Receive, send: Send) -> Any:
        if scope.get("type") in _EXCHANGES and outer.is_for(scope):
            # One departure is one event: the outer middleware reports it.
            return await self._parts.serve(scope, receive, send)
        _enter(None)
        try:
            return await self(scope, receive, send)
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
        end = self._parts.reporter.exchange_over(watch, time.monotonic(), error)
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
        scope, calls, setup = watch.scope, watch.calls, self._parts.setup
        multiplexed = is_multiplexed(scope["http_version"])
        server, sock = calls.server, calls.socket
        exchange = setup.begin_delivery(
            watch,
            time.monotonic(),
            server=server,
            connection=Connection(
                lingers=not multiplexed and can_linger() and sock is not None,
                multiplexed=multiplexed,
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
