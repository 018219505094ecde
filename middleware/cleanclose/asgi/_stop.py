"""Whole requests as blocks: for applications that name them instead of changing their handlers."""

from __future__ import annotations

from cleanclose.asgi._messages import ASGIApp, Receive, Scope, Send
from cleanclose.core import Stoppable
from cleanclose.stop import stop_work

__all__ = ["StoppedApp"]


class StoppedApp:
    """An application whose requests end when nobody waits for them, if the user names them.

    Args:
        app: The application.
        which: Which requests.
    """

    def __init__(self, app: ASGIApp, which: Stoppable) -> None:
        self._app = app
        self._which = which

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        if scope["type"] != "http" or not self._which.applies(
            scope["method"], scope["path"], scope
        ):
            await self._app(scope, receive, send)
            return
        async with stop_work():
            await self._app(scope, receive, send)
