"""What clients leave for a reason, on Starlette. See `tests.promises.surges.test_patterns`.

==================  =============================================================================
``/a`` … ``/e``     200 after the query's ``wait`` seconds, or as soon as the client has left
``/upload``         reads the body, then 200
``/refuse``         413 from the headers alone
``/status``         `cleanclose.integrations.status.StatusPage`
==================  =============================================================================
"""

from __future__ import annotations

from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from cleanclose.asgi import CleanCloseMiddleware
from cleanclose.integrations.status import StatusPage
from tests.harness import tap
from tests.harness.apps.starlette_parts import refuse


async def wait(request: Request) -> Response:
    with anyio.move_on_after(float(request.query_params.get("wait", "0"))):
        while (await request.receive())["type"] != "http.disconnect":
            pass
    return PlainTextResponse("ok")


async def upload(request: Request) -> Response:
    try:
        return PlainTextResponse(str(len(await request.body())))
    except ClientDisconnect:
        return Response()


page = StatusPage(title="uvicorn <here>")

app: Any = CleanCloseMiddleware(
    Starlette(
        routes=[
            Route("/", wait),
            *(Route(f"/{letter}", wait) for letter in "abcde"),
            Route("/upload", upload, methods=["POST"]),
            Route("/refuse", refuse, methods=["POST"]),
            Mount("/status", page.asgi),
        ]
    ),
    outlets=[*tap.outlets(), page],
)
