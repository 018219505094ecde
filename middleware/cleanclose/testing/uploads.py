"""One request with a body, the manner of sending it, and what a client saw of its answer.

Bodies are generated while they are sent. They consist of complete little requests, so that a server
that takes a byte of a body for a request gives itself away with an extra answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from cleanclose.testing.wire import Ending, Response, Transcript

__all__ = [
    "SMUGGLED_PATH",
    "Abort",
    "Seen",
    "Upload",
    "body_digest",
    "body_pieces",
    "follow_up_of",
    "framed_pieces",
    "head_of",
    "pieces_until_abort",
]

Abort = Literal["reset", "close", "half_close", "stall"]
"""How a client stops in the middle of its body: with a RST, with close(), with a FIN while it goes
on reading, or by sending nothing more."""

SMUGGLED_PATH: Final = "/smuggled"
"""No client requests this path: a server that sees it took a body for a request."""

_PERIOD: Final = 64
_SMUGGLED: Final = f"GET {SMUGGLED_PATH} HTTP/1.1\r\nHost: smuggled\r\nX:".encode()
_PATTERN: Final = _SMUGGLED + b"x" * (_PERIOD - len(_SMUGGLED) - 4) + b"\r\n\r\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """One request with a body, and the manner of sending it."""

    port: int
    host: str = "127.0.0.1"
    method: str = "POST"
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    """A ``Content-Length`` or ``Transfer-Encoding`` given here replaces the true one."""
    body_size: int = 0
    raw_body: bytes | None = None
    """Bytes to send unchanged, framing included, instead of a generated body."""
    chunked: bool = False
    last_chunk: bool = True
    """Whether to send a chunked body's end."""
    connection_close: bool = False
    expect: Literal["patient", "impatient"] | None = None
    """``patient`` waits for the 100 or the answer before it sends the body, for at most
    ``expect_seconds``; ``impatient`` only sends the header."""
    expect_seconds: float = 2.0
    http_version: Literal["1.0", "1.1"] = "1.1"
    piece_size: int = 64 * 1024
    pause: float = 0.0
    """Seconds between two pieces: a slow uplink."""
    follow_up: Literal["after", "pipelined"] | None = None
    """When to send a second request, a GET, on the same connection: after the first one has its
    answer and has sent its body, or directly after the body without waiting."""
    follow_up_path: str = "/"
    abort_after: int | None = None
    """The number of body bytes after which ``abort_how`` happens."""
    abort_how: Abort = "reset"
    keep_sending: bool = False
    """Whether the ``reader`` goes on sending the body although it has its answer."""
    listen: float = 0.2
    """Seconds to watch for stray bytes on a connection that the server wants to keep open."""
    await_end: bool = True
    """Whether a raw client that has its answers stays until the server closes the connection,
    which takes some servers seconds. Otherwise it stays for ``listen`` at most."""
    receive_buffer: int | None = None
    """How many bytes a raw client's kernel accepts before the client reads (``SO_RCVBUF``), to
    imitate a slow downlink; None for the system's default."""
    timeout: float = 60.0
    """Seconds that the whole exchange may take: a guard against hanging."""

    @property
    def size_on_wire(self) -> int:
        """The bytes of the body without its framing."""
        return self.body_size if self.raw_body is None else len(self.raw_body)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """The result of one upload, as the client saw it."""

    transcript: Transcript
    raw: bytes
    """Every byte that came, in order."""
    bytes_sent: int
    """The bytes of the body that were handed to the kernel."""
    send_error: str | None = None
    """The first error of sending, by name; curl's exit code for curl."""
    receive_error: str | None = None
    reset_seen: bool = False
    closed_by: Ending | None = None
    """How the server ended the connection. ``timeout``: it should have ended it, but did not. None:
    it kept the connection open, as it may, or this client left first."""
    followed_up: bool = False
    """Whether the second request was sent."""
    seconds: float = 0.0

    @property
    def status(self) -> int | None:
        """The status of the complete answer to the first request, or None if it was lost."""
        response = self.response
        return None if response is None else response.status

    @property
    def response(self) -> Response | None:
        """The complete answer to the first request."""
        return self.transcript.first

    @property
    def second(self) -> Response | None:
        """The complete answer to the second request."""
        responses = self.transcript.responses
        return responses[1] if len(responses) > 1 and responses[1].complete else None

    def __str__(self) -> str:
        parts = [f"status {self.status}" if self.status else "no response"]
        if self.send_error:
            parts.append(f"sending failed ({self.send_error})")
        if self.receive_error:
            parts.append(f"receiving failed ({self.receive_error})")
        parts.append(f"{self.bytes_sent} bytes of body sent, {len(self.raw)} bytes received")
        parts.append(f"closed by {self.closed_by}, {self.seconds:.2f} s")
        parts += [fault.value for fault in self.transcript.faults]
        if self.transcript.stray:
            parts.append(f"stray {self.transcript.stray[:200]!r}")
        return ", ".join(parts)


