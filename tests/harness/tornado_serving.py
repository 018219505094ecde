"""Tornado's HTTPServer in a thread of the test's own process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Generator
from typing import Any

from tornado import httpserver, netutil

from cleanclose.core import Event, UploadDrained
from cleanclose.doctor.clients import Outcome as Seen
from cleanclose.doctor.clients import Upload, strict
from tests.harness.waiting import until

__all__ = ["LIMIT", "MIB", "Running", "serving", "the_event"]

MIB = 1024 * 1024
LIMIT = 64 * 1024
"""Bytes of a body that the server takes by default."""


class Running:
    """A server in a thread of its own."""

    def __init__(self, port: int, call: Callable[[Callable[[], Any]], Any]) -> None:
        self.port = port
        self.call = call

    def post(self, path: str, size: int = 8 * MIB, **more: Any) -> Seen:
        """Upload as a client that writes everything first."""
        return strict(Upload(port=self.port, path=path, body_size=size, **more))

    def pending(self) -> int:
        """How many tasks there are, but for the one that runs the loop and the one that asks."""
        return int(self.call(lambda: len(asyncio.all_tasks()))) - 2


@contextlib.contextmanager
def serving(app: Any, *, max_body_size: int = LIMIT, **options: Any) -> Generator[Running]:
    """Serve an application.

    Args:
        app: The application, or what HTTPServer takes besides.
        max_body_size: HTTPServer's.
        **options: What else HTTPServer takes.
    """
    ready, stop = threading.Event(), asyncio.Event()
    found: list[Any] = []

    async def main() -> None:
        (sock,) = netutil.bind_sockets(0, "127.0.0.1")
        server = httpserver.HTTPServer(app, max_body_size=max_body_size, **options)
        server.add_socket(sock)
        found.extend((sock.getsockname()[1], asyncio.get_running_loop()))
        ready.set()
        await stop.wait()
        server.stop()
        await server.close_all_connections()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert ready.wait(10)
    port, loop = found

    def call(function: Callable[[], Any]) -> Any:
        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), loop).result(10)

    try:
        yield Running(port, call)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def the_event(events: list[Event]) -> UploadDrained:
    """The one event. The client may have seen the end before the server's thread reports it."""
    until(lambda: bool(events), "no event")
    (event,) = events
    assert isinstance(event, UploadDrained)
    return event
