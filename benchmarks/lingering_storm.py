"""Clients that no server wants: ``python -m benchmarks.lingering_storm PORT MODE SECONDS``.

All of them upload, and are refused. In a ``storm`` they drip, stall behind their head or behind
their first bytes, never end, or reset at random moments, and whoever is closed comes back. In a
``crowd`` as many linger, dripping, stalled and endless; nobody comes later, and nobody resets.

It prints a line when it is time to measure: after a second of a storm; when all of a crowd have
been answered. In the end it prints how many requests it has sent. It is a process of its own:
whoever measures beside it must not wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

__all__: list[str] = []

MIB: Final = 1024 * 1024
DRIPPING: Final = 500
STALLED_BEHIND_HEAD: Final = 200
STALLED: Final = 300
ENDLESS: Final = 10
RESETS: Final = 1000

_HEAD: Final = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (64 * MIB)
_CHUNKED: Final = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
_PIECE: Final = 64 * 1024
_CHUNK: Final = b"%x\r\n%b\r\n" % (_PIECE, bytes(_PIECE))
# linger on, for no time: close() sends a reset.
_RESET: Final = struct.pack("ii", 1, 0)


class Storm:
    """The clients, for so many seconds.

    Args:
        port: The server's.
        seconds: For how long.
    """

    def __init__(self, port: int, seconds: float) -> None:
        self._port = port
        self._seconds = seconds
        self._over = time.monotonic() + seconds
        self.sent = 0

    async def run(self) -> None:
        """Let them loose, and wait for the end."""
        kinds = (
            (DRIPPING, self._drip),
            (STALLED_BEHIND_HEAD, self._stall_behind_head),
            (STALLED, self._stall),
            (ENDLESS, self._never_end),
        )
        clients = [self._again(client) for count, client in kinds for _ in range(count)]
        await asyncio.gather(*clients, *(self._reset() for _ in range(RESETS)), self._say())

    async def _say(self) -> None:
        await asyncio.sleep(1)
        print("now", flush=True)

    @property
    def _left(self) -> float:
        return self._over - time.monotonic()

    async def _again(self, client: Callable[[socket.socket], Awaitable[None]]) -> None:
        # Not all in one moment.
        await asyncio.sleep(random.uniform(0, self._seconds / 3))
        while self._left > 0:
            with contextlib.suppress(OSError, TimeoutError), socket.socket() as sock:
                await self._connect(sock)
                async with asyncio.timeout(self._left):
                    await client(sock)
            await asyncio.sleep(0.1)

    async def _connect(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", self._port))

    async def _send(self, sock: socket.socket, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(sock, data)

    async def _until_closed(self, sock: socket.socket) -> None:
        while await asyncio.get_running_loop().sock_recv(sock, 4096):
            pass

    async def _drip(self, sock: socket.socket) -> None:
        self.sent += 1
        await self._send(sock, _HEAD)
        while True:
            await asyncio.sleep(1)
            await self._send(sock, b"x")

    async def _stall_behind_head(self, sock: socket.socket) -> None:
        self.sent += 1
        await self._send(sock, _HEAD)
        await self._until_closed(sock)
        # The sending side is shut down at once; the connection goes on for as long as it may.
        await asyncio.sleep(6)

    async def _stall(self, sock: socket.socket) -> None:
        self.sent += 1
        await self._send(sock, _HEAD + bytes(1000))
        await self._until_closed(sock)
        await asyncio.sleep(6)

    async def _never_end(self, sock: socket.socket) -> None:
        self.sent += 1
        await self._send(sock, _CHUNKED)
        while True:
            # 1 MiB/s each.
            await self._send(sock, _CHUNK)
            await asyncio.sleep(_PIECE / MIB)

    async def _reset(self) -> None:
        await asyncio.sleep(random.uniform(0, self._seconds))
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            await self._connect(sock)
            self.sent += 1
            await self._send(sock, _HEAD + bytes(random.randrange(100_000)))
            await asyncio.sleep(random.uniform(0, 0.2))


class Crowd:
    """A thousand clients that stay, for so many seconds from the last one's answer on.

    Args:
        port: The server's.
        seconds: For how long.
    """

    def __init__(self, port: int, seconds: float) -> None:
        self._port = port
        self._seconds = seconds
        self._over = asyncio.Event()
        self.sent = DRIPPING + STALLED_BEHIND_HEAD + STALLED + ENDLESS
        self._here = asyncio.Barrier(self.sent + 1)

    async def run(self) -> None:
        """Let all of them come, and wait for the end."""
        kinds: tuple[tuple[int, bytes, bytes, float], ...] = (
            (DRIPPING, _HEAD, b"x", 1.0),
            (STALLED_BEHIND_HEAD, _HEAD, b"", math.inf),
            (STALLED, _HEAD + bytes(1000), b"", math.inf),
            # 1 MiB/s each.
            (ENDLESS, _CHUNKED, _CHUNK, _PIECE / MIB),
        )
        async with asyncio.TaskGroup() as tasks:
            for count, head, piece, pause in kinds:
                for _ in range(count):
                    tasks.create_task(self._stay(head, piece, pause))
            await self._here.wait()
            print("now", flush=True)
            await asyncio.sleep(self._seconds)
            self._over.set()

    async def _stay(self, head: bytes, piece: bytes, pause: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(head)
        await reader.read(1)
        await self._here.wait()
        with contextlib.suppress(ConnectionError):
            while not await self._is_over_after(pause):
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def _is_over_after(self, pause: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), None if math.isinf(pause) else pause)
        return self._over.is_set()


if __name__ == "__main__":
    kind = Storm if sys.argv[2] == "storm" else Crowd
    clients: Storm | Crowd = kind(int(sys.argv[1]), float(sys.argv[3]))
    asyncio.run(clients.run())
    print(clients.sent)
