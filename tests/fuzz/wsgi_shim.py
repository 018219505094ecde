"""Any conversation of an application with a WSGI server: the middleware may change none of it.

The application and the server are scripts, played once bare and once wrapped, as in
`tests.fuzz.asgi_shim`.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from hypothesis import strategies as st

from cleanclose.core import Event, UploadDrained
from cleanclose.core.setup import Setup
from cleanclose.wsgi import CleanCloseMiddleware

__all__ = ["CONVERSATIONS", "Conversation", "check"]

_STATUS: Final = {200: "200 OK", 204: "204 No Content", 303: "303 See Other", 413: "413 Large"}


_LINES: Final = (b"x" * 49 + b"\n") * 12_000


class BoomError(Exception):
    """The application's own."""


class MisuseError(Exception):
    """The server's, for a call that PEP 3333 forbids."""


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """One exchange, as it is to go."""

    body: int
    ending: Literal["end", "reset", "short"]
    """Whether the body comes whole, is broken off by a reset, or ends early."""
    declared: bool
    """Whether the body has a length; otherwise the server decodes chunks."""
    reads: tuple[tuple[str, int], ...]
    """What the application reads before it answers."""
    status: int
    response_length: bool
    shape: Literal["list", "iterator", "generator", "closeable", "write"]
    """What it answers with."""
    pieces: tuple[int, ...]
    fails: Literal["", "before", "in body", "in close"]
    reads_in_body: bool
    """Whether it reads while it answers."""
    write_fails: int | None
    """Which of the server's writes finds that the client has left."""
    proxied: bool
    starts: Literal["once", "twice", "again", "never"]
    """How often it calls ``start_response``; "again" is with an ``exc_info``."""
    writes_late: bool
    """Whether it calls ``write()`` when it is closed."""
    closes_at: int | None
    """At which piece the server ends the response, as for a HEAD."""


CONVERSATIONS: Final = st.builds(
    Conversation,
    body=st.sampled_from([0, 1, 100, 70_000, 600_000]),
    ending=st.sampled_from(["end", "end", "reset", "short"]),
    declared=st.booleans(),
    reads=st.lists(
        st.tuples(
            st.sampled_from(["read", "readline", "readlines", "next", "all"]),
            st.sampled_from([0, 1, 10, 100_000]),
        ),
        max_size=3,
    ).map(tuple),
    status=st.sampled_from(list(_STATUS)),
    response_length=st.booleans(),
    shape=st.sampled_from(["list", "iterator", "generator", "closeable", "write"]),
    pieces=st.lists(st.sampled_from([0, 1, 10, 70_000]), max_size=4).map(tuple),
    fails=st.sampled_from(["", "", "", "before", "in body", "in close"]),
    reads_in_body=st.booleans(),
    write_fails=st.one_of(st.none(), st.none(), st.integers(0, 3)),
    proxied=st.booleans(),
    starts=st.sampled_from(["once", "once", "once", "twice", "again", "never"]),
    writes_late=st.booleans(),
    closes_at=st.one_of(st.none(), st.none(), st.integers(0, 3)),
)
"""Any of them."""


@dataclass
class _Played:
    """What came of it."""

    read: list[bytes | str] = field(default_factory=list[bytes | str])
    status: str | None = None
    headers: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    body: bytes = b""
    closed: int = 0
    outcome: object = None


