"""Clients that behave as the clients in the field do, and report what they saw.

Whether an early response arrives depends on the client as much as on the server. These four
stand for the kinds that there are:

- :func:`strict` writes its whole request before it reads, and gives up at the first send error.
- :func:`reader` reads while it sends, and stops sending when it has its answer.
- :func:`http_client` is :mod:`http.client` as ordinary code uses it.
- :func:`curl` is the program, where it is installed.

Each takes one :class:`Upload` and returns one :class:`Outcome`. A client never raises for what
the server does; only a connection that cannot be opened is the caller's error. Bodies are
generated while they are sent. They consist of complete little requests, so that a server which
takes a byte of a body for a request betrays itself by an answer too many.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import io
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, cast

from cleanclose.doctor.wire import Ending, Response, Transcript, WireReader

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "SMUGGLED_PATH",
    "Abort",
    "Outcome",
    "Upload",
    "body_digest",
    "body_pieces",
    "curl",
    "http_client",
    "reader",
    "strict",
]

Abort = Literal["reset", "close", "half_close", "stall"]
"""What a client does in the middle of its body: RST, close(), a FIN while it goes on reading,
or nothing more at all."""

SMUGGLED_PATH: Final = "/smuggled"
"""No client asks for this path: a server that sees it has read a body as a request."""

_PERIOD: Final = 64
_SMUGGLED: Final = f"GET {SMUGGLED_PATH} HTTP/1.1\r\nHost: smuggled\r\nX:".encode()
_PATTERN: Final = _SMUGGLED + b"x" * (_PERIOD - len(_SMUGGLED) - 4) + b"\r\n\r\n"
_LOST: Final = (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)


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
    """Sent as it is, framing included, instead of a generated body."""
    chunked: bool = False
    last_chunk: bool = True
    """Whether a chunked body gets its end."""
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
    """A second request, a GET, on the same connection: when the first one has its answer and
    its body is sent, or directly behind the body without waiting."""
    follow_up_path: str = "/"
    abort_after: int | None = None
    """The number of body bytes after which ``abort_how`` happens."""
    abort_how: Abort = "reset"
    keep_sending: bool = False
    """The ``reader`` goes on with the body although it has its answer."""
    listen: float = 0.2
    """How long to watch a connection for stray bytes which the server wants to keep open."""
    await_end: bool = True
    """Whether a raw client that has its answers stays until the server has closed the connection:
    some take seconds for that. Without it, for ``listen`` at most."""
    timeout: float = 60.0
    """A guard against hanging, for the whole exchange."""

    @property
    def size_on_wire(self) -> int:
        """The bytes of the body without its framing."""
        return self.body_size if self.raw_body is None else len(self.raw_body)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one client saw."""

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
    """How the server ended the connection. ``timeout``: it should have, and did not; None: it
    kept the connection open, as it may, or this client left first."""
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


def strict(upload: Upload) -> Outcome:
    """Write everything, then read; at the first send error give up without reading."""
    return _Conversation(upload, reads_while_sending=False).run()


def reader(upload: Upload) -> Outcome:
    """Read while sending, and stop sending when the answer is there."""
    return _Conversation(upload, reads_while_sending=True).run()


def _head(upload: Upload) -> bytes:
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


def _follow_up(upload: Upload) -> bytes:
    return (
        f"GET {upload.follow_up_path} HTTP/1.1\r\nHost: {upload.host}:{upload.port}\r\n\r\n"
    ).encode("latin-1")


def _framed_pieces(upload: Upload) -> Iterator[tuple[bytes | memoryview, int]]:
    """What goes on the wire for the body: each piece, and how much of the body it holds."""
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


def _until_abort(upload: Upload) -> Iterator[tuple[bytes | memoryview, int]]:
    """The pieces up to ``abort_after``, the last of them cut there."""
    left = upload.abort_after
    for piece, counted in _framed_pieces(upload):
        if left is not None and counted >= left:
            if left:
                yield piece[:left], left
            return
        yield piece, counted
        if left is not None:
            left -= counted


