"""Clients that no server wants: ``python -m benchmarks.lingering_storm PORT SECONDS``.

Uploads that drip, that stall behind their head or behind their first bytes, that never end, and
that are reset at random moments, all refused. Whoever is closed comes back. It prints how many
requests it has sent. A process of its own: whoever measures beside it must not wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
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
        await asyncio.gather(*clients, *(self._reset() for _ in range(RESETS)))

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


if __name__ == "__main__":
    storm = Storm(int(sys.argv[1]), float(sys.argv[2]))
    asyncio.run(storm.run())
    print(storm.sent)
