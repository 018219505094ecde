"""An upload over HTTP/2 with prior knowledge, by a client that wants to send all of its body.

Like httpx and Java's client, it reads frames only for what lets it go on sending (RFC 9113, 5.2).
Its connection must serve another request after the refused one. Names of headers are sent
as literals, and of what comes back only ``:status`` is decoded (RFC 7541).
"""

from __future__ import annotations

import socket
import struct
import time
from typing import Final

from cleanclose.doctor.application import routes
from cleanclose.doctor.application.results import Answer

__all__ = ["speaks", "status_of", "upload"]

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_PADDED, _PRIORITY = 8, 32
_INITIAL_WINDOW: Final = 65535
_LARGEST_FRAME: Final = 16384
_INITIAL_WINDOW_SIZE: Final = 4
"""SETTINGS_INITIAL_WINDOW_SIZE."""
_NO_ERROR: Final = 0
_STATIC_STATUS: Final = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}
"""The static table's entries for ``:status``."""
_HUFFMAN_DIGITS: Final = {
    **{f"{digit:05b}": str(digit) for digit in range(3)},
    **{f"{0b011001 + digit - 3:06b}": str(digit) for digit in range(3, 10)},
}


def speaks(port: int, timeout: float = 2.0) -> bool:
    """Whether the server on a loopback port speaks HTTP/2 with prior knowledge.

    Args:
        port: The port.
        timeout: Seconds within which it must send its settings.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout) as sock:
            sock.sendall(_PREFACE + _frame(_SETTINGS))
            head = sock.recv(9)
            return len(head) == 9 and head[3] == _SETTINGS and head[5:9] == bytes(4)
    except OSError:
        return False


def upload(port: int, case: str, *, size: int, timeout: float) -> Answer:
    """Send one upload that is refused early, then a GET on the same connection.

    Args:
        port: The server's port, on loopback.
        case: The case's name, for the server's process.
        size: The body's size.
        timeout: Seconds that the whole conversation may take.
    """
    client = _Client(port, time.monotonic() + timeout)
    try:
        with client.sock:
            return client.run(case, size)
    except TimeoutError:
        return Answer(kind="hung", detail="neither an answer nor an end")
    except _StreamReset as reset:
        return Answer(kind="lost", detail=f"the stream was reset (error {reset})")
    except OSError as error:
        return Answer(kind="lost", detail=f"the connection was lost: {error.strerror or error}")


class _StreamReset(Exception):
    """RST_STREAM with an error, or before the answer's end."""


