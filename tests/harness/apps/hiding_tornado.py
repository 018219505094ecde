"""A Tornado app, in a process in which one attribute of Tornado's is hidden from us.

``python -m tests.harness.apps.hiding_tornado 8000``; with ``callable`` behind that it is a callable
which gets each request whole.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from tornado import httpserver, httputil, web

from tests.harness.hiding import hide_one

hide_one()

from cleanclose.tornado import install  # noqa: E402 - what it keeps must be the hidden


def answer(handler: Any, body: str) -> None:
    """Finish with a body."""
    handler.finish(body)


@web.stream_request_body
class Refuse(web.RequestHandler):
    """Answers from the headers alone."""

    def prepare(self) -> None:
        self.set_status(413)
        answer(self, "413\n")

    def data_received(self, chunk: bytes) -> None:
        """Nothing is left for a handler that has answered."""


class Read(web.RequestHandler):
    """Gets everything."""

    def get(self) -> None:
        answer(self, "ok\n")

    def post(self) -> None:
        answer(self, f"{len(self.request.body)}\n")


def called(request: httputil.HTTPServerRequest) -> None:
    """What gets a request whole."""
    connection: Any = request.connection
    body = b"ok\n" if request.method == "GET" else b"%d\n" % len(request.body)
    headers = httputil.HTTPHeaders({"Content-Length": str(len(body))})
    connection.write_headers(httputil.ResponseStartLine("HTTP/1.1", 200, "OK"), headers, body)
    connection.finish()


async def main(port: int, *, whole: bool) -> None:
    """Serve until the process ends."""
    app: Any = called if whole else web.Application([("/refuse", Refuse), (".*", Read)])
    if os.environ.get("CLEANCLOSE") == "1":
        app = install(app, stop_work=not whole)
    httpserver.HTTPServer(app).listen(port, "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), whole="callable" in sys.argv[2:]))