class _Conversation:
    """One connection of a raw client, driven by poll."""

    def __init__(self, upload: Upload, *, reads_while_sending: bool) -> None:
        self.upload = upload
        self.reads_while_sending = reads_while_sending
        self.wire = WireReader()
        self.raw = bytearray()
        self.bytes_sent = 0
        self.send_error: str | None = None
        self.receive_error: str | None = None
        self.reset_seen = False
        self.closed_by: Ending | None = None
        self.followed_up = False
        self.gave_up = False
        self.left_first = False
        self.started = time.monotonic()
        self.deadline = self.started + upload.timeout

    def run(self) -> Outcome:
        upload = self.upload
        self.socket = socket.create_connection((upload.host, upload.port), upload.timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.poll = select.poll()
        try:
            self._converse()
        finally:
            self.socket.close()
        self.wire.end(self.closed_by or "timeout")
        transcript = Transcript() if self.gave_up else self.wire.transcript()
        return Outcome(
            transcript=transcript,
            raw=bytes(self.raw),
            bytes_sent=self.bytes_sent,
            send_error=self.send_error,
            receive_error=self.receive_error,
            reset_seen=self.reset_seen,
            # An end that only followed from ours is not of the server's making.
            closed_by=None if self.left_first and self.closed_by == "fin" else self.closed_by,
            followed_up=self.followed_up,
            seconds=time.monotonic() - self.started,
        )

    def _ended(self) -> bool:
        return self.closed_by is not None

    def _converse(self) -> None:
        upload = self.upload
        self.wire.expect(upload.method, continue_expected=upload.expect is not None)
        if not self._send(_head(upload), reading=self.reads_while_sending):
            return self._after_send_error()
        if upload.expect == "patient":
            self._receive(
                lambda: self.wire.continued or not self.wire.waiting, upload.expect_seconds
            )
        # A client that has its final answer to an expectation must not send the body.
        refused = upload.expect == "patient" and not self.wire.waiting
        if not refused and not self._send_body():
            return self._after_send_error()
        if upload.abort_after is not None:
            return self._abort(upload.abort_how)
        if upload.follow_up == "pipelined":
            self.wire.expect("GET")
            self.followed_up = True
            if not self._send(_follow_up(upload), reading=self.reads_while_sending):
                return self._after_send_error()
        self._receive(self._answered)
        whole = self.bytes_sent >= upload.size_on_wire
        if upload.follow_up == "after" and whole and self._reusable():
            self._receive(None, upload.listen)
            if not self._ended():
                self.wire.expect("GET")
                self.followed_up = True
                if not self._send(_follow_up(upload), reading=True):
                    return self._after_send_error()
                self._receive(self._answered)
        return self._leave()

    def _answered(self) -> bool:
        # Behind an answer which announces the end, no second one comes. It is waited for all the
        # same: the end of the connection comes instead, or the timeout tells that it did not.
        return not self.wire.waiting or self.wire.broken

    def _reusable(self) -> bool:
        responses = self.wire.responses
        return not self._ended() and bool(responses) and responses[-1].keeps_alive

    def _send_body(self) -> bool:
        upload = self.upload
        pieces = _framed_pieces(upload) if upload.abort_after is None else _until_abort(upload)
        first = True
        for piece, counted in pieces:
            if not first and upload.pause:
                self._pause(upload.pause)
            first = False
            if self._has_enough():
                return True
            if not self._send(piece, counted=counted, reading=self.reads_while_sending):
                return False
        return True

    def _has_enough(self) -> bool:
        if not self.reads_while_sending or self.upload.keep_sending:
            return False
        return not self.wire.waiting or self.wire.broken or self._ended()

    def _pause(self, seconds: float) -> None:
        if self.reads_while_sending:
            self._receive(self._has_enough, seconds)
        else:
            time.sleep(seconds)

    def _send(self, data: bytes | memoryview, *, counted: int = 0, reading: bool) -> bool:
        """Send all of ``data``; False after an error. Stops early once there is an answer."""
        view = memoryview(data)
        length = len(view)
        sent = 0
        interest = select.POLLOUT | (select.POLLIN if reading and not self._ended() else 0)
        try:
            while sent < length:
                try:
                    sent += self.socket.send(view[sent:])
                    continue
                except BlockingIOError:
                    pass
                events = self._wait(interest)
                if events is None:
                    self.send_error = self.closed_by = "timeout"
                    return False
                if events & select.POLLIN:
                    self._receive_once()
                    if self._ended():
                        interest = select.POLLOUT
                    if counted and self._has_enough():
                        break
        except OSError as error:
            self._note_send_error(error)
            return False
        finally:
            # The framing of a chunk is a few bytes: in proportion is exact enough.
            self.bytes_sent += counted * sent // max(length, 1)
        return True

    def _wait(self, interest: int, until: float | None = None) -> int | None:
        """The events of the socket, or None when the time is over."""
        limit = self.deadline if until is None else min(until, self.deadline)
        self.poll.register(self.socket, interest)
        ready = self.poll.poll(max(0.0, limit - time.monotonic()) * 1000)
        return ready[0][1] if ready else None

    def _receive(self, until: Callable[[], bool] | None, seconds: float | None = None) -> bool:
        """Read until the condition holds; False when the time or the connection ended first."""
        limit = None if seconds is None else time.monotonic() + seconds
        while until is None or not until():
            if self._ended():
                return False
            if self._wait(select.POLLIN, limit) is None:
                if time.monotonic() >= self.deadline:
                    self.closed_by = "timeout"
                return False
            self._receive_once()
        return True

    def _receive_once(self) -> None:
        try:
            data = self.socket.recv(256 * 1024)
        except BlockingIOError:
            return
        except OSError as error:
            self.receive_error = errno.errorcode.get(error.errno or 0, type(error).__name__)
            self.reset_seen = True
            self.closed_by = "reset"
            return
        if not data:
            self.closed_by = "fin"
            return
        self.raw += data
        self.wire.feed(data)

    def _note_send_error(self, error: OSError) -> None:
        self.send_error = errno.errorcode.get(error.errno or 0, type(error).__name__)
        self.reset_seen = self.reset_seen or error.errno in _LOST

    def _after_send_error(self) -> None:
        if not self.reads_while_sending:
            self.gave_up = True
            if not self._ended() and self.reset_seen:
                self.closed_by = "reset"
            return
        # What the kernel still has is readable on some systems even after a failed send.
        self._receive(None, self.upload.listen)
        if not self._ended() and self.reset_seen:
            self.closed_by = "reset"

    def _abort(self, how: Abort) -> None:
        if how == "reset":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif how == "half_close":
            self._half_close()
            self._receive(None)
        elif how == "stall":
            self._receive(None)

    def _half_close(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._note_send_error(error)

    def _leave(self) -> None:
        """See the connection to its end, so that nothing which the server sends is missed."""
        if self._ended():
            return
        responses = self.wire.responses
        whole = self.bytes_sent >= self.upload.size_on_wire
        if whole and responses and not responses[-1].keeps_alive and self.upload.await_end:
            self._receive(None)
            return
        self._receive(None, self.upload.listen)
        if not self._ended():
            self.left_first = True
            if self.upload.await_end:
                self._half_close()
                self._receive(None)


class _RecordingIO(io.RawIOBase):
    """The receiving half of a socket that remembers what came."""

    def __init__(self, tap: _Tap) -> None:
        self._tap = tap

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer)
        data = self._tap.receive(len(view))
        view[: len(data)] = data
        return len(data)


class _Tap:
    """A socket as :mod:`http.client` needs it: records, and stays open for what comes late."""

    def __init__(self, inner: socket.socket) -> None:
        self.inner = inner
        self.raw = bytearray()
        self.closed_by: Ending | None = None
        self.left_first = False
        self.receive_error: str | None = None
        self.reset_seen = False
        self.send_error: str | None = None

    def sendall(self, data: bytes) -> None:
        try:
            self.inner.sendall(data)
        except OSError as error:
            self.send_error = errno.errorcode.get(error.errno or 0, type(error).__name__)
            self.reset_seen = self.reset_seen or error.errno in _LOST
            raise

    def receive(self, size: int) -> bytes:
        if self.closed_by == "fin":
            return b""
        try:
            data = self.inner.recv(size)
        except TimeoutError:
            raise
        except OSError as error:
            self.receive_error = errno.errorcode.get(error.errno or 0, type(error).__name__)
            self.reset_seen = True
            self.closed_by = "reset"
            raise
        if not data:
            self.closed_by = "fin"
        self.raw += data
        return data

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_RecordingIO(self))

    def close(self) -> None:
        """Called by http.client when it is done; the socket stays open until the end."""

    def setsockopt(self, *arguments: int) -> None:
        self.inner.setsockopt(*arguments)


