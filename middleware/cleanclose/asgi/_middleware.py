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
    client_address,
    framing_headers,
)
from cleanclose.asgi._stop import StoppedApp
from cleanclose.asgi._websocket import WebSocketWatch
from cleanclose.asgi._witness import NO_SCOPE, HttpWatch, UploadWatch
from cleanclose.core import Outlet, Settings, SettingsOptions
from cleanclose.core.blame.provenance import raise_as_it_is
from cleanclose.core.blame.watch import COMPLETE, CURRENT, OPEN, Watch
from cleanclose.core.conduct import ends_quietly
from cleanclose.core.deliver.exchange import Connection, Exchange
from cleanclose.core.deliver.framing import is_multiplexed, wants_continue
from cleanclose.core.deliver.places import Places
from cleanclose.core.deliver.proxied import PROXY_FIELDS, names_caddy
from cleanclose.core.process import COPYING
from cleanclose.core.stop import Stoppable
from cleanclose.core.tell.reporter import Reporter
from cleanclose.linger import can_linger
from cleanclose.quiet import install_quiet_logs
from cleanclose.servers import asgi_server, asgi_socket, is_called_by_server, wants_answer
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
_PROXY_FIELDS: Final = frozenset(name.encode() for name in PROXY_FIELDS)


class _Parts:
    """The parts of the middleware that each request needs.

    In one place, because a class with ``__getattr__`` pays for each look at an attribute.
    """

    __slots__ = ("app", "reporter", "serve", "stoppable")

    app: ASGIApp
    """The wrapped application."""
    serve: ASGIApp
    """The same, with requests that end when nobody waits for them if a user wants that."""

    def __init__(self, app: ASGIApp, stoppable: Stoppable | None, reporter: Reporter) -> None:
        self.stoppable = stoppable
        self.reporter = reporter
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
        self._settings = Settings(**settings)
        self._places = Places(self._settings.max_draining)
        self._reporter = make_reporter(outlets, self._settings)
        self._parts = _Parts(app, stoppable, self._reporter)
        self._quieten()

    @property
    def app(self) -> ASGIApp:
        """The wrapped application."""
        return self._parts.app

    @app.setter
    def app(self, app: ASGIApp) -> None:
        self._parts.wrap(app)

    def _quieten(self) -> None:
        if self._settings.quiet_logs:
            install_quiet_logs(self._settings.level_table(), app=self.app)

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
            if watch.is_unanswered(error) and is_called_by_server(_frame(1), receive, send):
                await watch.deliver().fail()
            if not await self._failed(watch, error):
                raise
            return None
        if watch.progress == COMPLETE and watch.plain:
            if watch.emptied is not None:
                # Timers and callbacks have copied the context, and outlive the request.
                watch.server_receive, watch.send_to = watch.emptied
                watch.scope = NO_SCOPE
        else:
            await self._see_through(watch)
        return result

    def _begin_upload(self, watch: UploadWatch, scope: Scope) -> Scope:
        """Begin a watch for a request that may have a body; return its scope."""
        if not can_be_read_again(scope["headers"]):
            scope = {**scope, "headers": [(name, value) for name, value in scope["headers"]]}
        watch.begin_delivery = self._delivery
        watch.whole = False
        watch.pending = 0
        watch.bytes_in = 0
        watch.has_read = False
        # A list, which copies of the scope share.
        scope[_SKIP_KEY] = []
        return scope

    async def _see_through(self, watch: HttpWatch | WebSocketWatch) -> None:
        """The application has returned, and there may be something to say or to finish."""
        if watch.progress == COMPLETE and watch.messages is None and watch.ear is None:
            if watch.is_sample:
                self._reporter.request_over(watch)
            watch.let_go()
            return
        try:
            if watch.messages is not None:
                await watch.messages.close(failed=False)
        except BaseException as error:
            if not self._ended(watch, error):
                raise
        else:
            self._ended(watch, None)
        finally:
            watch.stand_alone()
        if watch.stops is not None and watch.stops.stopped:
            pass_cancellation_on()

    async def _failed(self, watch: HttpWatch | WebSocketWatch, error: BaseException) -> bool:
        """The application has raised. Return whether the error ends here."""
        try:
            if watch.messages is not None:
                await watch.messages.close(failed=True)
            ends_here = self._ended(watch, error)
        finally:
            watch.stand_alone()
        if ends_here and watch.stops is not None:
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
        """Send the events.

        Returns:
            Whether the error ends here.

        Raises:
            BaseException: The application's own error, which the client's had hidden.
        """
        watch.ask()
        now = time.monotonic()
        if watch.delivery is not None:
            self._reporter.report(watch.delivery.event(now))
        end = watch.app_ended(now, error)
        for event in end.events:
            self._reporter.report(event)
        if watch.is_sample:
            self._reporter.request_over(watch)
        quiet = ends_quietly(
            end.conduct,
            begun=watch.status is not None,
            wants_answer=wants_answer(watch.server_receive),
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
        scope, receive, send = watch.scope, watch.server_receive, watch.server_send()
        server = asgi_server(receive, send)
        headers = framing_headers(scope["headers"])
        caddy = names_caddy(headers.get(b"via"))
        multiplexed = is_multiplexed(scope["http_version"])
        exchange = Exchange(
            self._settings,
            self._places,
            server=server,
            connection=Connection(
                address=client_address(scope),
                lingers=not multiplexed and can_linger() and asgi_socket(receive, send) is not None,
                proxied=not _PROXY_FIELDS.isdisjoint(name for name, _ in scope["headers"]),
                multiplexed=multiplexed,
            ),
            facts=watch.facts(),
            length=watch.length,
            awaits_continue=not watch.has_read
            and not caddy
            and wants_continue(headers.get(b"expect")),
            started=watch.started,
            received=watch.bytes_in,
        )
        if watch.departure is not None:
            # Nobody is left to deliver to.
            exchange.peer_gone(watch.departure.mechanism, time.monotonic())
        if scope[_SKIP_KEY]:
            exchange.leave_alone()
        return Delivery(
            exchange,
            server,
            receive,
            send,
            self._reporter.report,
            self._settings.max_lingering,
            watch.pending,
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
