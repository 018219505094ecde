"""Read everything that a server sent on one connection, and name its mistakes.

An HTTP client library stops at the end of the response that it asked for. The mistakes that matter
here come after that: a ``100 Continue`` after the final response, a second response that
answers a piece of a body, a body that ends in the middle. So this parser never stops, never
raises and never repairs. Bytes that do not belong to the answer of a sent request stay as *stray*
bytes, and every irregularity becomes a :class:`Fault` of the transcript.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["Ending", "Fault", "Framing", "Response", "Transcript", "WireReader", "read_transcript"]

Framing = Literal["none", "length", "chunked", "close"]
"""How a response's body ends: no body, by its length, by its chunks, or when the connection
closes."""

Ending = Literal["fin", "reset", "timeout"]
"""How the bytes ended. ``timeout`` also means that nobody waited any longer."""

_MAX_HEAD: Final = 128 * 1024
_MAX_CHUNK_LINE: Final = 4096
_STATUS_LINE: Final = re.compile(rb"HTTP/(\d\.\d) (\d{3})(?: ([^\r\n]*))?\Z")
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\Z")
_HEADER_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_STATUS_LINES: Final = re.compile(rb"(?m)^HTTP/\d\.\d (\d{3})")


class Fault(enum.StrEnum):
    """The mistakes that the bytes of a connection can show."""

    INFORMATIONAL_AFTER_FINAL = "informational_after_final"
    """A 1xx while no request was waiting for an answer, such as a late ``100 Continue``."""
    UNEXPECTED_RESPONSE = "unexpected_response"
    """A final response that belongs to no request: a second answer, or a desynchronised
    connection."""
    STRAY_BYTES = "stray_bytes"
    """Bytes after the end of the last answer that are not a response either."""
    UNASKED_CONTINUE = "unasked_continue"
    """A ``100 Continue`` for a request without ``Expect``, or a second one for the same."""
    RESPONSE_AFTER_CLOSE = "response_after_close"
    """An answer to a later request although an earlier answer had announced the end."""
    MALFORMED_HEAD = "malformed_head"
    MALFORMED_CHUNK = "malformed_chunk"
    CONTRADICTORY_FRAMING = "contradictory_framing"
    """Several lengths, or a length together with chunks, or a length that is not a number."""
    TRUNCATED_HEAD = "truncated_head"
    TRUNCATED_BODY = "truncated_body"
    """Fewer bytes than announced, or an unbounded body that a reset ended."""
    UNTERMINATED_CHUNKED_BODY = "unterminated_chunked_body"


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """One response, informational or final, as far as it came."""

    status: int
    reason: str
    version: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    framing: Framing = "none"
    complete: bool = False
    informational: tuple[Response, ...] = ()
    """The 1xx responses that came before this one, for the same request."""

    def header(self, name: str) -> str | None:
        """Get the values of one header, joined with commas; None if it is absent."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None

    @property
    def keeps_alive(self) -> bool:
        """Whether the server says that the connection can carry another request."""
        options = {
            option.strip().lower() for option in (self.header("connection") or "").split(",")
        }
        if "close" in options or self.framing == "close":
            return False
        return self.version != "1.0" or "keep-alive" in options


