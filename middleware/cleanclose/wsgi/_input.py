"""The application's own reading of ``wsgi.input``, noticed and otherwise untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

__all__ = ["CountingInput"]

Result = TypeVar("Result")


class _After(Protocol):
    def __call__(self, size: int, *, at_end: bool) -> object: ...


class CountingInput:
    """A ``wsgi.input`` which tells before and after each reading.

    Args:
        stream: The server's ``wsgi.input``.
        before: Called before a reading.
        after: Called with the number of bytes, and whether the stream was found at its end.
        failed: Called with the exception that a reading raised; it is raised all the same.
    """

    def __init__(
        self,
        stream: Any,
        before: Callable[[], None],
        after: _After,
        failed: Callable[[Exception], object],
    ) -> None:
        self._stream = stream
        self._before = before
        self._after = after
        self._failed = failed

    def read(self, *args: Any, **keywords: Any) -> bytes:
        """Read bytes."""
        data: bytes = self._call(self._stream.read, *args, **keywords)
        size = _size(args, keywords)
        to_end = size is None or size < 0
        self._after(len(data), at_end=to_end or (not data and size != 0))
        return data

    def readline(self, *args: Any, **keywords: Any) -> bytes:
        """Read a line."""
        line: bytes = self._call(self._stream.readline, *args, **keywords)
        self._after(len(line), at_end=not line and _size(args, keywords) != 0)
        return line

    def readlines(self, *args: Any, **keywords: Any) -> list[bytes]:
        """Read lines."""
        lines: list[bytes] = self._call(self._stream.readlines, *args, **keywords)
        self._after(sum(map(len, lines)), at_end=not lines or not _size(args, keywords))
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        # PEP 3333 promises no __next__; the streams that servers give are their own iterators.
        line: bytes | None = self._call(next, iter(self._stream), None)
        self._after(len(line or b""), at_end=line is None)
        if line is None:
            raise StopIteration
        return line

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._stream, name)
        if name in ("read1", "readinto", "readinto1"):
            return self._counted(attribute)
        return attribute

    def _call(self, read: Callable[..., Result], *args: Any, **keywords: Any) -> Result:
        self._before()
        try:
            return read(*args, **keywords)
        except Exception as error:
            self._failed(error)
            raise

    def _counted(self, read: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **keywords: Any) -> Any:
            result = self._call(read, *args, **keywords)
            self._after(result if isinstance(result, int) else len(result or b""), at_end=False)
            return result

        return counted


def _size(args: tuple[Any, ...], keywords: dict[str, Any]) -> int | None:
    # The standard library's streams name it size, or take it by position only.
    size: int | None = args[0] if args else keywords.get("size")
    return size
