"""The upload service as a Tornado app.

Run it from the root of the checkout::

    python -m example_apps.uploads_tornado --port 8000

Settings come from environment variables, see :meth:`UploadSettings.from_environment`;
``CLEANCLOSE=0`` leaves the middleware out.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from http import HTTPStatus

from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.web import Application, RequestHandler, stream_request_body

from cleanclose.core import snapshot
from cleanclose.tornado import install
from example_apps.uploads import (
    CHUNK_BYTES,
    MIB,
    Refusal,
    Upload,
    UploadService,
    UploadSettings,
    log_to_stderr,
)


class Handler(RequestHandler):
    """What the handlers share: the service, and how a refusal becomes a response."""

    def initialize(self, service: UploadService) -> None:
        """Take the service from the route."""
        self.service = service

    def reply(
        self,
        body: Mapping[str, object],
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer with JSON."""
        self.set_status(status)
        for name, value in (headers or {}).items():
            self.set_header(name, value)
        self.finish(dict(body))  # pyright: ignore[reportUnknownMemberType]

    def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal."""
        self.reply(refusal.as_json(), refusal.status, refusal.headers)


class Tokens(Handler):
    """POST /tokens: issue an upload token."""

    def post(self) -> None:
        """Issue a token."""
        self.reply(self.service.issue_token().as_json(), HTTPStatus.CREATED)


@stream_request_body
class Uploads(Handler):
    """PUT or POST /files: store the body."""

    upload: Upload | None = None

    def prepare(self) -> None:
        """Admit or refuse the upload; none of its body has been read yet."""
        if self.request.method in {"PUT", "POST"}:
            try:
                self.upload = self.service.begin(self.request.headers)
            except Refusal as refusal:
                self.refuse(refusal)

    async def data_received(self, chunk: bytes) -> None:
        """Store the next piece of the body."""
        if self.upload is None:
            return
        try:
            await IOLoop.current().run_in_executor(None, self.upload.write, chunk)
        except Refusal as refusal:
            self.discard()
            self.refuse(refusal)

    async def put(self) -> None:
        """Give the complete file its name and confirm it."""
        if self.upload is None:
            return
        # Taken over, so that on_connection_close cannot discard it while the thread works.
        upload, self.upload = self.upload, None
        with upload:
            try:
                stored = await IOLoop.current().run_in_executor(None, upload.finish)
            except Refusal as refusal:
                self.refuse(refusal)
            else:
                self.reply(stored.as_json(), HTTPStatus.CREATED, {"Location": stored.location})

    post = put

    def on_connection_close(self) -> None:
        """Clean up when the client has left half-way."""
        self.discard()
        super().on_connection_close()

    def discard(self) -> None:
        """Drop the upload with its temporary file."""
        if self.upload is not None:
            self.upload.discard()
            self.upload = None


class Files(Handler):
    """GET /files/{digest}: serve a stored file."""

    async def get(self, digest: str) -> None:
        """Send the file in pieces."""
        try:
            stored = self.service.find(digest)
        except Refusal as refusal:
            self.refuse(refusal)
            return
        for name, value in stored.headers.items():
            self.set_header(name, value)
        self.set_header("Content-Length", str(stored.size))
        with stored.path.open("rb") as file:
            while chunk := await IOLoop.current().run_in_executor(None, file.read, CHUNK_BYTES):
                self.write(chunk)  # pyright: ignore[reportUnknownMemberType]
                await self.flush()


class Health(Handler):
    """GET /healthz: the process answers."""

    def get(self) -> None:
        """Say so."""
        self.reply({"status": "ok"})


class Counters(Handler):
    """GET /counters: what the middleware has counted."""

    def get(self) -> None:
        """Return the counters."""
        self.reply(snapshot())


def make_app(settings: UploadSettings | None = None) -> Application:
    """Build the app; its settings come from the environment unless they are given."""
    settings = settings or UploadSettings.from_environment()
    resources = {"service": UploadService(settings)}
    log_to_stderr()
    app = Application(
        [
            ("/tokens", Tokens, resources),
            ("/files", Uploads, resources),
            ("/files/([^/]+)", Files, resources),
            ("/healthz", Health, resources),
            ("/counters", Counters, resources),
        ]
    )
    if settings.cleanclose:
        install(app)
    return app


async def serve(host: str, port: int) -> None:
    """Serve until the process is stopped."""
    settings = UploadSettings.from_environment()
    # Tornado's own limit must lie above the service's, or it cuts the upload before the
    # service can say why.
    limit = max(100 * MIB, settings.max_bytes + MIB)
    server = HTTPServer(make_app(settings), max_body_size=limit)
    server.listen(port, host)
    await asyncio.Event().wait()


def main() -> None:
    """Run the server from the command line."""
    parser = argparse.ArgumentParser(description="The upload service on Tornado.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.host, arguments.port))


if __name__ == "__main__":
    main()
