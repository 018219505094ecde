"""Raw clients: one connection each, and every byte of it.

- `strict` writes its whole request before it reads, and gives up at the first send error.
- `reader` reads while it sends, and stops sending when it has its answer.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Final

from cleanclose.testing.uploads import (
    Abort,
    Seen,
    Upload,
    follow_up_of,
    framed_pieces,
    head_of,
    pieces_until_abort,
)
from cleanclose.testing.wire import Ending, Transcript, WireReader

__all__ = ["LOST", "RESET", "reader", "strict"]

LOST: Final = (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)
"""The errors that a write to a connection gets after the other end has left."""
RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with 0 seconds: closing sends a reset (socket(7))."""


def strict(upload: Upload) -> Seen:
    """Write everything, then read; give up without reading at the first send error."""
    return _Conversation(upload, reads_while_sending=False).run()


def reader(upload: Upload) -> Seen:
    """Read while sending, and stop sending when the answer has come."""
    return _Conversation(upload, reads_while_sending=True).run()


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

    def run(self) -> Seen:
        upload = self.upload
        self.socket = _connected(upload)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.poll = select.poll()
        try:
            self._converse()
        finally:
            self.socket.close()
        self.wire.end(self.closed_by or "timeout")
        transcript = Transcript() if self.gave_up else self.wire.transcript()
        return Seen(
            transcript=transcript,
            raw=bytes(self.raw),
            bytes_sent=self.bytes_sent,
            send_error=self.send_error,
            receive_error=self.receive_error,
            reset_seen=self.reset_seen,
            # If the end only followed ours, the server did not cause it.
            closed_by=None if self.left_first and self.closed_by == "fin" else self.closed_by,
            followed_up=self.followed_up,
            seconds=time.monotonic() - self.started,
        )

    def _ended(self) -> bool:
        return self.closed_by is not None

    def _converse(self) -> None:
        upload = self.upload
        self.wire.expect(upload.method, continue_expected=upload.expect is not None)
        if not self._send(head_of(upload), reading=self.reads_while_sending):
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
            if not self._send(follow_up_of(upload), reading=self.reads_while_sending):
                return self._after_send_error()
        self._receive(self._answered)
        whole = self.bytes_sent >= upload.size_on_wire
        if upload.follow_up == "after" and whole and self._reusable():
            self._receive(None, upload.listen)
            if not self._ended():
                self.wire.expect("GET")
                self.followed_up = True
                if not self._send(follow_up_of(upload), reading=True):
                    return self._after_send_error()
                self._receive(self._answered)
        return self._leave()

    def _answered(self) -> bool:
        # After an answer that announces the end no second one should come. Wait for it all the
        # same: the connection's end comes instead, or the timeout shows that it did not.
        return not self.wire.waiting or self.wire.broken

    def _reusable(self) -> bool:
        responses = self.wire.responses
        return not self._ended() and bool(responses) and responses[-1].keeps_alive

    def _send_body(self) -> bool:
        upload = self.upload
        pieces = framed_pieces(upload) if upload.abort_after is None else pieces_until_abort(upload)
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
        if self.reads_while_sending and not self._ended():
            self._receive(self._has_enough, seconds)
        else:
            # Nothing will come any more, and a client that goes on sending keeps its pace.
            time.sleep(seconds)

    def _send(self, data: bytes | memoryview, *, counted: int = 0, reading: bool) -> bool:
        """Send all of ``data``; return False after an error. Stop early once there is an answer."""
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
            # The framing of a chunk is only a few bytes, so a proportion is exact enough.
            self.bytes_sent += counted * sent // max(length, 1)
        return True

    def _wait(self, interest: int, until: float | None = None) -> int | None:
        """Wait for the socket's events; None when the time is up."""
        limit = self.deadline if until is None else min(until, self.deadline)
        self.poll.register(self.socket, interest)
        ready = self.poll.poll(max(0.0, limit - time.monotonic()) * 1000)
        return ready[0][1] if ready else None

    def _receive(self, until: Callable[[], bool] | None, seconds: float | None = None) -> bool:
        """Read until the condition holds; return False if time or connection ended first."""
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
        self.reset_seen = self.reset_seen or error.errno in LOST

    def _after_send_error(self) -> None:
        if not self.reads_while_sending:
            self.gave_up = True
            if not self._ended() and self.reset_seen:
                self.closed_by = "reset"
            return
        # On some systems the kernel's remaining bytes are readable even after a failed send.
        self._receive(None, self.upload.listen)
        if not self._ended() and self.reset_seen:
            self.closed_by = "reset"

    def _abort(self, how: Abort) -> None:
        if how == "reset":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
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
        """Watch the connection to its end, so that no byte from the server is missed."""
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


def _connected(upload: Upload) -> socket.socket:
    if upload.receive_buffer is None:
        return socket.create_connection((upload.host, upload.port), upload.timeout)
    # It determines the window that the handshake offers.
    kind = socket.AF_INET6 if ":" in upload.host else socket.AF_INET
    connection = socket.socket(kind, socket.SOCK_STREAM)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, upload.receive_buffer)
        connection.settimeout(upload.timeout)
        connection.connect((upload.host, upload.port))
    except BaseException:
        connection.close()
        raise
    return connection
