"""Files that WSGI servers send by themselves, as their ``wsgi.file_wrapper`` hands them out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

__all__ = ["file_in_pieces", "is_servers_file", "teller"]

FILE_PIECE: Final = 32 * 1024
"""Bytes that uWSGI reads at once from a file that it cannot send by its number."""


def is_servers_file(result: object, environ: Mapping[str, Any]) -> bool:
    """Whether a response is of the server's own class for files, which it sends without us.

    Args:
        result: The application's response.
        environ: The environ.
    """
    wrapper: object = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(result, wrapper)


def file_in_pieces(result: Any, environ: Mapping[str, Any]) -> Any:
    """A response to iterate over, in place of a file that the server's wrapper has left as a file.

    Args:
        result: The application's response.
        environ: The environ.

    Returns:
        The same response where it is none.
    """
    wrapper: object = environ.get("wsgi.file_wrapper")
    if wrapper is None or isinstance(wrapper, type) or not hasattr(result, "read"):
        return result
    return _FilePieces(result)


class _FilePieces:
    """A file in pieces, as the server itself would have sent it.

    uWSGI's ``wsgi.file_wrapper`` gives the file back, and remembers it. Nobody else would know that
    it should not be read by lines, because one line may be the whole file.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        return iter(functools.partial(self._file.read, FILE_PIECE), b"")

    def close(self) -> None:
        """Close the file."""
        close: Callable[[], object] | None = getattr(self._file, "close", None)
        if close is not None:
            close()


def teller(wrapper: Any) -> Callable[[], int | None]:
    """A function that says how far a server has come with its wrapped file; None without one.

    Args:
        wrapper: What the server's ``wsgi.file_wrapper`` has made.
    """
    # The first name is wsgiref's and gunicorn's, the other one Werkzeug's and waitress's.
    file: Any = getattr(wrapper, "filelike", None) or getattr(wrapper, "file", None)

    def tell() -> int | None:
        try:
            at: object = file.tell()
        except (AttributeError, OSError, ValueError):
            return None
        return at if isinstance(at, int) else None

    return tell
