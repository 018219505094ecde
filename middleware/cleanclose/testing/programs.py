"""Other people's clients: http.client as ordinary code uses it, and the curl program."""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from cleanclose.testing.raw import LOST
from cleanclose.testing.uploads import Seen, Upload, body_pieces
from cleanclose.testing.wire import Ending, Transcript, WireReader

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["curl", "http_client"]


class _RecordingIO(io.RawIOBase):
    """The receiving half of a socket, which records all received bytes."""

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
    """A socket for :mod:`http.client`: it records, and stays open for late bytes."""

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
            self.reset_seen = self.reset_seen or error.errno in LOST
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


class _Ordinary:
    """One connection of http.client."""

    def __init__(self, upload: Upload) -> None:
        self.upload = upload
        self.started = time.monotonic()
        self.connection = http.client.HTTPConnection(
            upload.host, upload.port, timeout=upload.timeout
        )
        self.connection.connect()
        self.tap = _Tap(cast("socket.socket", self.connection.sock))
        self.connection.sock = self.tap
        self.wire = WireReader()
        self.wire.expect(upload.method, continue_expected=upload.expect is not None)
        self.fed = 0
        self.sent = 0
        self.followed_up = False
        self.lost = False

    def run(self) -> Seen:
        tap = self.tap
        try:
            end_announced = self._converse()
        except (OSError, http.client.HTTPException) as error:
            self.lost = not self.followed_up
            if tap.send_error is None and tap.receive_error is None:
                tap.receive_error = type(error).__name__
            if isinstance(error, TimeoutError):
                tap.closed_by = "timeout"
        else:
            _listen(tap, self.upload, end_announced=end_announced)
        tap.inner.close()
        self.wire.feed(bytes(tap.raw[self.fed :]))
        self.wire.end(tap.closed_by or "timeout")
        return Seen(
            transcript=Transcript() if self.lost else self.wire.transcript(),
            raw=bytes(tap.raw),
            bytes_sent=self.sent,
            send_error=tap.send_error,
            receive_error=tap.receive_error,
            reset_seen=tap.reset_seen,
            closed_by=None if tap.left_first and tap.closed_by == "fin" else tap.closed_by,
            followed_up=self.followed_up,
            seconds=time.monotonic() - self.started,
        )

    def _converse(self) -> bool:
        """Send one request or two, and return whether the last answer announced the end."""
        upload = self.upload
        self.connection.request(
            upload.method,
            upload.path,
            body=self._body(),
            headers=self._headers(),
            encode_chunked=upload.chunked,
        )
        response = self.connection.getresponse()
        response.read()
        if upload.follow_up == "after" and not response.will_close:
            self.wire.feed(bytes(self.tap.raw))
            self.fed = len(self.tap.raw)
            self.wire.expect("GET")
            self.followed_up = True
            self.connection.request("GET", upload.follow_up_path)
            response = self.connection.getresponse()
            response.read()
        return response.will_close

    def _body(self) -> Iterator[bytes]:
        upload = self.upload
        for number, piece in enumerate(body_pieces(upload.body_size, upload.piece_size)):
            if number and upload.pause:
                time.sleep(upload.pause)
            yield bytes(piece)
            self.sent += len(piece)

    def _headers(self) -> dict[str, str]:
        upload = self.upload
        headers = dict(upload.headers)
        if upload.chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers.setdefault("Content-Length", str(upload.body_size))
        if upload.connection_close:
            headers["Connection"] = "close"
        if upload.expect is not None:
            headers["Expect"] = "100-continue"
        return headers


def http_client(upload: Upload) -> Seen:
    """``request()``, then ``getresponse()``, as ordinary code does: a failed send is a loss.

    Raises:
        ValueError: http.client cannot send such an upload.
    """
    if upload.raw_body is not None or upload.abort_after is not None:
        raise ValueError("http.client sends whole, well-formed bodies only")
    if upload.follow_up == "pipelined":
        raise ValueError("http.client does not pipeline")
    return _Ordinary(upload).run()


def _listen(tap: _Tap, upload: Upload, *, end_announced: bool) -> None:
    """Receive what the server sends after the response that http.client has read."""
    if not end_announced:
        tap.inner.settimeout(max(upload.listen, 0.001))
        if _exhaust(tap):
            return
        # After our FIN, a server that kept the connection closes it, so that everything it ever
        # sends on it has come.
        tap.left_first = True
        with contextlib.suppress(OSError):
            tap.inner.shutdown(socket.SHUT_WR)
    tap.inner.settimeout(upload.timeout)
    if not _exhaust(tap):
        tap.closed_by = "timeout"


def _exhaust(tap: _Tap) -> bool:
    """Read to the connection's end; return False if the socket's timeout came first."""
    try:
        while tap.receive(64 * 1024):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def curl(upload: Upload, *, program: str | None = None) -> Seen:
    """The curl program.

    Its body is a sparse file of zeros, and ``pause`` becomes a limit of the rate. curl itself waits
    for a 100 before larger bodies: ``expect="patient"`` leaves that as it is,
    and None turns it off.

    Raises:
        FileNotFoundError: This machine has no curl.
        ValueError: curl cannot send such an upload.
    """
    executable = program or shutil.which("curl")
    if executable is None:
        raise FileNotFoundError("there is no curl program on this machine")
    if upload.raw_body is not None or upload.abort_after is not None or upload.follow_up:
        raise ValueError("curl sends whole, well-formed bodies, one a connection")
    started = time.monotonic()
    command = [executable, *_options(upload)]
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
    return Seen(
        transcript=wire.transcript(),
        raw=result.stdout,
        bytes_sent=int(digits) if digits.isdigit() else 0,
        send_error=f"curl exit {result.returncode}" if result.returncode else None,
        reset_seen=reset,
        closed_by="reset" if reset else "timeout" if result.returncode == 28 else None,
        seconds=time.monotonic() - started,
    )


def _options(upload: Upload) -> list[str]:
    options = ["--silent", "--include", "--raw", "--output", "-"]
    options += ["--max-time", str(upload.timeout), "--request", upload.method]
    options += ["--write-out", "%{stderr}%{size_upload}"]
    options += ["--http1.0" if upload.http_version == "1.0" else "--http1.1"]
    if upload.expect is None:
        options += ["--header", "Expect:"]
    elif upload.expect == "patient":
        options += ["--header", "Expect: 100-continue"]
        options += ["--expect100-timeout", str(upload.expect_seconds)]
    else:
        options += ["--header", "Expect: 100-continue", "--expect100-timeout", "0.001"]
    if upload.chunked:
        options += ["--header", "Transfer-Encoding: chunked"]
    if upload.connection_close:
        options += ["--header", "Connection: close"]
    for name, value in upload.headers:
        options += ["--header", f"{name}: {value}"]
    if upload.pause:
        options += ["--limit-rate", str(round(upload.piece_size / upload.pause))]
    return options
