"""The application's own reading of ``wsgi.input``, noticed and otherwise untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

__all__ = ["Reader", "WitnessedInput"]

Result = TypeVar("Result")


class Reader(Protocol):
    """Who is told what the application reads."""

    @property
    def left(self) -> int | None:
        """Bytes of the body that are still to come; None if only its end tells its length."""
        ...

    def app_reads(self) -> None:
        """The application is about to read."""
        ...

    def app_read(self, size: int, *, at_end: bool) -> None:
        """It has read so many bytes; ``at_end`` if the stream was found at its end.

        Raises:
            TruncatedBodyError: That was not the body's end.
        """
        ...

    def app_failed(self, error: Exception) -> None:
        """Its reading raised."""
        ...


class WitnessedInput:
    """A ``wsgi.input`` which tells before and after each reading.

    A reading that finds the stream's end before the body's raises instead of returning what it
    has: nobody must take that for the whole. To be sure that it is the end, what came short is
    asked for again; so ``read(n)`` gives n bytes, as a file's does, if there are as many.

    Args:
        stream: The server's ``wsgi.input``.
        reader: Who is told.
        finish: Called once, when the exchange is over, with the names of the attributes that the
            application has asked for and nobody is told of.
    """

    def __init__(
        self, stream: Any, reader: Reader, finish: Callable[[set[str]], None] | None = None
    ) -> None:
        self._stream = stream
        self._reader: Reader | None = reader
        self._finish = finish
        self._others: set[str] = set()

    def detach(self) -> None:
        """The exchange is over: what is read from now on is told to nobody."""
        self._reader = None
        finish, self._finish = self._finish, None
        if finish is not None:
            finish(self._others)

    def read(self, *args: Any, **keywords: Any) -> bytes:
        """Read bytes."""
        reader = self._reader
        data: bytes = self._call(self._stream.read, *args, **keywords)
        if reader is None:
            return data
        size = _size(args, keywords)
        if size is None or size < 0:
            reader.app_read(len(data), at_end=True)
            return data
        left = reader.left
        if left is None:
            reader.app_read(len(data), at_end=not data and size != 0)
            return data
        wanted = min(size, left)
        if 0 < len(data) < wanted:
            data += b"".join(self._more(self._stream.read, wanted - len(data)))
        reader.app_read(len(data), at_end=len(data) < wanted)
        return data

    def readline(self, *args: Any, **keywords: Any) -> bytes:
        """Read a line."""
        return self._line(self._stream.readline, _size(args, keywords), *args, **keywords)

    def readlines(self, *args: Any, **keywords: Any) -> list[bytes]:
        """Read lines."""
        lines: list[bytes] = self._call(self._stream.readlines, *args, **keywords)
        if self._reader is not None:
            size = sum(map(len, lines))
            hint = _size(args, keywords)
            self._reader.app_read(size, at_end=hint is None or hint <= 0 or size < hint)
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        # PEP 3333 promises no __next__; the streams that servers give are their own iterators.
        line = self._line(lambda: next(iter(self._stream), b""), None)
        if not line:
            raise StopIteration
        return line

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._stream, name)
        if name in ("read1", "readinto", "readinto1"):
            return self._told(attribute)
        self._others.add(name)
        return attribute

    def _line(
        self, read: Callable[..., bytes], size: int | None, *args: Any, **keywords: Any
    ) -> bytes:
        line = self._call(read, *args, **keywords)
        reader = self._reader
        if reader is None:
            return line
        limited = size is not None and size >= 0
        left = reader.left
        if left is None or not line:
            reader.app_read(len(line), at_end=not line and size != 0)
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
                reader.app_read(len(line), at_end=True)
                return line
            line += more
        reader.app_read(len(line), at_end=False)
        return line

    def _more(self, read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
        while size > 0:
            data = self._call(read, size)
            if not data:
                return
            size -= len(data)
            yield data

    def _call(self, read: Callable[..., Result], *args: Any, **keywords: Any) -> Result:
        reader = self._reader
        if reader is None:
            return read(*args, **keywords)
        reader.app_reads()
        try:
            return read(*args, **keywords)
        except Exception as error:
            reader.app_failed(error)
            raise

    def _told(self, read: Callable[..., Any]) -> Callable[..., Any]:
        def told(*args: Any, **keywords: Any) -> Any:
            result = self._call(read, *args, **keywords)
            if self._reader is not None:
                size = result if isinstance(result, int) else len(result or b"")
                # None is what a stream says that has nothing yet.
                at_end = size == 0 and result is not None and _wants_some(args, keywords)
                self._reader.app_read(size, at_end=at_end)
            return result

        return told


def _size(args: tuple[Any, ...], keywords: dict[str, Any]) -> int | None:
    # The standard library's streams name it size, or take it by position only.
    size: int | None = args[0] if args else keywords.get("size")
    return size


def _wants_some(args: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
    wanted: Any = args[0] if args else keywords.get("size")
    if wanted is None or isinstance(wanted, int):
        return wanted != 0
    return len(wanted) > 0