def http_client(upload: Upload) -> Outcome:
    """``request()``, then ``getresponse()``, as ordinary code does: a failed send is a loss."""
    if upload.raw_body is not None or upload.abort_after is not None:
        raise ValueError("http.client sends whole, well-formed bodies only")
    if upload.follow_up == "pipelined":
        raise ValueError("http.client does not pipeline")
    started = time.monotonic()
    connection = http.client.HTTPConnection(upload.host, upload.port, timeout=upload.timeout)
    connection.connect()
    tap = _Tap(cast("socket.socket", connection.sock))
    connection.sock = tap
    wire = WireReader()
    wire.expect(upload.method, continue_expected=upload.expect is not None)
    fed = 0
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for number, piece in enumerate(body_pieces(upload.body_size, upload.piece_size)):
            if number and upload.pause:
                time.sleep(upload.pause)
            yield bytes(piece)
            sent += len(piece)

    headers = dict(upload.headers)
    if upload.chunked:
        headers["Transfer-Encoding"] = "chunked"
    else:
        headers.setdefault("Content-Length", str(upload.body_size))
    if upload.connection_close:
        headers["Connection"] = "close"
    if upload.expect is not None:
        headers["Expect"] = "100-continue"
    followed_up = lost = end_announced = False
    try:
        connection.request(
            upload.method,
            upload.path,
            body=body(),
            headers=headers,
            encode_chunked=upload.chunked,
        )
        response = connection.getresponse()
        response.read()
        end_announced = response.will_close
        if upload.follow_up == "after" and not response.will_close:
            wire.feed(bytes(tap.raw))
            fed = len(tap.raw)
            wire.expect("GET")
            followed_up = True
            connection.request("GET", upload.follow_up_path)
            second = connection.getresponse()
            second.read()
            end_announced = second.will_close
    except (OSError, http.client.HTTPException) as error:
        lost = not followed_up
        if tap.send_error is None and tap.receive_error is None:
            tap.receive_error = type(error).__name__
        if isinstance(error, TimeoutError):
            tap.closed_by = "timeout"
    else:
        _listen(tap, upload, end_announced=end_announced)
    tap.inner.close()
    wire.feed(bytes(tap.raw[fed:]))
    wire.end(tap.closed_by or "timeout")
    return Outcome(
        transcript=Transcript() if lost else wire.transcript(),
        raw=bytes(tap.raw),
        bytes_sent=sent,
        send_error=tap.send_error,
        receive_error=tap.receive_error,
        reset_seen=tap.reset_seen,
        closed_by=None if tap.left_first and tap.closed_by == "fin" else tap.closed_by,
        followed_up=followed_up,
        seconds=time.monotonic() - started,
    )


