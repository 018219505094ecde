"""Tornado, for the tests about outlets, trackers and access logs.

Run as ``python -m tests.harness.apps.told_tornado PORT``. ``TEST_ACCESS=1`` has our
``log_function``.
"""

# Tornado's handlers have methods whose annotations strict checkers call partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.log import enable_pretty_logging
from tornado.web import Application, RequestHandler, stream_request_body

from cleanclose.core import client_gone
from cleanclose.tornado import install
from tests.harness.apps import told


class Index(RequestHandler):
    def get(self) -> None:
        self.finish(told.counters())


class Read(RequestHandler):
    def post(self) -> None:
        self.finish(str(len(self.request.body)))


@stream_request_body
class Refuse(RequestHandler):
    def prepare(self) -> None:
        self.set_status(413)
        self.finish("too much")

    def data_received(self, chunk: bytes) -> None: ...


class Work(RequestHandler):
    async def get(self) -> None:
        deadline = time.monotonic() + 10
        while not client_gone() and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await self.finish("late")


class Stream(RequestHandler):
    async def get(self) -> None:
        for _ in range(2000):
            self.write(told.PIECE)
            await self.flush()
            await asyncio.sleep(0.001)


class Big(RequestHandler):
    def get(self) -> None:
        self.finish(told.PIECE * 256)


class Reset(RequestHandler):
    def get(self) -> None:
        told.reset_upstream()


class ResetLater(RequestHandler):
    async def get(self) -> None:
        self.write(b"begun")
        await self.flush()
        told.reset_upstream()


async def main(port: int) -> None:
    told.prepare_logging()
    if "TEST_SENTRY" in os.environ:
        from sentry_sdk.integrations.tornado import TornadoIntegration

        told.prepare_sentry(TornadoIntegration())
    enable_pretty_logging()
    logging.getLogger("tornado.access").setLevel(logging.INFO)
    settings: dict[str, Any] = {}
    if os.environ.get("TEST_ACCESS") == "1":
        from cleanclose.integrations.tornado import log_function

        settings["log_function"] = log_function
    application = Application(
        [
            ("/", Index),
            ("/read", Read),
            ("/refuse", Refuse),
            ("/work", Work),
            ("/stream", Stream),
            ("/big", Big),
            ("/reset", Reset),
            ("/reset-later", ResetLater),
        ],
        **settings,
    )
    if os.environ["CLEANCLOSE"] == "1":
        install(application, outlets=told.outlets())
    server = HTTPServer(application)
    server.listen(port, "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
