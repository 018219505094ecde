"""The upload service as a FastAPI app.

Run it from the root of the checkout::

    uvicorn --factory example_apps.uploads_fastapi:make_app --port 8000

Settings come from environment variables, see :meth:`UploadSettings.from_environment`;
``CLEANCLOSE=0`` leaves the middleware out.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse
from starlette.concurrency import run_in_threadpool

from cleanclose.asgi import CleanCloseMiddleware
from cleanclose.core import snapshot
from example_apps.uploads import Refusal, UploadService, UploadSettings, log_to_stderr


def make_app(settings: UploadSettings | None = None) -> FastAPI:
    """Build the app; its settings come from the environment unless they are given."""
    settings = settings or UploadSettings.from_environment()
    service = UploadService(settings)
    log_to_stderr()
    app = FastAPI(title="Uploads")

    @app.exception_handler(Refusal)
    async def refuse(_: Request, refusal: Refusal) -> JSONResponse:
        return JSONResponse(refusal.as_json(), refusal.status, refusal.headers)

    @app.post("/tokens", status_code=201)
    async def issue_token() -> Mapping[str, str | int]:
        return service.issue_token().as_json()

    @app.api_route("/files", methods=["PUT", "POST"])
    async def store(request: Request) -> JSONResponse:
        with service.begin(request.headers) as upload:
            async for chunk in request.stream():
                await run_in_threadpool(upload.write, chunk)
            stored = await run_in_threadpool(upload.finish)
        return JSONResponse(stored.as_json(), 201, {"Location": stored.location})

    @app.get("/files/{digest}")
    async def serve(digest: str) -> FileResponse:
        stored = service.find(digest)
        return FileResponse(stored.path, headers=stored.headers)

    @app.get("/healthz")
    async def health() -> Mapping[str, str]:
        return {"status": "ok"}

    @app.get("/counters")
    async def counters() -> Mapping[str, object]:
        return snapshot()

    if settings.cleanclose:
        app.add_middleware(CleanCloseMiddleware)
    return app
