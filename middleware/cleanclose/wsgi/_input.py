"""The application's own reading of ``wsgi.input``, noticed and otherwise untouched."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cleanclose.core.blame.short_uploads import is_raised
from cleanclose.core.deliver.framing import ends_chunks

if TYPE_CHECKING:
    from cleanclose.wsgi._delivery import Delivery
    from cleanclose.wsgi._witness import UploadWatch

__all__ = ["WitnessedInput"]

Result = TypeVar("Result")

_TAIL: Final = 5
"""Bytes of a last chunk."""


class WitnessedInput:
    """A ``wsgi.input`` whose watch, and whose delivery if there is one, hear of each reading.

    To be sure that it is the stream's end, what came short is asked for again; so ``read(n)``
    gives n bytes, as a file's does, if there are as many. What a reading gives that finds the
    stream's end before the body's is `cleanclose.core.blame.short_uploads`' to say.

    Args:
        stream: The server's ``wsgi.input``.
        watch: The exchange.
        left: The body's length; None if only its end tells.
        finish: Called once, when the exchange is over, with the names of the attributes that the
            application has asked for and nobody hears of.
        raw: Whether the stream gives the body as it comes, in its chunks: these say whether it is
            whole.
    """

    __slots__ = (
        "_finish",
        "_others",
        "_tail",
        "_watch",
        "delivery",
        "error",
        "has_read",
        "left",
        "left_alone",
        "stream",
    )

    def __init__(
        self,
        stream: Any,
        watch: UploadWatch,
        left: int | None,
        finish: Callable[[set[str]], None] | None = None,
        *,
        raw: bool = False,
    ) -> None:
        self.stream: Any = stream
        self.left = left
        """Bytes of the body that are still to come; None if only its end tells its length."""
        self.left_alone: bool = False
        """Whether the application wants its response left alone."""
        self.has_read: bool = False
        """Whether the application has begun to read."""
        self.error: Exception | None = None
        """What its reading raised."""
        self.delivery: Delivery | None = None
        """Who delivers the response, once it begins before the body's end."""
        self._watch: UploadWatch | None = watch
        self._finish = finish
        self._others: set[str] | None = None if finish is None else set()
        self._tail: bytes | None = b"" if raw else None

    def detach(self) -> None:
        """The exchange is over: what is read from now on nobody hears of."""
        self._watch = self.delivery = None
        finish, self._finish = self._finish, None
        if finish is not None:
            finish(self._others or set())

    def read(self, *args: Any, **keywords: Any) -> bytes:
        """Read bytes."""
        watch = self._watch
        if watch is None or keywords or self.delivery is not None or self._tail is not None:
            return self._read(*args, **keywords)
        self.has_read = True
        try:
            data: bytes = self.stream.read(*args)
        except Exception as error:
            self._failed(watch, error)
            raise
        if len(data) != self.left:
            return self._judged(watch, data, args, keywords)
        # As nearly always: all of it, at once.
        watch.bytes_in += self.left
        watch.body_complete = True
        self.left = 0
        return data

    def _read(self, *args: Any, **keywords: Any) -> bytes:
        data = self._call(self.stream.read, *args, **keywords)
        watch = self._watch
        return data if watch is None else self._judged(watch, data, args, keywords)

    def _judged(
        self,
        watch: UploadWatch,
        data: bytes,
        args: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> bytes:
        """What `read` returns, counted, and completed if it came short."""
        size = len(data)
        left = self.left
        asked = _size(args, keywords)
        if asked is None or asked < 0:
            self._count(watch, size, at_end=True, asked=asked)
        elif left is None:
            self._count(watch, size, at_end=not data and asked != 0)
        else:
            wanted = min(asked, left)
            if 0 < size < wanted:
                data += b"".join(self._more(self.stream.read, wanted - size))
            self._count(watch, len(data), at_end=len(data) < wanted, asked=asked)
        return data

    def readline(self, *args: Any, **keywords: Any) -> bytes:
        """Read a line."""
        return self._line(self.stream.readline, _size(args, keywords), *args, **keywords)

    def readlines(self, *args: Any, **keywords: Any) -> list[bytes]:
        """Read lines."""
        lines: list[bytes] = self._call(self.stream.readlines, *args, **keywords)
        if self._watch is not None:
            size = sum(map(len, lines))
            hint = _size(args, keywords)
            at_end = hint is None or hint <= 0 or size < hint
            self._count(self._watch, size, at_end=at_end)
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
        attribute = getattr(self.stream, name)
        if name in ("read1", "readinto", "readinto1"):
            return self._noticed(attribute)
        if self._others is not None:
            self._others.add(name)
        return attribute

    def _line(
        self, read: Callable[..., bytes], size: int | None, *args: Any, **keywords: Any
    ) -> bytes:
        line = self._call(read, *args, **keywords)
        watch = self._watch
        if watch is None:
            return line
        limited = size is not None and size >= 0
        left = self.left
        if left is None or not line:
            self._count(watch, len(line), at_end=not line and size != 0, asked=size)
            return line
        # A line without an end is the last one; or what the server had of it.
        while not line.endswith(b"\n") and len(line) < left:
            if not limited:
                more = self._call(read)
            elif size is not None and len(line) < size:
                more = self._call(read, size - len(line))
            else:
                break
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
        watch = self._watch
        if watch is None:
            return read(*args, **keywords)
        self.has_read = True
        if self.delivery is not None:
            self.delivery.app_reads()
        try:
            result = read(*args, **keywords)
            if self._tail is not None:
                self._tail = (self._tail + _bytes_of(result, args))[-_TAIL:]
            return result
        except Exception as error:
            self._failed(watch, error)
            raise

    def _failed(self, watch: UploadWatch, error: Exception) -> None:
        self.error = error
        watch.body_failed(error)
        if self.delivery is not None:
            self.delivery.reading_failed(error)

    def _count(
        self, watch: UploadWatch, size: int, *, at_end: bool, asked: int | None = None
    ) -> None:
        """So many bytes were read; ``at_end`` if the stream was found at its end.

        Raises:
            TruncatedBodyError: That was not the body's end, and nobody else would notice.
        """
        left = self.left
        if left is not None:
            if at_end and size < left and watch.is_taken(self.stream):
                # No byte is missing on the connection.
                left = size
            self.left = left - size
            at_end = at_end and size < left
        watch.bytes_in += size
        complete = at_end if left is None else size >= left
        if complete and self._tail is not None:
            complete = watch.half_closed = ends_chunks(self._tail)
        if complete:
            watch.body_complete = True
        if self.delivery is not None:
            self.delivery.app_has_read(size, at_end=at_end, complete=complete)
        if at_end and not complete:
            watch.body_ended(
                is_raised(
                    asked=asked,
                    left=left,
                    reader=_reader(),
                    begun=watch.has_begun_well,
                    failing=sys.exception() is not None,
                    reset=watch.is_reset,
                )
            )

    def _noticed(self, read: Callable[..., Any]) -> Callable[..., Any]:
        def noticed(*args: Any, **keywords: Any) -> Any:
            result = self._call(read, *args, **keywords)
            if self._watch is not None:
                size = result if isinstance(result, int) else len(result or b"")
                asked = _wanted(args, keywords)
                # None is what a stream says that has nothing yet.
                at_end = size == 0 and result is not None and asked != 0
                self._count(self._watch, size, at_end=at_end, asked=asked)
            return result

        return noticed


def _bytes_of(result: Any, args: tuple[Any, ...]) -> bytes:
    """What a reading has given: bytes, lines, or so many bytes of a buffer."""
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


def _reader() -> str:
    """The module that has called the reading."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__"))