@dataclass(frozen=True, kw_only=True, slots=True)
class Transcript:
    """Everything that the server sent on one connection."""

    informational: tuple[Response, ...] = ()
    responses: tuple[Response, ...] = ()
    """The final responses in the order of their requests; the last may be incomplete."""
    stray: bytes = b""
    faults: tuple[Fault, ...] = ()
    complete: bool = False
    """Whether every request that was announced to the reader has its complete answer."""

    @property
    def first(self) -> Response | None:
        """The answer to the first request, if all of it came."""
        if self.responses and self.responses[0].complete:
            return self.responses[0]
        return None

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong. A connection without any answer is clean, but not complete."""
        return not self.faults and not self.stray


@dataclass(slots=True)
class _Pending:
    method: str
    continue_expected: bool
    informational: list[Response] = field(default_factory=list["Response"])


@dataclass(slots=True)
class _Partial:
    head: Response
    body: bytearray = field(default_factory=bytearray)
    remaining: int = 0

    def freeze(self, *, complete: bool) -> Response:
        return Response(
            status=self.head.status,
            reason=self.head.reason,
            version=self.head.version,
            headers=self.head.headers,
            informational=self.head.informational,
            framing=self.head.framing,
            body=bytes(self.body),
            complete=complete,
        )


_State = Literal["head", "length", "chunk_line", "chunk_data", "chunk_end", "trailer", "rest"]


class WireReader:
    """The incremental parser behind :func:`read_transcript`.

    The caller announces each request with :meth:`expect` when it sends the request. So a byte that
    comes while no request is waiting counts as stray, even if it could have belonged to a later
    request on the same connection.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._state: _State = "head"
        self._waiting: list[_Pending] = []
        self._informational: list[Response] = []
        self._responses: list[Response] = []
        self._partial: _Partial | None = None
        self._stray = bytearray()
        self._unclaimed = bytearray()
        self._faults: list[Fault] = []
        self._broken = False
        self._ended = False
        self._announced_end = False

    def expect(self, method: str = "GET", *, continue_expected: bool = False) -> None:
        """Announce a request that is sent now: the next unclaimed response answers it."""
        self._waiting.append(_Pending(method.upper(), continue_expected))

    @property
    def waiting(self) -> bool:
        """Whether a request is still without its complete final response."""
        return bool(self._waiting)

    @property
    def broken(self) -> bool:
        """Whether the bytes so far cannot be HTTP, so that waiting for more is in vain."""
        return self._broken

    @property
    def responses(self) -> tuple[Response, ...]:
        """The final responses that are complete."""
        return tuple(self._responses)

    @property
    def continued(self) -> bool:
        """Whether the request that is waiting now has had a ``100 Continue``."""
        return bool(self._waiting) and any(
            response.status == 100 for response in self._waiting[0].informational
        )

    def feed(self, data: bytes) -> None:
        """Parse the next bytes of the connection."""
        if self._ended:
            raise ValueError("the connection has ended already")
        self._buffer += data
        while self._buffer and self._advance():
            pass

    def end(self, how: Ending = "fin") -> None:
        """Nothing more comes."""
        if self._ended:
            return
        self._ended = True
        if self._broken:
            return
        if self._partial is None:
            if self._buffer:
                self._flag(Fault.TRUNCATED_HEAD)
                self._spill()
            return
        if self._state == "rest" and how == "fin":
            self._finish()
            return
        chunked = self._partial.head.framing == "chunked"
        self._flag(Fault.UNTERMINATED_CHUNKED_BODY if chunked else Fault.TRUNCATED_BODY)

    def transcript(self) -> Transcript:
        """The transcript so far."""
        responses = list(self._responses)
        if self._partial is not None:
            responses.append(self._partial.freeze(complete=False))
        faults = list(self._faults)
        if self._unclaimed:
            faults += _name_unclaimed(bytes(self._unclaimed))
        return Transcript(
            informational=tuple(self._informational),
            responses=tuple(responses),
            stray=bytes(self._stray),
            faults=tuple(faults),
            complete=not self._waiting and not self._broken and bool(responses),
        )

    def _advance(self) -> bool:
        """Take one element out of the buffer; return False if it needs more bytes."""
        if self._broken:
            self._spill()
            return False
        if self._partial is None and not self._waiting:
            self._unclaimed += self._buffer
            self._spill()
            return False
        if self._partial is None:
            return self._take_head()
        return self._take_body(self._partial)

    def _take_head(self) -> bool:
        # Do not search again, with each new byte, what was searched before.
        end = self._buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        self._scanned = 0 if end >= 0 else len(self._buffer)
        if end < 0:
            # Recognise bytes that cannot become a status line at once, so that a client does not
            # wait for the end of a head that will never come.
            start = bytes(self._buffer[:5])
            if len(self._buffer) > _MAX_HEAD or not b"HTTP/".startswith(start):
                return self._break(Fault.MALFORMED_HEAD)
            return False
        head = bytes(self._buffer[:end])
        parsed = _parse_head(head)
        if parsed is None:
            return self._break(Fault.MALFORMED_HEAD)
        del self._buffer[: end + 4]
        pending = self._waiting[0]
        if parsed.status // 100 == 1 and parsed.status != 101:
            if parsed.status == 100 and (not pending.continue_expected or self.continued):
                self._flag(Fault.UNASKED_CONTINUE)
            pending.informational.append(parsed)
            self._informational.append(parsed)
            return True
        if self._announced_end:
            self._flag(Fault.RESPONSE_AFTER_CLOSE)
        framing, length, contradictory = _framing(parsed, pending.method)
        if contradictory:
            self._flag(Fault.CONTRADICTORY_FRAMING)
        self._partial = _Partial(
            Response(
                status=parsed.status,
                reason=parsed.reason,
                version=parsed.version,
                headers=parsed.headers,
                framing=framing,
                informational=tuple(pending.informational),
            ),
            remaining=length,
        )
        if framing == "none" or (framing == "length" and length == 0):
            self._finish()
        elif framing == "length":
            self._state = "length"
        elif framing == "chunked":
            self._state = "chunk_line"
        else:
            self._state = "rest"
        return True

    def _take_body(self, partial: _Partial) -> bool:
        if self._state in ("length", "chunk_data"):
            taken = min(partial.remaining, len(self._buffer))
            partial.body += self._buffer[:taken]
            partial.remaining -= taken
            del self._buffer[:taken]
            if partial.remaining == 0:
                if self._state == "length":
                    self._finish()
                else:
                    self._state = "chunk_end"
            return True
        if self._state == "rest":
            partial.body += self._buffer
            self._buffer.clear()
            return True
        return self._take_chunk_line(partial)

    def _take_chunk_line(self, partial: _Partial) -> bool:
        end = self._buffer.find(b"\r\n", 0, _MAX_CHUNK_LINE)
        if end < 0:
            if len(self._buffer) >= _MAX_CHUNK_LINE:
                return self._break(Fault.MALFORMED_CHUNK)
            return False
        line = bytes(self._buffer[:end])
        if self._state == "chunk_end":
            if line:
                return self._break(Fault.MALFORMED_CHUNK)
            self._state = "chunk_line"
        elif self._state == "trailer":
            if not line:
                del self._buffer[:2]
                self._finish()
                return True
        else:
            match = _CHUNK_LINE.match(line)
            if match is None:
                return self._break(Fault.MALFORMED_CHUNK)
            partial.remaining = int(match[1], 16)
            self._state = "chunk_data" if partial.remaining else "trailer"
        del self._buffer[: end + 2]
        return True

    def _finish(self) -> None:
        assert self._partial is not None
        response = self._partial.freeze(complete=True)
        self._partial = None
        self._state = "head"
        self._waiting.pop(0)
        self._responses.append(response)
        self._announced_end = self._announced_end or not response.keeps_alive

    def _break(self, fault: Fault) -> bool:
        self._flag(fault)
        self._broken = True
        self._spill()
        return False

    def _spill(self) -> None:
        self._stray += self._buffer
        self._buffer.clear()

    def _flag(self, fault: Fault) -> None:
        if fault not in self._faults:
            self._faults.append(fault)


