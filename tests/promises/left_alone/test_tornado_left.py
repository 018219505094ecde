"""What a client has sent before it left: Tornado runs it, and so it does with the middleware."""

# Tornado's handlers have methods whose annotations strict checkers call partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

import pytest
from tornado import iostream, web

from cleanclose.tornado import install
from tests.harness.leavers import leave_at
from tests.harness.tornado_serving import serving
from tests.harness.waiting import until

BEHIND: Final = {
    "nothing": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    "chunked": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\n\r\n",
}
"""Requests behind one whose client leaves."""


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
@pytest.mark.parametrize("body", BEHIND)
def test_a_request_that_came_before_its_client_left_is_run(
    caplog: pytest.LogCaptureFixture, body: str, wrapped: bool
) -> None:
    run: list[str] = []
    gate = asyncio.Event()

    class First(web.RequestHandler):
        async def get(self) -> None:
            run.append("first")
            await gate.wait()
            # With a request in its buffer Tornado finds out when it writes.
            with contextlib.suppress(iostream.StreamClosedError):
                while True:
                    self.write(bytes(65536))
                    await self.flush()

    class Second(web.RequestHandler):
        def get(self) -> None:
            run.append("second")

        def post(self) -> None:
            run.append(f"second {self.request.body.decode()}")

    app = web.Application([("/first", First), ("/", Second)])
    if wrapped:
        install(app, outlets=[])
    with serving(app) as running:
        leave_at(
            running.port,
            b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n",
            "rst",
            body=BEHIND[body],
            once=lambda: run == ["first"],
        )
        running.call(gate.set)
        until(lambda: running.pending() == 0, "the connection's task goes on")
    assert run == ["first", "second" if body == "nothing" else "second hello"]
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []
