"""Uploads to an address somewhere else, over TCP or TLS, bounded in size and time."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from cleanclose.doctor.output import Trouble
from cleanclose.testing.uploads import body_pieces
from cleanclose.testing.wire import Response, WireReader

__all__ = ["Address", "Manner", "Seen", "Sending", "send"]

Manner = Literal["strict", "reading"]
_PIECE: Final = 64 * 1024
_CONTINUE_SECONDS: Final = 2.0
_LARGEST_ANSWER: Final = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """The address to test.

    Args:
        host: The host's name.
        port: The port.
        tls: Whether to use TLS.
        target: The path, with its query.
    """

    host: str
    port: int
    tls: bool
    target: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Take a URL apart.

        Args:
            url: It begins with ``http://`` or ``https://``.

        Raises:
            Trouble: The URL is not usable.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
            # DNS knows an internationalised name by its ASCII form.
            host = (parts.hostname or "").encode("idna").decode("ascii")
        except (ValueError, UnicodeError):
            raise Trouble(f"{url!r} is not a URL.") from None
        if not host or parts.username is not None:
            raise Trouble(f"{url!r} has no host, or has a user's name in it.")
        tls = parts.scheme.lower() == "https"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if any(not "!" <= letter <= "~" for letter in target):
            raise Trouble("The path has characters in it that a URL must percent-encode.")
        return cls(host=host, port=port or (443 if tls else 80), tls=tls, target=target)

    @property
    def authority(self) -> str:
        """The ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sending:
    """One upload."""

    method: str
    size: int
    headers: tuple[tuple[str, str], ...] = ()
    manner: Manner = "strict"
    chunked: bool = False
    close: bool = False
    expect: bool = False
    pause: float = 0.0
    timeout: float = 10.0
    """Seconds that connecting, each send and the answer may take."""
    max_seconds: float = 30.0
    """Seconds that the whole upload may take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """The result."""

    response: Response | None
    bytes_sent: int
    error: str | None
    hung: bool
    seconds: float


def connect(address: Address, timeout: float) -> socket.socket:
    """Open a connection.

    Args:
        address: The address to connect to.
        timeout: Seconds that connecting may take.

    Raises:
        Trouble: The connection cannot be opened; the message says why in one sentence.
    """
    where = f"{address.host}, port {address.port}"
    try:
        plain = socket.create_connection((address.host, address.port), timeout)
    except socket.gaierror:
        raise Trouble(f"There is no host named {address.host}.") from None
    except TimeoutError:
        raise Trouble(f"{where} did not accept a connection within {timeout:g} s.") from None
    except OSError as error:
        raise Trouble(f"Cannot connect to {where}: {error.strerror}.") from None
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not address.tls:
        return plain
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    try:
        return context.wrap_socket(plain, server_hostname=address.host)
    except ssl.SSLCertVerificationError as error:
        plain.close()
        raise Trouble(f"The certificate of {where} is not valid: {error.verify_message}.") from None
    except (OSError, ValueError) as error:
        plain.close()
        reason = getattr(error, "reason", None) or error
        raise Trouble(f"The TLS handshake with {where} failed: {reason}.") from None


def send(address: Address, sending: Sending) -> Seen:
    """Send one upload and read the answer.

    Args:
        address: The address to send to.
        sending: The upload.

    Raises:
        Trouble: No connection can be opened.
    """
    return _Exchange(address, sending).run()


class _Exchange:
    def __init__(self, address: Address, sending: Sending) -> None:
        self._address = address
        self._sending = sending
        self._wire = WireReader()
        self._sent = 0
        self._received = 0
        self._ended = False
        self._began = time.monotonic()
        self._deadline = self._began + sending.max_seconds

    def run(self) -> Seen:
        error: str | None = None
        hung = gave_up = False
        with connect(self._address, self._sending.timeout) as self._socket:
            self._began = time.monotonic()
            try:
                self._upload()
            except TimeoutError:
                hung = True
            except OSError as failure:
                error = failure.strerror or str(failure)
                gave_up = self._sending.manner == "strict"
            if not gave_up:
                try:
                    self._take(self._sending.timeout)
                except TimeoutError:
                    hung = True
                except OSError as failure:
                    error = error or failure.strerror or str(failure)
        self._wire.end("reset" if error else "fin")
        response = None if gave_up else self._wire.transcript().first
        return Seen(
            response=response,
            bytes_sent=self._sent,
            error=error,
            hung=hung and response is None,
            seconds=round(time.monotonic() - self._began, 3),
        )

    def _upload(self) -> None:
        sending = self._sending
        self._wire.expect(sending.method, continue_expected=sending.expect)
        self._limit(sending.timeout)
        self._socket.sendall(self._head())
        if sending.expect:
            with contextlib.suppress(TimeoutError):
                self._take(_CONTINUE_SECONDS, until_continue=True)
            if not self._wire.waiting:
                return
        for number, (piece, counted) in enumerate(self._pieces()):
            if number and sending.pause:
                time.sleep(sending.pause)
            if sending.manner == "reading":
                while self._is_readable():
                    self._receive()
                if self._ended or not self._wire.waiting:
                    return
            self._limit(sending.timeout)
            self._socket.sendall(piece)
            self._sent += counted

    def _head(self) -> bytes:
        sending = self._sending
        given = {name.lower() for name, _ in sending.headers}
        lines = [f"{sending.method} {self._address.target} HTTP/1.1"]
        lines += [f"Host: {self._address.authority}"] if "host" not in given else []
        if "user-agent" not in given:
            lines.append("User-Agent: cleanclose-doctor")
        if "content-type" not in given:
            lines.append("Content-Type: application/octet-stream")
        framing = f"Content-Length: {sending.size}"
        lines.append("Transfer-Encoding: chunked" if sending.chunked else framing)
        lines += ["Connection: close"] if sending.close else []
        lines += ["Expect: 100-continue"] if sending.expect else []
        lines += [f"{name}: {value}" for name, value in sending.headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    def _pieces(self) -> Iterator[tuple[bytes, int]]:
        # Zeros, unlike the bodies of the other cases, which consist of requests: this server may
        # not be ours.
        for piece in body_pieces(self._sending.size, _PIECE):
            data = bytes(len(piece))
            if self._sending.chunked:
                yield b"%x\r\n%b\r\n" % (len(data), data), len(data)
            else:
                yield data, len(data)
        if self._sending.chunked:
            yield b"0\r\n\r\n", 0

    def _limit(self, seconds: float) -> None:
        left = min(seconds, self._deadline - time.monotonic())
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)

    def _take(self, seconds: float, *, until_continue: bool = False) -> None:
        until = time.monotonic() + seconds
        while self._wire.waiting and not self._wire.broken and not self._ended:
            if until_continue and self._wire.continued:
                return
            if time.monotonic() >= until:
                raise TimeoutError
            self._limit(until - time.monotonic())
            self._receive()

    def _is_readable(self) -> bool:
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        return not self._ended and bool(select.select([self._socket], [], [], 0)[0])

    def _receive(self) -> None:
        data = self._socket.recv(_PIECE)
        self._received += len(data)
        if not data:
            self._ended = True
            self._wire.end("fin")
        elif self._received > _LARGEST_ANSWER:
            raise OSError("the answer is longer than 4 MiB")
        else:
            self._wire.feed(data)
