"""The application's own reading of ``wsgi.input``, noticed and otherwise untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

__all__ = ["CountingInput"]


class _Count(Protocol):
    def __call__(self, size: int, *, at_end: bool) -> object: ...


class CountingInput:
    """A ``wsgi.input`` which tells before and after each reading.

    Args:
        stream: The server's ``wsgi.input``.
        before: Called before a reading.
        after: Called with the number of bytes, and whether the stream was found at its end.
    """

    def __init__(self, stream: Any, before: Callable[[], None], after: _Count) -> None:
        self._stream = stream
        self._before = before
        self._after = after

    def read(self, *args: Any) -> bytes:
        """Read bytes."""
        return self._taken(self._stream.read, args, to_end=not args or _is_all(args[0]))

    def readline(self, *args: Any) -> bytes:
        """Read a line."""
        return self._taken(self._stream.readline, args, to_end=False)

    def readlines(self, *args: Any) -> list[bytes]:
        """Read lines."""
        self._before()
        lines: list[bytes] = self._stream.readlines(*args)
        self._after(sum(map(len, lines)), at_end=not args or not lines)
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._before()
        try:
            line: bytes = next(self._lines())
        except StopIteration:
            self._after(0, at_end=True)
            raise
        self._after(len(line), at_end=False)
        return line

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._stream, name)
        if name in ("read1", "readinto", "readinto1"):
            return self._counted(attribute)
        return attribute

    def _lines(self) -> Iterator[bytes]:
        # PEP 3333 promises __iter__ only; the streams that servers give are their own iterators.
        return iter(self._stream)

    def _taken(self, read: Callable[..., bytes], args: Any, *, to_end: bool) -> bytes:
        self._before()
        data = read(*args)
        empty = not data and not (args and args[0] == 0)
        self._after(len(data), at_end=to_end or empty)
        return data

    def _counted(self, read: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            self._before()
            result = read(*args)
            size = result if isinstance(result, int) else len(result or b"")
            self._after(size, at_end=False)
            return result

        return counted


def _is_all(size: object) -> bool:
    return size is None or (isinstance(size, int) and size < 0)
