"""The server of the Tornado measurement, as a process of its own.

``python -m benchmarks.tornado_server PORT bare|installed``
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from benchmarks.in_process import ANSWER
from cleanclose.tornado import install

__all__ = ["CPU", "GARBAGE", "PAGE"]

PAGE = "/page"
CPU = "/cpu"
GARBAGE = "/garbage"


class Page(RequestHandler):
    """What is measured."""

    def get(self) -> None:
        self.write(ANSWER)  # pyright: ignore[reportUnknownMemberType]

    post = get


class Cpu(RequestHandler):
    """The processor time of this process so far, in nanoseconds."""

    def get(self) -> None:
        self.write(str(time.process_time_ns()))  # pyright: ignore[reportUnknownMemberType]


class Garbage(RequestHandler):
    """How many objects only the cyclic collector could free since the last time.

    From the first time on it does not run by itself, so that none of them is freed uncounted.
    """

    def get(self) -> None:
        gc.disable()
        self.write(str(gc.collect()))  # pyright: ignore[reportUnknownMemberType]


async def serve(port: int, *, installed: bool) -> None:
    application = Application([(PAGE, Page), (CPU, Cpu), (GARBAGE, Garbage)])
    if installed:
        install(application)
    HTTPServer(application).listen(port, "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), installed=sys.argv[2] == "installed"))
