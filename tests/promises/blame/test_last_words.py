"""What asyncio's and uvloop's transports say of a lost connection at the end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import pytest
import uvloop

from cleanclose.asgi._websocket import WebSocketWatch

LEAVES_A_WORD: Final = """
class Protocol:
    async def send(self, message):
        pass

    def say_goodbye(self, transport):
        try:
            transport.write(b"goodbye")
        except RuntimeError as error:
            return error
"""


@pytest.mark.parametrize("module", ["gunicorn.asgi.websocket", "an_application"])
def test_a_servers_last_word_to_a_lost_connection_is_part_of_the_departure(module: str) -> None:
    names: dict[str, Any] = {"__name__": module}
    exec(LEAVES_A_WORD, names)
    protocol = names["Protocol"]()
    protocol.send.__func__.__module__ = "gunicorn.asgi.websocket"
    watch = WebSocketWatch()
    watch.server_receive = watch.send_to = protocol.send

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def aftermath() -> bool:
        server = await asyncio.start_server(accepted, "127.0.0.1", 0)
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            error = protocol.say_goodbye(writer.transport)
        return watch.is_aftermath(error)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        is_servers = module != "an_application"
        assert runner.run(aftermath()) is is_servers
