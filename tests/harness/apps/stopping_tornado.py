"""Tornado, for the tests about stopping work: each handler notes what became of its work."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from typing import Any, Final, Self

from tornado import httpserver, web

from cleanclose.core import snapshot
from cleanclose.integrations.tornado import log_function
from cleanclose.tornado import Stoppable, client_left, install, stop_work
from tests.harness import tap

LONG: Final = 120.0
NOTES: Final[Counter[str]] = Counter()
ENDS: Final[dict[str, float]] = {}
RUNNING: Final[set[str]] = set()


class Work:
    """Work that takes long, with a clean-up which has to wait for something."""

    def __init__(self, handler: web.RequestHandler) -> None:
        self._name = handler.request.headers.get("X-Request-ID", "-")

    async def __aenter__(self) -> Self:
        NOTES["begun"] += 1
        RUNNING.add(self._name)
        return self

    async def __aexit__(self, *error: object) -> None:
        ENDS[self._name] = time.monotonic()
        RUNNING.discard(self._name)
        for _ in range(3):
            await asyncio.sleep(0.001)
        NOTES["cleaned"] += 1


class Index(web.RequestHandler):
    def get(self) -> None:
        self.finish(  # pyright: ignore[reportUnknownMemberType]
            json.dumps(
                {
                    "notes": NOTES,
                    "ends": ENDS,
                    "running": sorted(RUNNING),
                    "tasks": len(asyncio.all_tasks()),
                    "counters": snapshot(),
                }
            )
        )


class Handler(web.RequestHandler):
    async def get(self) -> None:
        async with stop_work(), Work(self):
            await asyncio.sleep(LONG)

    post = get


class Quiet(web.RequestHandler):
    async def get(self) -> None:
        async with stop_work(quiet=True) as block, Work(self):
            await asyncio.sleep(LONG)
        NOTES["quiet, and on"] += block.stopped


class Beside(web.RequestHandler):
    async def get(self) -> None:
        async with Work(self):
            await client_left()


class Flowing(web.RequestHandler):
    async def get(self) -> None:
        async with stop_work(), Work(self):
            for _ in range(int(LONG * 200)):
                self.write(b"piece\n")  # pyright: ignore[reportUnknownMemberType]
                await self.flush()
                await asyncio.sleep(0.005)


class Whole(web.RequestHandler):
    async def get(self) -> None:
        async with Work(self):
            await asyncio.sleep(LONG)

    def on_finish(self) -> None:
        NOTES["finished"] += 1


class Stay(web.RequestHandler):
    async def get(self) -> None:
        async with stop_work(), Work(self):
            await asyncio.sleep(float(self.get_argument("seconds", "0.01")))
        self.write("done")  # pyright: ignore[reportUnknownMemberType]


async def main() -> None:
    tap.tap_logging()
    application = web.Application(
        [
            ("/", Index),
            ("/(?:handler|body)", Handler),
            ("/quiet", Quiet),
            ("/beside", Beside),
            ("/flowing", Flowing),
            ("/whole", Whole),
            ("/stay", Stay),
        ],
        log_function=log_function,
    )
    served: Any = application
    if os.environ.get("CLEANCLOSE") == "1":
        served = install(
            application,
            outlets=tap.outlets() if tap.PATH_VARIABLE in os.environ else [],
            stop_work=Stoppable(paths=["/whole"]),
        )
    httpserver.HTTPServer(served).listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
