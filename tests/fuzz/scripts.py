"""Conversations for the wire: up to four requests on one connection, in any framing, cut anywhere.

The bodies consist of requests, so that whoever loses the framing runs one of them. Each request
has a name, and those in the bodies have their script's.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tests.harness.apps import fuzzed, routes

__all__ = ["Ending", "Request", "Script", "script_of", "without_trailers"]

Ending = Literal["close", "half", "reset", "stay"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request of a script."""

    name: str
    method: str
    path: str
    expects: bool
    """Whether it asks for a ``100 Continue``."""
    complete: bool
    """Whether all of it is sent, and anybody knows where it ends, as of those before it."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """One conversation, as it goes on the wire."""

    name: str
    data: bytes
    """All of it, in the end cut off."""
    cuts: tuple[int, ...]
    """Where it is sent in pieces."""
    requests: tuple[Request, ...]
    good: frozenset[str]
    """The names of requests that anybody may run: those before and at the first bad framing."""
    is_plain: bool
    """Whether every server reads it in the same way."""
    ending: Ending
    """What the client does when all is sent: it closes, sends a FIN and reads, resets, or reads."""

    @property
    def complete(self) -> int:
        """How many requests are complete."""
        return sum(request.complete for request in self.requests)


_PATHS: Final = (
    *(fuzzed.READ, fuzzed.READ, fuzzed.READ, routes.REFUSE, routes.REFUSE, routes.REFUSE),
    *(fuzzed.SOME, fuzzed.STREAM, fuzzed.BEGIN, fuzzed.NOTHING, fuzzed.SAME, fuzzed.LARGE),
)
_RARE_PATHS: Final = (fuzzed.FAIL, fuzzed.BREAK)
_METHODS: Final = (*("POST",) * 12, "PUT", "PATCH", "DELETE", "GET", "OPTIONS", "HEAD")
_RARE_METHODS: Final = ("post", "CONNECT", "TRACE", "M-SEARCH")
_SIZES: Final = (0, 1, 40, 400, 400, 5000, 5000, 70_000)
_LARGEST: Final = 400_000

_ODD: Final = (
    ["Content-Length: 10", "Content-Length: 20"],
    ["Content-Length: 10", "Content-Length: 10"],
    ["Content-Length: 10", "Transfer-Encoding: chunked"],
    ["Transfer-Encoding: chunked", "Content-Length: 3"],
    ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    ["Transfer-Encoding: gzip, chunked"],
    ["Transfer-Encoding: xchunked"],
    ["Transfer-Encoding: chunked, identity"],
    ["Transfer-Encoding: identity"],
    ["Transfer-Encoding: identity", "Content-Length: 40"],
    ["Transfer-Encoding: CHUNKED"],
    ["Transfer-Encoding:"],
    ["Transfer-Encoding : chunked"],
    ["Transfer-Encoding:\tchunked"],
    ["Transfer-Encoding:\x0bchunked"],
    ["Transfer-Encoding:\r\n chunked"],
    ["X-Fold: a\r\n Transfer-Encoding: chunked", "Content-Length: 40"],
    ["Transfer_Encoding: chunked"],
    ["Transfer_Encoding: chunked", "Content-Length: 40"],
    ["Content_Length: 40"],
    ["Content_Length: 0", "Content-Length: 40"],
    ["Content-Length : 40"],
    [" Content-Length: 40"],
    ["Content-Length: -1"],
    ["Content-Length: +10"],
    ["Content-Length: 0x10"],
    ["Content-Length: 10, 10"],
    ["Content-Length: 10,"],
    ["Content-Length:"],
    ["Content-Length: 1_0"],
    ["Content-Length: 010"],
    ["Content-Length: 40 "],
    ["Content-Length: 99999999999999999999999"],
    ["Content-Length: 9223372036854775807"],
    ["Content-Length: 40\x00"],
    ["Content-Length: \xb9\xb2"],
)
_MORE: Final = (
    ("Connection: close",),
    ("Connection: keep-alive",),
    ("Connection: close, keep-alive",),
    ("Expect: 100-continue",),
    ("Expect: 100-Continue",),
    ("Expect: 100-continue", "Via: 1.1 Caddy"),
    ("Expect: 200-maybe",),
    ("X-Forwarded-For: 192.0.2.1",),
    ("X-Forwarded-For: 192.0.2.2", "X-Forwarded-Proto: https"),
    ("Forwarded: for=192.0.2.3",),
    ("Via: 1.0 proxy, 1.1 other",),
    ("Upgrade: websocket", "Connection: Upgrade"),
    ("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    ("Upgrade: something", "Connection: Upgrade"),
    ("X-Fold: one\r\n two",),
    ("X-Long: " + "a" * 3000,),
    ("X-Empty:",),
    ("TE: trailers", "Trailer: X-Trailer"),
    ("Content-Encoding: gzip",),
    ("Content-Type: application/x-www-form-urlencoded",),
)
_MORE_WEIGHTS: Final = (4, 4, 1, 4, 1, 1, 1, 4, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
_BAD_CHUNKS: Final = (
    *(b"\r\n", b"zz", b"0\r\n\r\n", b"\n", b"\x00", b"-1\r\n", b"0x5\r\n", b";\r\n"),
    *(b"ffffffffffffffff\r\n", b"7fffffffffffffff\r\n", b"5\n", b" 5\r\n", b"1_0\r\n"),
)
_PARTLY_KNOWN: Final = (b"X-Trailer: 1", b"X-A: 1", b"0\r\nContent-Length: 40")
"""Trailers: cheroot takes them for the next request, and llhttp rejects a length among them."""
_EXTENSIONS: Final = (b";a=b", b';a="b"', b";a", b" ;a", b";", b" ")
_ODD_EXTENSIONS: Final = _EXTENSIONS[3:]
"""Those that only some servers accept."""
_TRAILERS: Final = (
    *(b"", b"", b"", b"", b"", b"", b"X-Trailer: 1\r\n"),
    *(b"Content-Length: 40\r\n", b"X-A: 1\r\nX-B: 2\r\n"),
)
_TRAILED: Final = re.compile(rb"(?<=\n0\r\n)(?:%b)(?=\r\n)" % b"|".join(filter(None, _TRAILERS)))


def script_of(seed: str) -> Script:
    """The conversation that belongs to a seed, a word."""
    rng = random.Random(seed)
    data = b""
    requests: list[tuple[Request, int]] = []
    good: set[str] = set()
    places: list[int] = []
    is_good = True
    for number in range(rng.choice((1, 1, 2, 2, 3, 4))):
        request, text, framed = _request(rng, seed, number, places, len(data))
        data += text
        if is_good:
            good.add(request.name)
        is_good = is_good and framed
        requests.append((request, len(data) if is_good else -1))
    if rng.random() < 0.35:
        data = data[: _anywhere(rng, places, len(data))]
    cuts = sorted(_anywhere(rng, places, len(data)) for _ in range(rng.choice((0, 0, 1, 2, 5))))
    return Script(
        name=seed,
        data=data,
        cuts=tuple(cuts),
        requests=tuple(
            Request(
                name=each.name,
                method=each.method,
                path=each.path,
                expects=each.expects,
                complete=0 <= end <= len(data),
            )
            for each, end in requests
        ),
        good=frozenset(good),
        is_plain=is_good and not any(each in data for each in _PARTLY_KNOWN),
        ending=rng.choices(("close", "half", "reset", "stay"), (3, 10, 1, 3))[0],
    )


def without_trailers(data: bytes) -> bytes:
    """The same conversation with no trailers behind its chunked bodies."""
    return _TRAILED.sub(b"", data)


def _anywhere(rng: random.Random, places: Sequence[int], size: int) -> int:
    """Any place, and rather often one beside the end of a head, of a chunk or of a body."""
    if rng.random() < 0.5:
        return min(max(1, rng.choice(places) + rng.randrange(-4, 5)), size)
    return rng.randrange(1, size + 1)


def _request(
    rng: random.Random, script: str, number: int, places: list[int], begin: int
) -> tuple[Request, bytes, bool]:
    """One request; and whether what follows it is where everybody says."""
    name = f"{script}-{number}"
    path = rng.choice(_PATHS if rng.random() < 0.97 else _RARE_PATHS)
    method = rng.choice(_METHODS if rng.random() < 0.98 else _RARE_METHODS)
    size = rng.choice(_SIZES) if rng.random() < 0.97 else _LARGEST
    smuggled = b"GET /read?smuggled-%s HTTP/1.1\r\nHost: x\r\n\r\n" % script.encode()
    body = (smuggled * (size // len(smuggled) + 1))[:size]
    version = rng.choice(("1.1", "1.1", "1.1", "1.1", "1.0"))
    headers = ["Host: x"]
    kinds = ("length", "chunked", "none", "odd")
    framing = rng.choices(kinds, (5, 4 if version == "1.1" else 0, 1, 2))[0]
    good = method not in ("CONNECT", "HEAD", "TRACE") or framing == "none"
    ends: list[int] = []
    match framing:
        case "length":
            headers.append(f"Content-Length: {size}")
        case "chunked":
            headers.append("Transfer-Encoding: chunked")
            body, is_good = _chunked(rng, body, ends)
            good = good and is_good
        case "none":
            body = b""
            if method not in ("HEAD", "CONNECT") and rng.random() < 0.8:
                method = "GET"
        case _:
            good = False
            headers += rng.choice(_ODD)
            body = rng.choice((body, body, _chunked(rng, body, ends)[0]))
    while rng.random() < 0.35:
        headers += rng.choices(_MORE, _MORE_WEIGHTS)[0]
    if any(each.startswith("Upgrade") for each in headers):
        # What follows is another protocol's, for some.
        good = False
    rng.shuffle(headers)
    target = f"{path}?{name}"
    if rng.random() < 0.04:
        target = f"http://example.org{target}"
    line, end = f"{method} {target} HTTP/{version}", "\r\n"
    if rng.random() < 0.02:
        good, end = False, "\n"
    if rng.random() < 0.02:
        good = False
        line = rng.choice(
            (f"{method} {target}", f"{method}  {target} HTTP/{version}", f"{line} ", f"{line}.1")
        )
    first = "\r\n" if number and rng.random() < 0.03 else ""
    head = (first + end.join([line, *headers, "", ""])).encode("latin-1")
    places += [begin + len(head) + place for place in (0, *ends[:20], len(body))]
    expects = any(each.lower() == "expect: 100-continue" for each in headers)
    request = Request(name=name, method=method.upper(), path=path, expects=expects, complete=False)
    return request, head + body, good


def _chunked(rng: random.Random, body: bytes, ends: list[int]) -> tuple[bytes, bool]:
    """The body in chunks; and whether all of them are good ones."""
    out = b""
    begin = 0
    good = True
    while begin < len(body):
        left = len(body) - begin
        size = min(left, rng.choice((1, 33, 33, 4096, 65536)) if left < 2000 else 65536)
        extension = rng.choice(_EXTENSIONS) if rng.random() < 0.04 else b""
        good = good and extension not in _ODD_EXTENSIONS
        digits = rng.choice((b"%x", b"%x", b"%x", b"%X", b"%08x")) % size
        out += b"%s%s\r\n%s\r\n" % (digits, extension, body[begin : begin + size])
        begin += size
        ends.append(len(out))
    trailer = rng.choice(_TRAILERS)
    end = out + b"0\r\n" + trailer + b"\r\n"
    if rng.random() >= 0.1:
        return end, good
    # A bad chunk somewhere.
    place = rng.choice(ends) if ends and rng.random() < 0.7 else rng.randrange(len(end))
    return end[:place] + rng.choice(_BAD_CHUNKS) + end[place:], False