def _listen(tap: _Tap, upload: Upload, *, end_announced: bool) -> None:
    """Catch what the server sends behind the response that http.client has taken."""
    if not end_announced:
        tap.inner.settimeout(max(upload.listen, 0.001))
        if _exhaust(tap):
            return
        # Our FIN makes a server that keeps the connection close it, so that everything it ever
        # sends on it has come.
        tap.left_first = True
        with contextlib.suppress(OSError):
            tap.inner.shutdown(socket.SHUT_WR)
    tap.inner.settimeout(upload.timeout)
    if not _exhaust(tap):
        tap.closed_by = "timeout"


def _exhaust(tap: _Tap) -> bool:
    """Read to the end of the connection; False when the socket's timeout came first."""
    try:
        while tap.receive(64 * 1024):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def curl(upload: Upload, *, program: str | None = None) -> Outcome:
    """The curl program; raises FileNotFoundError where there is none.

    Its body is a sparse file of zeros, and ``pause`` becomes a limit of the rate. curl waits
    for a 100 by itself in front of larger bodies: ``expect="patient"`` leaves that as it is,
    and None turns it off.
    """
    executable = program or shutil.which("curl")
    if executable is None:
        raise FileNotFoundError("there is no curl program on this machine")
    if upload.raw_body is not None or upload.abort_after is not None or upload.follow_up:
        raise ValueError("curl sends whole, well-formed bodies, one a connection")
    started = time.monotonic()
    command = [executable, "--silent", "--include", "--raw", "--output", "-"]
    command += ["--max-time", str(upload.timeout), "--request", upload.method]
    command += ["--write-out", "%{stderr}%{size_upload}"]
    command += ["--http1.0" if upload.http_version == "1.0" else "--http1.1"]
    if upload.expect is None:
        command += ["--header", "Expect:"]
    elif upload.expect == "patient":
        command += ["--header", "Expect: 100-continue"]
        command += ["--expect100-timeout", str(upload.expect_seconds)]
    else:
        command += ["--header", "Expect: 100-continue", "--expect100-timeout", "0.001"]
    if upload.chunked:
        command += ["--header", "Transfer-Encoding: chunked"]
    if upload.connection_close:
        command += ["--header", "Connection: close"]
    for name, value in upload.headers:
        command += ["--header", f"{name}: {value}"]
    if upload.pause:
        command += ["--limit-rate", str(round(upload.piece_size / upload.pause))]
    with tempfile.NamedTemporaryFile(prefix="cleanclose-body-") as body:
        body.truncate(upload.body_size)
        if upload.body_size:
            command += ["--upload-file", body.name]
        command.append(f"http://{upload.host}:{upload.port}{upload.path}")
        # The program and its arguments are the caller's own choice.
        result = subprocess.run(  # noqa: S603
            command, capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
    wire = WireReader()
    wire.expect(upload.method, continue_expected=upload.expect is not None)
    wire.feed(result.stdout)
    reset = result.returncode in (55, 56)
    wire.end("reset" if reset else "timeout" if result.returncode == 28 else "fin")
    digits = result.stderr.strip().rsplit(b"\n", 1)[-1]
    return Outcome(
        transcript=wire.transcript(),
        raw=result.stdout,
        bytes_sent=int(digits) if digits.isdigit() else 0,
        send_error=f"curl exit {result.returncode}" if result.returncode else None,
        reset_seen=reset,
        closed_by="reset" if reset else "timeout" if result.returncode == 28 else None,
        seconds=time.monotonic() - started,
    )
