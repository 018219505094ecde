"""What serves one application's scopes: how an exchange begins and ends."""

from __future__ import annotations

import time

from cleanclose.asgi._delivery import Delivery
from cleanclose.asgi._messages import ASGIApp, Scope, can_be_read_again
from cleanclose.asgi._stop import StoppedApp
from cleanclose.asgi._websocket import WebSocketWatch
from cleanclose.asgi._witness import SKIP_KEY, HttpWatch, UploadWatch
from cleanclose.core.blame.provenance import raise_as_it_is
from cleanclose.core.blame.watch import COMPLETE
from cleanclose.core.conduct import ends_quietly
from cleanclose.core.deliver.exchange import Connection
from cleanclose.core.deliver.framing import is_multiplexed
from cleanclose.core.setup import Setup
from cleanclose.core.stop import Stoppable
from cleanclose.linger import can_linger
from cleanclose.stop import pass_cancellation_on

__all__ = ["Serving", "skip"]


class Serving:
    """Serves the scopes of one application.

    Args:
        app: The application.
        setup: What all exchanges share.
        stoppable: Which requests end when nobody waits for them; None for none.
    """

    __slots__ = ("_app", "_stoppable", "inner", "reporter", "setup")

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
        # With requests that end when nobody waits for them, if a user wants that.
        self.inner: ASGIApp = app if self._stoppable is None else StoppedApp(app, self._stoppable)

    def begin_upload(self, watch: UploadWatch, scope: Scope) -> Scope:
        """Begin a watch for a request that may have a body; return its scope."""
        if not can_be_read_again(scope["headers"]):
            scope = {**scope, "headers": [(name, value) for name, value in scope["headers"]]}
        watch.begin_delivery = self._delivery
        watch.whole = watch.has_read = False
        watch.receiving = watch.bytes_in = 0
        # A list, which copies of the scope share.
        scope[SKIP_KEY] = []
        return scope

    async def over(
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
        return Delivery(
            exchange, calls, lambda: watch.receiving > 0, setup, server=server, sock=sock
        )


def skip(scope: Scope) -> None:
    """Leave this request's response alone: send it as if there were no middleware.

    Call it before the response begins. It has no effect if the middleware is not installed.

    Args:
        scope: The request's scope (``request.scope`` in Starlette and FastAPI).
    """
    wishes = scope.get(SKIP_KEY)
    if isinstance(wishes, list):
        wishes.append(True)  # pyright: ignore[reportUnknownMemberType]
