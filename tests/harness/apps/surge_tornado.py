"""The routes of ``surge_asgi`` on Tornado: ``python -m tests.harness.apps.surge_tornado PORT``."""

# Tornado's own annotations are not complete.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import contextlib
import sys

from tornado.web import Application, RequestHandler

from cleanclose.integrations.status import StatusPage
from cleanclose.tornado import install
from tests.harness import tap


class Wait(RequestHandler):
    """Answers after a while, or when its client has left."""

    def initialize(self) -> None:
        self.left = asyncio.Event()

    def on_connection_close(self) -> None:
        self.left.set()

    async def get(self) -> None:
        seconds = float(self.get_query_argument("wait", "0"))
        if seconds:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.left.wait(), seconds)
        self.finish("ok")


class Upload(RequestHandler):
    """Gets the body when it is there."""

    def post(self) -> None:
        self.finish(str(len(self.request.body)))


async def main(port: int) -> None:
    page = StatusPage(title="tornado <here>")
    application = Application(
        [
            (r"/upload", Upload),
            (r"/status/?", page.tornado),
            *((path, Wait) for path in ("/", *(f"/{each}" for each in "abcde"))),
        ]
    )
    install(application, outlets=[*tap.outlets(), page])
    application.listen(port, "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