class _Input(io.RawIOBase):
    """What the server reads from its client."""

    def __init__(self, conversation: Conversation) -> None:
        super().__init__()
        data = _LINES[: conversation.body]
        self._reset = conversation.ending == "reset"
        cut = conversation.ending != "end"
        self._data = io.BytesIO(data[: len(data) // 2] if cut else data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self._data.readinto(buffer)
        if not size and self._reset and len(buffer):
            raise ConnectionResetError(104, "Connection reset by peer")
        return size


def _environ(conversation: Conversation) -> dict[str, Any]:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.input": io.BufferedReader(_Input(conversation)),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if conversation.declared:
        environ["CONTENT_LENGTH"] = str(conversation.body)
    else:
        environ["HTTP_TRANSFER_ENCODING"] = "chunked"
        environ["wsgi.input_terminated"] = True
    if conversation.proxied:
        environ["HTTP_X_FORWARDED_FOR"] = "192.0.2.7"
    return environ


class _Application:
    """The script's application."""

    def __init__(self, conversation: Conversation, played: _Played) -> None:
        self.conversation = conversation
        self.played = played
        self.write: Any = None

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        conversation = self.conversation
        stream = environ["wsgi.input"]
        self.left = conversation.body if conversation.declared else sys.maxsize
        for how, size in conversation.reads:
            self._read(stream, how, size)
        if conversation.fails == "before":
            raise BoomError
        headers = [("Content-Type", "text/plain")]
        if conversation.response_length:
            headers.append(("Content-Length", str(sum(conversation.pieces))))
        if conversation.shape == "generator":
            return self._generated(start_response, headers, stream)
        write = self._start(start_response, headers)
        body = [b"y" * size for size in conversation.pieces]
        if conversation.shape == "write":
            if write is not None:
                for piece in body:
                    write(piece)
            return []
        if conversation.shape == "list":
            return body
        pieces = self._pieces(stream)
        return _Closeable(pieces, self) if conversation.shape == "closeable" else pieces

    def _generated(self, start_response: Any, headers: Any, stream: Any) -> Iterator[bytes]:
        self._start(start_response, headers)
        yield from self._pieces(stream)

    def _start(self, start_response: Any, headers: Any) -> Any:
        status, starts = _STATUS[self.conversation.status], self.conversation.starts
        if starts == "never":
            return None
        self.write = start_response(status, headers)
        if starts == "twice":
            start_response("200 OK", [])
        elif starts == "again":
            try:
                raise BoomError
            except BoomError:
                start_response("500 Oh", [("X-Again", "1")], sys.exc_info())
        return self.write

    def _pieces(self, stream: Any) -> Iterator[bytes]:
        for number, size in enumerate(self.conversation.pieces):
            if number == 1:
                if self.conversation.fails == "in body":
                    raise BoomError
                if self.conversation.reads_in_body:
                    self._read(stream, "read", 10)
            yield b"y" * size

    def _read(self, stream: Any, how: str, size: int) -> None:
        # Never past a declared length: that is the server's to answer, and each does it otherwise.
        size = min(size, self.left)
        if how in ("readlines", "next", "all") and self.conversation.declared:
            how, size = "read", self.left
        match how:
            case "readline":
                got = stream.readline(size)
            case "readlines":
                got = b"".join(stream.readlines())
            case "next":
                got = next(iter(stream), b"")
            case "all":
                got = stream.read()
            case _:
                got = stream.read(size)
        self.left -= len(got)
        self.played.read.append(got)


class _Closeable:
    def __init__(self, pieces: Iterator[bytes], owner: _Application) -> None:
        self.pieces = pieces
        self.owner = owner

    def __iter__(self) -> Iterator[bytes]:
        return self.pieces

    def close(self) -> None:
        self.owner.played.closed += 1
        if self.owner.conversation.writes_late and self.owner.write is not None:
            self.owner.write(b"late")
        if self.owner.conversation.fails == "in close":
            raise BoomError


def _serve(app: Any, conversation: Conversation, played: _Played) -> None:
    """A server as PEP 3333 describes it."""
    writes = 0
    head: list[Any] = []

    def write(data: bytes) -> None:
        nonlocal writes
        if not head:
            raise MisuseError
        if played.status is None and data:
            played.status, played.headers = head[0], head[1]
        if data:
            if writes == conversation.write_fails:
                raise BrokenPipeError(32, "Broken pipe")
            writes += 1
            played.body += data

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        try:
            if exc_info is not None and played.status is not None:
                raise exc_info[1].with_traceback(exc_info[2])
            if exc_info is None and head:
                raise MisuseError
            head[:] = [status, list(headers)]
        finally:
            exc_info = None
        return write

    result = app(_environ(conversation), start_response)
    try:
        for number, piece in enumerate(result):
            if number == conversation.closes_at:
                break
            write(piece)
        if played.status is None:
            if not head:
                raise MisuseError
            played.status, played.headers = head[0], head[1]
    finally:
        close = getattr(result, "close", None)
        if close is not None:
            close()


def _play(app: Any, conversation: Conversation, played: _Played) -> None:
    try:
        _serve(app, conversation, played)
        played.outcome = "returned"
    except (BoomError, MisuseError, OSError) as error:
        played.outcome = type(error)


def check(conversations: Sequence[Conversation], runner: object = None) -> None:
    """Play each of them twice, one after the other, and compare.

    Args:
        conversations: What is to happen.
        runner: As for the other shims; nothing here needs one.

    Raises:
        AssertionError: The middleware has changed something, or has left something behind.
    """
    del runner
    for conversation in conversations:
        _check(conversation)


def _check(conversation: Conversation) -> None:
    bare, wrapped = _Played(), _Played()
    events: list[Event] = []
    _play(_Application(conversation, bare), conversation, bare)
    middleware = CleanCloseMiddleware(
        _Application(conversation, wrapped),
        outlets=[events.append],
        quiet_logs=False,
        surge=False,
    )
    _play(middleware, conversation, wrapped)
    serving: object = vars(middleware)["_serving"]
    setup: Setup = vars(serving)["setup"]
    assert setup.places.taken == 0, "a place was not given back"
    early = [event for event in events if isinstance(event, UploadDrained)]
    assert len(early) <= 1
    assert bare.read[: len(wrapped.read)] == wrapped.read
    if conversation.ending == "short":
        # It is not handed over as whole: the read that finds out raises.
        return
    assert wrapped.read == bare.read
    assert wrapped.closed == bare.closed
    assert wrapped.body == bare.body
    # A client's departure may end at the middleware: nobody is left to answer.
    departed = conversation.ending == "reset" or conversation.write_fails is not None
    if not departed or bare.outcome is BoomError:
        assert wrapped.outcome == bare.outcome
    if bare.status is not None:
        assert wrapped.status == bare.status
        _check_headers(bare, wrapped)


def _check_headers(bare: _Played, wrapped: _Played) -> None:
    assert [pair for pair in wrapped.headers if pair in bare.headers] == bare.headers
    for name, value in wrapped.headers:
        if (name, value) not in bare.headers:
            own = ("content-length", str(len(bare.body)))
            assert (name.lower(), value) in (("connection", "close"), own), (name, value)