def body_pieces(size: int, piece_size: int = 64 * 1024) -> Iterator[memoryview]:
    """The generated body of ``size`` bytes, in pieces that share one small buffer."""
    block = memoryview(_PATTERN * (piece_size // _PERIOD + 2))
    position = 0
    while position < size:
        length = min(piece_size, size - position)
        offset = position % _PERIOD
        yield block[offset : offset + length]
        position += length


def body_digest(size: int) -> str:
    """The SHA-256 of the generated body, in hexadecimal."""
    digest = hashlib.sha256()
    for piece in body_pieces(size, 1024 * 1024):
        digest.update(piece)
    return digest.hexdigest()


def head_of(upload: Upload) -> bytes:
    """The request's head, as it goes on the wire."""
    given = {name.lower() for name, _ in upload.headers}
    headers = list(upload.headers)
    if "host" not in given:
        headers.insert(0, ("Host", f"{upload.host}:{upload.port}"))
    if not given & {"content-length", "transfer-encoding"}:
        if upload.chunked:
            headers.append(("Transfer-Encoding", "chunked"))
        elif upload.size_on_wire or upload.method in ("POST", "PUT", "PATCH"):
            headers.append(("Content-Length", str(upload.size_on_wire)))
    if upload.connection_close:
        headers.append(("Connection", "close"))
    if upload.expect is not None:
        headers.append(("Expect", "100-continue"))
    lines = [f"{upload.method} {upload.path} HTTP/{upload.http_version}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def follow_up_of(upload: Upload) -> bytes:
    """The second request, as it goes on the wire."""
    return (
        f"GET {upload.follow_up_path} HTTP/1.1\r\nHost: {upload.host}:{upload.port}\r\n\r\n"
    ).encode("latin-1")


def framed_pieces(upload: Upload) -> Iterator[tuple[bytes | memoryview, int]]:
    """Make the body's pieces as they go on the wire, each with the number of body bytes in it."""
    if upload.raw_body is not None:
        for start in range(0, len(upload.raw_body), upload.piece_size):
            raw = upload.raw_body[start : start + upload.piece_size]
            yield raw, len(raw)
        return
    for piece in body_pieces(upload.body_size, upload.piece_size):
        if upload.chunked:
            yield b"".join((b"%x\r\n" % len(piece), piece, b"\r\n")), len(piece)
        else:
            yield piece, len(piece)
    if upload.chunked and upload.last_chunk:
        yield b"0\r\n\r\n", 0


def pieces_until_abort(upload: Upload) -> Iterator[tuple[bytes | memoryview, int]]:
    """Limit the pieces to ``abort_after`` bytes, and cut the last one there."""
    left = upload.abort_after
    for piece, counted in framed_pieces(upload):
        if left is not None and counted >= left:
            if left:
                yield piece[:left], left
            return
        yield piece, counted
        if left is not None:
            left -= counted