def read_transcript(
    data: bytes, *methods: str, ended_by: Ending = "fin", continue_expected: bool = False
) -> Transcript:
    """Parse all the bytes of a connection on which requests with these methods were sent.

    ``continue_expected``: whether the first request carried ``Expect: 100-continue``.
    """
    reader = WireReader()
    for number, method in enumerate(methods or ("GET",)):
        reader.expect(method, continue_expected=continue_expected and number == 0)
    reader.feed(data)
    reader.end(ended_by)
    return reader.transcript()


def _name_unclaimed(data: bytes) -> list[Fault]:
    statuses = [int(match[1]) for match in _STATUS_LINES.finditer(data)]
    faults: list[Fault] = []
    if any(status // 100 == 1 for status in statuses):
        faults.append(Fault.INFORMATIONAL_AFTER_FINAL)
    if any(status // 100 != 1 for status in statuses):
        faults.append(Fault.UNEXPECTED_RESPONSE)
    return faults or [Fault.STRAY_BYTES]


def _parse_head(head: bytes) -> Response | None:
    status_line, *lines = head.split(b"\r\n")
    match = _STATUS_LINE.match(status_line)
    if match is None:
        return None
    headers: list[tuple[str, str]] = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _HEADER_NAME.match(name):
            return None
        headers.append((name.decode("ascii"), value.strip(b" \t").decode("latin-1")))
    return Response(
        status=int(match[2]),
        reason=(match[3] or b"").decode("latin-1"),
        version=match[1].decode("ascii"),
        headers=tuple(headers),
        complete=True,
    )


def _framing(head: Response, method: str) -> tuple[Framing, int, bool]:
    """Find out how this response's body ends, its length, and whether the headers disagree."""
    lengths = {
        value.strip()
        for key, values in head.headers
        if key.lower() == "content-length"
        for value in values.split(",")
    }
    length = lengths.pop() if len(lengths) == 1 else None
    valid = length is not None and length.isascii() and length.isdigit()
    coding = head.header("transfer-encoding")
    contradictory = bool(lengths) or (length is not None and (not valid or coding is not None))
    if method == "HEAD" or head.status in (204, 304):
        return "none", 0, contradictory
    if head.status == 101:
        return "close", 0, contradictory
    if coding is not None:
        last = coding.rsplit(",", 1)[-1].strip().lower()
        return ("chunked" if last == "chunked" else "close"), 0, contradictory
    if valid and length is not None:
        return "length", int(length), contradictory
    return "close", 0, contradictory
