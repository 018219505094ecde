"""Clients of every kind, in an order that a seed decides, and what each of them must have seen.

What a client does is certain or not. It is, if the server's kernel says that all it sent was read
before it left: then its departure must be counted. A client that leaves at a random point may have
been too early to be known to anybody.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from cleanclose.testing import Upload, body_digest, reader, strict
from tests.harness.apps import routes
from tests.harness.leavers import How, connected, leave, request, until_read
from tests.harness.scenarios import KIB, MIB

__all__ = ["Traffic"]

_BYSTANDER_PAUSE: Final = 0.05
_ENDINGS: Final[tuple[How, ...]] = ("rst", "fin")


class Traffic:
    """Clients of one server, for a time.

    Args:
        port: The server's port.
        seed: What decides who comes, with what, and when they leave.
        clients: How many come at once.
        concurrent: Whether the server serves one while it waits for another: otherwise nobody is
            slow on purpose, because everybody would wait.
        flood: How many connections are left open at once by a flood.
    """

    def __init__(self, port: int, *, seed: str, clients: int, concurrent: bool, flood: int) -> None:
        self.port = port
        self.done: Counter[str] = Counter()
        """What was done, by name; ``… lost`` where no answer came."""
        self.wrong: list[str] = []
        """What no client may ever see."""
        self.latencies: list[float] = []
        """A bystander's, in seconds."""
        self.calm = True
        """Whether nobody ends or stops the server's processes meanwhile: then what is certain is
        counted as such."""
        self._seed = seed
        self._clients = clients
        self._concurrent = concurrent
        self._flood_size = flood
        self._lock = threading.Lock()

    def run(self, seconds: float) -> None:
        """Let them all come, and wait until the last one has gone."""
        until = time.monotonic() + seconds
        bystander = threading.Thread(target=self._bystander, args=(until,))
        threads = [
            threading.Thread(target=self._client, args=(number, until))
            for number in range(self._clients)
        ]
        for thread in (bystander, *threads):
            thread.start()
        for thread in (bystander, *threads):
            thread.join()

    def _count(self, what: str, more: int = 1) -> None:
        with self._lock:
            self.done[what] += more

    def _client(self, number: int, until: float) -> None:
        rng = random.Random(f"{self._seed} {number}")
        actions: list[tuple[Callable[[random.Random], None], int]] = [
            (self._refused, 6),
            (self._accepted, 3),
            (self._pipelined, 2),
            (self._cut, 4),
            (self._anywhere, 4),
            (self._half_a_head, 1),
        ]
        if self._concurrent:
            actions += [
                (self._slow, 1),
                (self._slowly_refused, 1),
                (self._stalled, 2),
                (self._left_the_handler, 1),
                (self._flood, 1),
            ]
        names, weights = zip(*actions, strict=True)
        while time.monotonic() < until:
            action: Callable[[random.Random], None] = rng.choices(names, weights)[0]
            # In trouble a server may be gone for a moment.
            try:
                action(rng)
            except (OSError, AssertionError):
                self._count("unreachable")

    def _bystander(self, until: float) -> None:
        while time.monotonic() < until:
            began = time.monotonic()
            with contextlib.suppress(OSError):
                seen = strict(self._upload(method="GET", path=routes.INDEX, listen=0.0))
                self._judge("bystander", seen.status, 200, seen.transcript.clean)
                with self._lock:
                    self.latencies.append(time.monotonic() - began)
            time.sleep(_BYSTANDER_PAUSE)

    def _upload(self, **more: object) -> Upload:
        options: dict[str, object] = {"port": self.port, "listen": 0.0, "await_end": False, **more}
        return Upload(**options)  # type: ignore[arg-type]

    def _judge(self, what: str, status: int | None, wanted: int, clean: bool) -> None:
        """An answer may be lost, bare above all; another one, or a part of one, may not come."""
        if status is None:
            self._count(f"{what} lost")
        elif status == wanted and clean:
            self._count(what)
        elif self.calm:
            self.wrong.append(f"{what}: {status}, {'clean' if clean else 'not clean'}")

    def _refused(self, rng: random.Random) -> None:
        client = rng.choice((strict, reader))
        seen = client(
            self._upload(
                path=rng.choice((routes.REFUSE, routes.REFUSE_LARGE)),
                body_size=rng.choice((MIB, 3 * MIB, 8 * MIB)),
                connection_close=rng.random() < 0.3,
            )
        )
        wanted = 401 if seen.status == 401 else 413
        self._judge(f"refused {client.__name__}", seen.status, wanted, seen.status is not None)

    def _slowly_refused(self, rng: random.Random) -> None:
        seen = strict(
            self._upload(path=routes.REFUSE, body_size=MIB, pause=rng.uniform(0.01, 0.08))
        )
        self._judge("refused slow", seen.status, 413, seen.status is not None)

    def _accepted(self, rng: random.Random) -> None:
        self._accept("accepted", rng.choice((0, 1, 1000, 64 * KIB, MIB)), 0.0)

    def _slow(self, rng: random.Random) -> None:
        self._accept("accepted slow", MIB, rng.uniform(0.01, 0.06))

    def _accept(self, what: str, size: int, pause: float) -> None:
        seen = strict(self._upload(path=routes.ACCEPT, body_size=size, pause=pause))
        self._judge(what, seen.status, 200, seen.transcript.clean)
        if seen.response is not None and seen.status == 200:
            answer = json.loads(seen.response.body)
            if answer != {"bytes": size, "sha256": body_digest(size)}:
                self.wrong.append(f"{what}: {size} bytes became {answer}")

    def _pipelined(self, rng: random.Random) -> None:
        size = rng.choice((1, 1000, 100 * KIB))
        seen = strict(self._upload(path=routes.INDEX, body_size=size, follow_up="pipelined"))
        self._judge("pipelined", seen.status, 200, seen.status is not None)
        if seen.second is not None and seen.second.status != 200:
            self.wrong.append(f"pipelined: {seen}")

    def _cut(self, rng: random.Random) -> None:
        """A part of a body, read by the server, and gone: certain."""
        certain = self.calm
        with connected(self.port) as sock:
            sock.sendall(request("POST", routes.ACCEPT, length=1000) + b"some ")
            until_read(sock)
            how = rng.choice(_ENDINGS)
            leave(sock, how)
        self._count(f"cut {how}" if certain and self.calm else "cut in trouble")

    def _left_the_handler(self, rng: random.Random) -> None:
        with connected(self.port) as sock:
            sock.sendall(request("GET", routes.SLEEP))
            until_read(sock)
            leave(sock, rng.choice(_ENDINGS))
        self._count("left the handler")

    def _anywhere(self, rng: random.Random) -> None:
        path = rng.choice((routes.REFUSE, routes.REFUSE_LARGE, routes.ACCEPT, routes.ECHO))
        data = request("POST", path, length=MIB) + bytes(rng.choice((0, 10, 1000, 300 * KIB)))
        with connected(self.port) as sock:
            sock.settimeout(0.5)
            with contextlib.suppress(OSError):
                sock.sendall(data[: rng.randint(1, len(data))])
            with contextlib.suppress(OSError):
                if rng.random() < 0.5:
                    sock.recv(rng.choice((1, 100, 65536)))
            with contextlib.suppress(AssertionError):
                leave(sock, rng.choice(_ENDINGS))
        self._count("left anywhere")

    def _half_a_head(self, rng: random.Random) -> None:
        head = request("POST", routes.REFUSE, length=MIB)
        with connected(self.port) as sock, contextlib.suppress(OSError):
            sock.sendall(head[: rng.randrange(len(head))])
            leave(sock, rng.choice(_ENDINGS))
        self._count("half a head")

    def _stalled(self, rng: random.Random) -> None:
        """Has its answer, and says nothing for a while."""
        with connected(self.port) as sock:
            sock.sendall(request("POST", routes.REFUSE, length=MIB) + bytes(1000))
            sock.settimeout(rng.uniform(0.2, 2.0))
            with contextlib.suppress(OSError):
                while sock.recv(65536):
                    pass
        self._count("stalled")

    def _flood(self, rng: random.Random) -> None:
        """More stalled uploads than may linger."""
        with contextlib.ExitStack() as stack:
            sockets: list[socket.socket] = []
            for _ in range(self._flood_size):
                sock = stack.enter_context(connected(self.port))
                sock.sendall(request("POST", routes.REFUSE, length=MIB) + bytes(100))
                sockets.append(sock)
            for sock in sockets:
                sock.settimeout(rng.uniform(0.05, 0.1))
                with contextlib.suppress(OSError):
                    sock.recv(100)
        self._count("flooded", self._flood_size)
