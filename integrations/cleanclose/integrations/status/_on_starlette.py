"""The page on ASGI, as an endpoint of Starlette's."""

from __future__ import annotations

from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cleanclose.integrations.status.showing import ALLOW, Show

__all__ = ["StatusEndpoint"]


class StatusEndpoint(HTTPEndpoint):
    """One request for the page.

    Args:
        show: Makes the page for a client that sends this in ``Accept``.
        scope: The request's scope.
        receive: Its ``receive``.
        send: Its ``send``.
    """

    def __init__(self, show: Show, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, send)
        self._show = show

    async def get(self, request: Request) -> Response:
        """The page."""
        shown = self._show(",".join(request.headers.getlist("Accept")))
        return Response(shown.body, headers=dict(shown.headers))

    async def head(self, request: Request) -> Response:
        """The page's head alone: not every server leaves out the body by itself."""
        response = await self.get(request)
        response.body = b""
        return response

    async def method_not_allowed(self, request: Request) -> Response:
        """Answer without a page; Starlette would raise an error for its application's handlers."""
        return Response(status_code=405, headers={"Allow": ALLOW})
