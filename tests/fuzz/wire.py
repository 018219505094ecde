"""The same bytes to a server bare and wrapped: what is run, and what is answered.

A conversation is up to four requests on one connection: any framing, good ones and bad ones, cut
off anywhere, in any pieces. Their bodies consist of requests. Nothing may be run that the bare
server does not run, but for requests that the client has really sent: behind an early response the
middleware keeps a connection that a bare server may close. And the n-th answer is the n-th
request's.
"""

from __future__ import annotations

import contextlib
import functools
import random
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http.client import HTTPException
from typing import TYPE_CHECKING, Final

from cleanclose.testing import WireReader
from tests.harness.apps import fuzzed, routes
from tests.harness.asking import get_json
from tests.harness.processes import ServerProcess
from tests.harness.stacks import Stack

if TYPE_CHECKING:
    from cleanclose.core import SettingsOptions

__all__ = ["Script", "fuzz", "fuzzed_stack", "script_of"]

_AT_ONCE: Final = 6
_SMUGGLED: Final = b"GET /read?smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
_BATCH: Final = 50
_LIMIT: Final = 2.0
"""Seconds for one conversation, in which a server may wait for what never comes."""
_QUIET: Final = 0.3
_ANSWERS: Final = 20.0
"""Seconds after which a server that answers nobody counts as dead."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """One conversation, as it goes on the wire."""

    name: str
    data: bytes
    """All of it, in the end cut off."""
    cuts: tuple[int, ...]
    """Where it is sent in pieces."""
    good: frozenset[str]
    """The names of requests that anybody may run: those before and at the first bad framing."""
    ending: str
    """``close``, ``half`` (a FIN, then reading) or ``stay``."""


def script_of(seed: str) -> Script:
    """The conversation that belongs to a seed."""
    rng = random.Random(seed)
    data = b""
    good: set[str] = set()
    is_good = True
    for number in range(rng.choice((1, 1, 2, 3, 4))):
        name = f"{seed}-{number}".replace(" ", "-")
        request, framed = _request(rng, name)
        data += request
        if is_good:
            good.add(name)
        is_good = is_good and framed
    if rng.random() < 0.35:
        data = data[: rng.randrange(1, len(data) + 1)]
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 0, 1, 2))))
    return Script(
        name=seed.replace(" ", "-"),
        data=data,
        cuts=tuple(cuts),
        good=frozenset(good),
        ending=rng.choice(("close", "half", "half", "stay")),
    )


def _request(rng: random.Random, name: str) -> tuple[bytes, bool]:
    """One request; and whether what follows it is where everybody says."""
    path = rng.choice((fuzzed.READ, routes.REFUSE, routes.REFUSE, fuzzed.SOME))
    size = rng.choice((0, 1, 40, 400, 5000, 70_000, 400_000))
    body = (_SMUGGLED * (size // len(_SMUGGLED) + 1))[:size]
    version = rng.choice(("1.1", "1.1", "1.1", "1.0"))
    headers = [f"Host: {name[:10]}"]
    framing = rng.choices(
        ("length", "chunked", "none", "odd"), (5, 4 if version == "1.1" else 0, 1, 2)
    )[0]
    good = True
    match framing:
        case "length":
            headers.append(f"Content-Length: {size}")
        case "chunked":
            headers.append("Transfer-Encoding: chunked")
            body = _chunked(rng, body)
        case "none":
            body = b""
        case _:
            good = False
            headers += rng.choice(_ODD)
            body = rng.choice((body, _chunked(rng, body)))
    if rng.random() < 0.2:
        headers.append(f"Connection: {rng.choice(('close', 'keep-alive'))}")
    if rng.random() < 0.1:
        headers.append("Expect: 100-continue")
    if rng.random() < 0.2:
        headers.append(f"X-Forwarded-For: 192.0.2.{rng.randrange(9)}")
    method = "POST" if framing != "none" else "GET"
    head = "\r\n".join([f"{method} {path}?{name} HTTP/{version}", *headers]) + "\r\n\r\n"
    if good and framing == "chunked" and rng.random() < 0.1:
        # A bad chunk somewhere.
        place = rng.randrange(len(body))
        body = body[:place] + rng.choice((b"\r\n", b"zz", b"0\r\n\r\n")) + body[place:]
        good = False
    return head.encode() + body, good


_ODD: Final = (
    ["Content-Length: 10", "Content-Length: 20"],
    ["Content-Length: 10", "Transfer-Encoding: chunked"],
    ["Transfer-Encoding: chunked", "Content-Length: 3"],
    ["Transfer-Encoding: gzip, chunked"],
    ["Transfer-Encoding: xchunked"],
    ["Transfer-Encoding: chunked, identity"],
    ["Transfer-Encoding : chunked"],
    ["Transfer-Encoding:\tchunked"],
    ["Content-Length: -1"],
    ["Content-Length: +10"],
    ["Content-Length: 0x10"],
    ["Content-Length: 10, 10"],
    ["Content-Length:"],
    ["Content-Length: 1_0"],
)


def _chunked(rng: random.Random, body: bytes) -> bytes:
    out = b""
    while body:
        size = min(len(body), rng.choice((1, 33, 4096, 65536)) if len(body) < 9000 else 65536)
        extension = b";a=b" if rng.random() < 0.1 else b""
        out += b"%x%s\r\n%s\r\n" % (size, extension, body[:size])
        body = body[size:]
    trailer = b"X-Trailer: 1\r\n" if rng.random() < 0.1 else b""
    return out + b"0\r\n" + trailer + b"\r\n"


def fuzzed_stack(row: Stack) -> Stack:
    """A server with the application that says what it was called for."""
    command = tuple(
        argument.replace("raw_asgi:app", "fuzzed:app")
        .replace("raw_wsgi:app", "fuzzed:wsgi_app")
        .replace(".tornado_app", ".fuzzed")
        for argument in row.command
    )
    return replace(row, command=command, env={**row.env, "TEST_APP": "fuzzed_wsgi"})


def _converse(port: int, script: Script) -> list[tuple[int, bytes]]:
    """Say it; the complete answers, each with its body."""
    wire = WireReader()
    for _ in range(8):
        wire.expect("POST")
    deadline = time.monotonic() + _LIMIT
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(_LIMIT)
        with contextlib.suppress(OSError):
            before = 0
            for cut in (*script.cuts, len(script.data)):
                sock.sendall(script.data[before:cut])
                before = cut
            if script.ending == "half":
                sock.shutdown(socket.SHUT_WR)
        if script.ending != "close":
            sock.settimeout(_QUIET)
            while time.monotonic() < deadline and (data := sock.recv(1 << 20)):
                wire.feed(data)
    wire.end("timeout")
    return [(each.status, each.body) for each in wire.responses]


def _executed(server: ServerProcess) -> list[str] | None:
    """What it has run, when it has stopped running anything more; None if it serves no more."""
    found: list[str] = []
    deadline = time.monotonic() + _ANSWERS
    quiet = 0
    while quiet < 2:
        try:
            more: list[str] = get_json(server.port, fuzzed.EXECUTED)
        except (OSError, HTTPException):
            if time.monotonic() > deadline:
                return None
            time.sleep(0.1)
            continue
        found += more
        quiet = 0 if more else quiet + 1
        time.sleep(0.1)
    return found


def fuzz(stack: Stack, *, conversations: int, seed: int) -> tuple[int, list[str]]:
    """So many conversations with one server, bare and wrapped.

    Returns:
        How many requests the wrapped one has run, and what is wrong.
    """
    wrong: list[str] = []
    run = bare_deaths = wrapped_deaths = 0
    settings: SettingsOptions = {"idle_seconds": 0.5, "hold_seconds": 0.1, "max_seconds": 1.0}
    with (
        stack.process(wrapped=False) as bare,
        stack.process(wrapped=True, settings=settings) as wrapped,
        ThreadPoolExecutor(_AT_ONCE if stack.concurrent else 2) as pool,
    ):
        for first in range(0, conversations, _BATCH):
            scripts = [
                script_of(f"{seed} {number}")
                for number in range(first, min(first + _BATCH, conversations))
            ]
            bare_answers, by_bare = _batch(bare, scripts, pool)
            answers, by_wrapped = _batch(wrapped, scripts, pool)
            bare_deaths += by_bare is None
            wrapped_deaths += by_wrapped is None
            wrong += [
                f"{script.name}: {said}"
                for script, given, before in zip(scripts, answers, bare_answers, strict=True)
                # waitress drops a request without a body that expects a 100, for one.
                if (said := _misplaced(script, given)) and not _misplaced(script, before)
            ]
            if by_bare is None or by_wrapped is None:
                # What has been run is gone with its process.
                continue
            run += len(by_wrapped)
            allowed = {*by_bare, *(name for script in scripts for name in script.good)}
            wrong += [f"run, and not bare: {name}" for name in by_wrapped if name not in allowed]
            wrong += _smuggled(by_bare, by_wrapped)
    if wrapped_deaths > bare_deaths:
        wrong.append(f"it has died {wrapped_deaths} times, bare {bare_deaths} times")
    return run, wrong


def _batch(
    server: ServerProcess, scripts: Sequence[Script], pool: ThreadPoolExecutor
) -> tuple[list[list[tuple[int, bytes]]], list[str] | None]:
    answers = list(pool.map(functools.partial(_converse, server.port), scripts))
    executed = _executed(server)
    if executed is None:
        print(f"{server.name} serves no more: {scripts[0].name} or one behind it", flush=True)
        server.stop()
        server.start()
    return answers, executed


def _smuggled(by_bare: list[str], by_wrapped: list[str]) -> list[str]:
    bare, wrapped = by_bare.count("smuggled"), by_wrapped.count("smuggled")
    return [f"parts of bodies run: {bare} bare, {wrapped} wrapped"] if wrapped > bare else []


def _misplaced(script: Script, answers: list[tuple[int, bytes]]) -> str | None:
    """Whether the n-th answer of the application is not the n-th request's."""
    for number, (status, body) in enumerate(answers):
        said = body.decode("latin-1")
        if not said.startswith(script.name + "-"):
            if said == "smuggled" and f"{script.name}-{number}" not in script.good:
                # Bare servers do it too: counted above.
                return None
            # The server's own: it ends the connection.
            return None if status >= 400 else f"answer {number}: {status} {said[:80]!r}"
        if said != f"{script.name}-{number}":
            return f"answer {number} is {said[:80]!r}"
    return None
