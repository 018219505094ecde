"""The middleware as its users have it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from cleanclose.asgi._messages import ASGIApp, Receive, Scope, Send
from cleanclose.asgi._serving import Serving
from cleanclose.core import Outlet, Settings, SettingsOptions
from cleanclose.core.deliver.places import Places
from cleanclose.core.setup import Setup
from cleanclose.core.stop import Stoppable
from cleanclose.core.wrapper import Wrapper
from cleanclose.quiet import quieten
from cleanclose.surge import make_reporter

__all__ = ["CleanCloseMiddleware"]


class CleanCloseMiddleware(Wrapper):
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

    if TYPE_CHECKING:

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
            """Serve one scope, and return what the application returns."""

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
        super().__init__(Serving(app, setup, stoppable))

    def _begin(self) -> None:
        super()._begin()
        quieten(self._serving.setup.settings, self.app)
