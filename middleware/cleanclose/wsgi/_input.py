"""Notices the application's own reading of ``wsgi.input``, and otherwise leaves it alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cleanclose.core.blame.provenance import module_outside
from cleanclose.core.blame.reading import (
    ends_lines,
    ends_part,
    ends_read,
    line_lacks,
    read_lacks,
)
from cleanclose.core.deliver.framing import LAST_CHUNK
from cleanclose.servers import end_chunks

if TYPE_CHECKING:
    from cleanclose.wsgi._upload import UploadWatch

__all__ = ["ChunkedInput", "WitnessedInput"]

Result = TypeVar("Result")

_NO_SIZE: Final = object()
"""Stands for no size: if the application gives none, the stream gets none."""


class WitnessedInput:
    """A ``wsgi.input`` that reports each read to its watch, and to its delivery if there is one.

    If a read comes short, it asks again, to be sure that the stream has ended; so ``read(n)`` gives
    n bytes if there are that many, as a file does. `cleanclose.core.blame.short_uploads` decides
    what a read gives that finds the stream's end before the body's.

    `Serving` sets these attributes by itself.
    """

    __slots__ = ("stream", "watch")

    if TYPE_CHECKING:

        def __init__(self) -> None:
            """Without arguments."""

    else:
        __init__ = object.__init__

    stream: Any
    """The server's ``wsgi.input``."""
    watch: UploadWatch | None
    """The exchange, as long as somebody wants to know of its reading. (A class with a
    ``__getattr__`` pays for each look-up, so all else stands in the exchange's own book.)"""

    chunks_end: bytes | None = None
    """The last bytes that were read of a body that the server passes on in its chunks."""

    def finish(self, watch: UploadWatch) -> None:
        """The exchange is over: nobody notices further reads."""
        self.watch = None

    def read(self, size: Any = _NO_SIZE) -> bytes:
        """Read bytes."""
        watch = self.watch
        if watch is None or watch.deliverer is not None:
            return self._read(size)
        watch.has_read = True
        try:
            data: bytes = watch.stream.read() if size is _NO_SIZE else watch.stream.read(size)
        except Exception as error:
            watch.body_failed(error, time.monotonic())
            raise
        left = len(data)
        if left != watch.left:
            return self._judged(watch, data, size)
        # Nearly always: all of it, at once. Nothing more will follow.
        watch.bytes_in += left
        watch.left = 0
        watch.body_complete = True
        watch.input = self.watch = None
        return data

    def _read(self, size: Any) -> bytes:
        data = self._call(self.stream.read, *(() if size is _NO_SIZE else (size,)))
        watch = self.watch
        return data if watch is None else self._judged(watch, data, size)

    def _judged(self, watch: UploadWatch, data: bytes, wanted_size: Any) -> bytes:
        """What `read` returns, counted, and completed if it came short."""
        left = watch.left
        asked: int | None = None if wanted_size is _NO_SIZE else wanted_size
        lacking = read_lacks(len(data), asked, left)
        if lacking:
            data += b"".join(self._more(self.stream.read, lacking))
        size = len(data)
        self._count(watch, size, at_end=ends_read(size, asked, left), asked=asked)
        return data

    def readline(self, *args: Any, **keywords: Any) -> bytes:
        """Read a line."""
        return self._line(self.stream.readline, _size(args, keywords), *args, **keywords)

    def readlines(self, *args: Any, **keywords: Any) -> list[bytes]:
        """Read lines."""
        lines: list[bytes] = self._call(self.stream.readlines, *args, **keywords)
        if self.watch is not None:
            size = sum(map(len, lines))
            self._count(self.watch, size, at_end=ends_lines(size, _size(args, keywords)))
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        # PEP 3333 promises no __next__; the streams that servers give are their own iterators.
        line = self._line(lambda: next(iter(self.stream), b""), None)
        if not line:
            raise StopIteration
        return line

    def __getattr__(self, name: str) -> Any:
        if name in ("stream", "watch"):
            # One of ours, which is not set.
            raise AttributeError(name)
        attribute = getattr(self.stream, name)
        if name in ("read1", "readinto", "readinto1"):
            return self._noticed(attribute)
        self._asked_for(name)
        return attribute

    def _asked_for(self, name: str) -> None:
        """The application has used an attribute through which it may read unnoticed."""

    def _came(self, result: Any, args: tuple[Any, ...]) -> None:
        """A read has returned with a part of a body of unknown length."""

    def _line(
        self, read: Callable[..., bytes], size: int | None, *args: Any, **keywords: Any
    ) -> bytes:
        line = self._call(read, *args, **keywords)
        watch = self.watch
        if watch is None:
            return line
        left = watch.left
        if left is None or not line:
            self._count(watch, len(line), at_end=ends_part(len(line), size), asked=size)
            return line
        while line_lacks(line, size, left):
            more = self._call(read, *(() if size is None or size < 0 else (size - len(line),)))
            if not more:
                self._count(watch, len(line), at_end=True, asked=size)
                return line
            line += more
        self._count(watch, len(line), at_end=False)
        return line

    def _more(self, read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
        while size > 0:
            data = self._call(read, size)
            if not data:
                return
            size -= len(data)
            yield data

    def _call(self, read: Callable[..., Result], *args: Any, **keywords: Any) -> Result:
        watch = self.watch
        if watch is None:
            return read(*args, **keywords)
        watch.has_read = True
        if watch.deliverer is not None:
            watch.deliverer.app_reads()
        try:
            result = read(*args, **keywords)
        except Exception as error:
            watch.body_failed(error, time.monotonic())
            raise
        if watch.left is None:
            self._came(result, args)
        return result

    def _count(
        self, watch: UploadWatch, size: int, *, at_end: bool, asked: int | None = None
    ) -> None:
        """So many bytes were read; ``at_end`` if the stream was found at its end.

        Raises:
            TruncatedBodyError: That was not the body's end, and nobody else would notice.
        """
        now = time.monotonic()
        if watch.body_read(size, now, at_end=at_end, chunks_end=self.chunks_end):
            failing = sys.exception() is not None
            reader = module_outside(__name__)
            watch.body_ended(now, size=size, asked=asked, reader=reader, failing=failing)

    def _noticed(self, read: Callable[..., Any]) -> Callable[..., Any]:
        def noticed(*args: Any, **keywords: Any) -> Any:
            result = self._call(read, *args, **keywords)
            if self.watch is not None:
                size = result if isinstance(result, int) else len(result or b"")
                asked = _wanted(args, keywords)
                # A stream that has nothing yet returns None.
                at_end = result is not None and ends_part(size, asked)
                self._count(self.watch, size, at_end=at_end, asked=asked)
            return result

        return noticed


class ChunkedInput(WitnessedInput):
    """The same for a body of unknown length.

    Args:
        stream: The server's ``wsgi.input``.
        watch: The exchange.
        raw: Whether the stream passes the body on in its chunks, as they came. The chunks show
            whether the body is whole.
    """

    __slots__ = ("_others", "chunks_end")

    def __init__(self, stream: Any, watch: UploadWatch, *, raw: bool) -> None:
        self.stream = stream
        self.watch = watch
        self.chunks_end = b"" if raw else None
        self._others: set[str] = set()

    def finish(self, watch: UploadWatch) -> None:
        """The exchange is over. Where its body ended was known only when the end came."""
        if self.watch is not None:
            self.watch = None
            call = watch.server_start_response
            end_chunks(watch.environ, self.stream, call, watch.server, self._others)

    def read(self, size: Any = _NO_SIZE) -> bytes:
        """Read bytes."""
        return self._read(size)

    def _asked_for(self, name: str) -> None:
        self._others.add(name)

    def _came(self, result: Any, args: tuple[Any, ...]) -> None:
        if self.chunks_end is not None:
            self.chunks_end = (self.chunks_end + _bytes_of(result, args))[-len(LAST_CHUNK) :]


def _bytes_of(result: Any, args: tuple[Any, ...]) -> bytes:
    """What a read has brought: bytes, lines, or so many bytes of a buffer."""
    if isinstance(result, int):
        return bytes(memoryview(args[0])[:result])
    return result if isinstance(result, bytes) else b"".join(result or ())


def _size(args: tuple[Any, ...], keywords: dict[str, Any]) -> int | None:
    # The standard library's streams name it size, or take it by position only.
    size: int | None = args[0] if args else keywords.get("size")
    return size


def _wanted(args: tuple[Any, ...], keywords: dict[str, Any]) -> int | None:
    wanted: Any = args[0] if args else keywords.get("size")
    return wanted if wanted is None or isinstance(wanted, int) else len(wanted)