class _Client:
    def __init__(self, port: int, deadline: float) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 5.0)
        # As every HTTP/2 client does: otherwise the rest of a frame would wait for a delayed
        # acknowledgement, once for each window.
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port = port
        self._deadline = deadline
        self._buffer = b""
        self._windows = {0: _INITIAL_WINDOW}
        self._initial = _INITIAL_WINDOW
        self._statuses: dict[int, int] = {}
        self._ended: set[int] = set()

    def run(self, case: str, size: int) -> Answer:
        wide = struct.pack(">HI", _INITIAL_WINDOW_SIZE, 2**20)
        more = _frame(_WINDOW, 0, 0, struct.pack(">I", 2**20))
        self._send(_PREFACE + _frame(_SETTINGS, 0, 0, wide) + more)
        headers = ((routes.CASE_HEADER.lower(), case), ("content-length", str(size)))
        self._request(1, "POST", routes.REFUSE, headers, end=False)
        left = size
        while left:
            room = min(self._windows[0], self._windows[1], _LARGEST_FRAME, left)
            if room <= 0:
                if 1 in self._ended:
                    # The answer is complete, and the server wants no more of the body.
                    break
                self._read()
                continue
            left -= room
            self._send(_frame(_DATA, 0 if left else _END_STREAM, 1, bytes(room)))
        self._read_until(1)
        self._request(3, "GET", routes.READY, (), end=True)
        self._read_until(3)
        if self._statuses[3] != 200:
            return Answer(kind="lost", detail="the next request on it was not answered")
        return Answer(kind="answered", status=self._statuses[1])

    def _request(
        self, stream: int, method: str, path: str, more: tuple[tuple[str, str], ...], *, end: bool
    ) -> None:
        self._windows[stream] = self._initial
        fields = (
            (":method", method),
            (":scheme", "http"),
            (":authority", f"127.0.0.1:{self._port}"),
            (":path", path),
            *more,
        )
        block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)
        flags = _END_HEADERS | (_END_STREAM if end else 0)
        self._send(_frame(_HEADERS, flags, stream, block))

    def _send(self, data: bytes) -> None:
        self._limit()
        self.sock.sendall(data)
        if data[3] == _DATA and not data.startswith(_PREFACE):
            length = len(data) - 9
            self._windows[0] -= length
            self._windows[1] -= length

    def _limit(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.sock.settimeout(left)

    def _read_until(self, stream: int) -> None:
        while stream not in self._ended:
            self._read()

    def _read(self) -> None:
        """Take one frame."""
        head = self._take(9)
        length = int.from_bytes(head[:3])
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:9]) & 0x7FFFFFFF
        payload = self._take(length)
        if kind == _HEADERS:
            self._statuses.setdefault(stream, status_of(_unpadded(payload, flags)))
        if kind in (_HEADERS, _DATA) and flags & _END_STREAM:
            self._ended.add(stream)
        elif kind == _RST:
            error = int.from_bytes(payload)
            if stream not in self._ended or error != _NO_ERROR:
                raise _StreamReset(error)
            # After a complete answer it means: the server wants no more of the body (RFC 9113,
            # 8.1).
            self._windows[stream] = 0
        elif kind == _SETTINGS and not flags & _ACK:
            self._settings(payload)
        elif kind == _PING and not flags & _ACK:
            self._send(_frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW:
            added = int.from_bytes(payload) & 0x7FFFFFFF
            self._windows[stream] = self._windows.get(stream, self._initial) + added
        elif kind == _GOAWAY and int.from_bytes(payload[4:8]) != _NO_ERROR:
            raise OSError(f"the server ended it with error {int.from_bytes(payload[4:8])}")

    def _settings(self, payload: bytes) -> None:
        for key, value in struct.iter_unpack(">HI", payload):
            if key == _INITIAL_WINDOW_SIZE:
                for stream in self._windows:
                    if stream:
                        self._windows[stream] += value - self._initial
                self._initial = value
        self._send(_frame(_SETTINGS, _ACK))

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._limit()
            data = self.sock.recv(65536)
            if not data:
                raise OSError("the server closed it")
            self._buffer += data
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken


def _frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def _text(text: str) -> bytes:
    # All of ours are short enough for a length of one byte.
    data = text.encode("ascii")
    assert len(data) < 127
    return bytes((len(data),)) + data


def _unpadded(payload: bytes, flags: int) -> bytes:
    padding = payload[0] if flags & _PADDED else 0
    start = (1 if flags & _PADDED else 0) + (5 if flags & _PRIORITY else 0)
    return payload[start : len(payload) - padding]


def status_of(block: bytes) -> int:
    """The status, which is the first field of a response (RFC 9113, 8.3).

    Args:
        block: A header block.

    Returns:
        The status; 0 if it cannot be read.
    """
    # A change of the table's size may precede it (RFC 7541, 6.3).
    while block and block[0] & 0xE0 == 0x20:
        block = block[1:] if block[0] & 0x1F != 0x1F else _behind_number(block)
    if not block:
        return 0
    if block[0] & 0x80:
        return _STATIC_STATUS.get(block[0] & 0x7F, 0)
    indexed = block[0] & (0x3F if block[0] & 0x40 else 0x0F)
    value = block[1:]
    if not indexed:
        # The field's name is a literal.
        value = value[1 + (value[0] & 0x7F) :]
    length = value[0] & 0x7F
    raw = value[1 : 1 + length]
    digits = _huffman(raw) if value[0] & 0x80 else raw.decode("latin-1")
    return int(digits) if digits.isdigit() else 0


def _behind_number(block: bytes) -> bytes:
    position = 1
    while position < len(block) and block[position] & 0x80:
        position += 1
    return block[position + 1 :]


def _huffman(data: bytes) -> str:
    bits = "".join(f"{byte:08b}" for byte in data)
    found = ""
    while len(found) < 3:
        length = next((n for n in (5, 6) if bits[:n] in _HUFFMAN_DIGITS), None)
        if length is None:
            break
        found += _HUFFMAN_DIGITS[bits[:length]]
        bits = bits[length:]
    return found
