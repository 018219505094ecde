"""A Starlette application that sends each request's body on: the path's end is the library."""

from __future__ import annotations

import os
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tests.harness.apps.noise_asgi import prepare
from tests.harness.proxying import ASYNC_PROXIES, URL


async def index(request: Request) -> Response:
    return PlainTextResponse("ok")


async def proxy(request: Request) -> Response:
    send_on = ASYNC_PROXIES[request.path_params["library"]]
    await send_on(os.environ[URL], request.stream())
    return PlainTextResponse("done")


app: Any = prepare(
    Starlette(routes=[Route("/", index), Route("/proxy/{library}", proxy, methods=["POST"])])
)
