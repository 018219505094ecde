"""Frameworks with a word of their own for a client that has left: ``TEST_FRAMEWORK`` names one.

They have ``POST /read``, which reads the body as JSON.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any, Final

from tests.harness.apps.noise_asgi import App, prepare


def _module(name: str) -> Any:
    # Not all of them are typed.
    return importlib.import_module(name)


def blacksheep() -> App:
    app = _module("blacksheep").Application()

    async def read(request: Any) -> Any:
        return _module("blacksheep").json(await request.json())

    app.router.add_post("/read", read)
    result: App = app
    return result


def lilya() -> App:
    responses = _module("lilya.responses")

    async def read(request: Any) -> Any:
        return responses.JSONResponse(await request.json())

    # It finds the handler's argument by its type.
    read.__annotations__["request"] = _module("lilya.requests").Request
    route = _module("lilya.routing").Path("/read", read, methods=["POST"])
    result: App = _module("lilya.apps").Lilya(routes=[route])
    return result


def mcp() -> App:
    server = _module("mcp.server.mcpserver").MCPServer("test")
    result: App = server.streamable_http_app(streamable_http_path="/read")
    return result


_FRAMEWORKS: Final[dict[str, Callable[[], App]]] = {
    "blacksheep": blacksheep,
    "lilya": lilya,
    "mcp": mcp,
}

app: Final = prepare(_FRAMEWORKS[os.environ["TEST_FRAMEWORK"]]())
