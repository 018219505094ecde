"""The routes on Tornado: streaming handlers that finish in prepare() and in data_received().

``/buffered`` and unknown paths are ordinary handlers, for which Tornado gathers the body first,
up to the server's ``max_body_size``. The streaming handlers that read a body lift that limit
for themselves, as Tornado's documentation says; those which refuse do not.

Run as ``python -m tests.harness.apps.tornado_app PORT``.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import signal
import sys
from asyncio import Future
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.log import enable_pretty_logging
from tornado.web import Application, RequestHandler, stream_request_body

from tests.harness.apps import routes

seen = routes.Seen()


class Handler(RequestHandler):
    """Every method of a route does the same."""

    def initialize(self) -> None:
        seen.count(self.request.path)

    async def get(self) -> None:
        await self.act()

    async def post(self) -> None:
        await self.act()

    async def put(self) -> None:
        await self.act()

    async def head(self) -> None:
        await self.act()

    async def act(self) -> None:
        """What the route does when the body is there."""
        await self.say(routes.OK_BODY)

    def say(self, body: bytes | str | None = None) -> Future[None]:
        """``finish()`` for bodies: its own signature has an untyped dict."""
        return self.finish(body)  # pyright: ignore[reportUnknownMemberType]

    def put_piece(self, piece: bytes) -> None:
        """``write()`` for pieces of bytes."""
        self.write(piece)  # pyright: ignore[reportUnknownMemberType]

    def lift_limit(self) -> None:
        """Let the body be as large as it is."""
        connection: Any = self.request.connection
        connection.set_max_body_size(1 << 40)

    def data_received(self, chunk: bytes) -> None:
        """A piece of the body that nobody wants."""


@stream_request_body
class Refuse(Handler):
    status = 413
    body = routes.REFUSAL

    def prepare(self) -> None:
        self.set_status(self.status)
        self.say(self.body)


@stream_request_body
class RefuseLarge(Refuse):
    status = 401
    body = routes.LARGE


@stream_request_body
class RefuseAfter(Handler):
    def prepare(self) -> None:
        self.lift_limit()
        self.received = 0

    def data_received(self, chunk: bytes) -> None:
        self.received += len(chunk)
        if self.received >= routes.READ_FIRST and not self._finished:
            self.set_status(413)
            self.say(routes.REFUSAL)

    async def act(self) -> None:
        self.set_status(413)
        await self.say(routes.REFUSAL)


@stream_request_body
class RefuseStreaming(Handler):
    async def prepare(self) -> None:
        self.set_status(413)
        for number, chunk in enumerate(routes.CHUNKS):
            if number:
                await asyncio.sleep(routes.CHUNK_PAUSE)
            self.put_piece(chunk)
            await self.flush()
        self.say()


@stream_request_body
class RefuseBackground(Handler):
    async def prepare(self) -> None:
        self.set_status(413)
        self.say(routes.REFUSAL)
        await asyncio.sleep(routes.WORK_SECONDS)
        seen.count_background()


@stream_request_body
class RefuseLate(Handler):
    async def prepare(self) -> None:
        await asyncio.sleep(routes.LATE_SECONDS)
        self.set_status(413)
        self.say(routes.REFUSAL)


@stream_request_body
class Redirect(Handler):
    def prepare(self) -> None:
        self.redirect("/", status=303)


@stream_request_body
class Nothing(Handler):
    def prepare(self) -> None:
        self.set_status(204)
        self.say()


@stream_request_body
class Error(Handler):
    def prepare(self) -> None:
        raise RuntimeError("the app failed, as this route promises")


@stream_request_body
class Accept(Handler):
    def prepare(self) -> None:
        self.lift_limit()
        self.digest = hashlib.sha256()
        self.received = 0

    def data_received(self, chunk: bytes) -> None:
        self.digest.update(chunk)
        self.received += len(chunk)

    async def act(self) -> None:
        await self.say(routes.accepted_json(self.received, self.digest.hexdigest()))

    def on_connection_close(self) -> None:
        seen.count_failure()


@stream_request_body
class Echo(Handler):
    def prepare(self) -> None:
        self.lift_limit()

    async def data_received(self, chunk: bytes) -> None:  # type: ignore[override]
        self.put_piece(chunk)
        await self.flush()

    async def act(self) -> None:
        await self.say()


@stream_request_body
class Sleep(Handler):
    async def prepare(self) -> None:
        await asyncio.sleep(routes.LATE_SECONDS)
        self.say(routes.OK_BODY)


class Counters(Handler):
    async def act(self) -> None:
        await self.say(routes.counters_json())


class WhatWasSeen(Handler):
    async def act(self) -> None:
        await self.say(seen.json())


class Buffered(Handler):
    async def act(self) -> None:
        await self.say(f"{len(self.request.body)}\n")


class Missing(Handler):
    async def act(self) -> None:
        self.set_status(404)
        await self.say(b"There is no such route.\n")


def bare() -> Application:
    """The app."""
    return Application(
        [
            (routes.INDEX, Handler),
            (routes.REFUSE, Refuse),
            (routes.REFUSE_LARGE, RefuseLarge),
            (routes.REFUSE_AFTER, RefuseAfter),
            (routes.REFUSE_STREAMING, RefuseStreaming),
            (routes.REFUSE_BACKGROUND, RefuseBackground),
            (routes.REFUSE_LATE, RefuseLate),
            (routes.REDIRECT, Redirect),
            (routes.NOTHING, Nothing),
            (routes.ERROR, Error),
            (routes.ACCEPT, Accept),
            (routes.ECHO, Echo),
            (routes.SLEEP, Sleep),
            (routes.COUNTERS, Counters),
            (routes.SEEN, WhatWasSeen),
            (routes.BUFFERED, Buffered),
        ],
        default_handler_class=Missing,
    )


def make_app() -> Application:
    """The app as the environment asks for it."""
    application = bare()
    if routes.wrapped():
        from cleanclose.tornado import install

        return install(application, **routes.settings())
    return application


async def main(port: int, application: Application) -> None:
    """Serve until SIGTERM."""
    server = HTTPServer(application, max_body_size=routes.max_body_size())
    server.listen(port, "127.0.0.1")
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()


if __name__ == "__main__":
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    logging.getLogger().setLevel(logging.INFO)
    enable_pretty_logging()
    asyncio.run(main(int(sys.argv[1]), make_app()))
