"""Read logs line by line in bounded memory, compressed ones too."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import BinaryIO, Final, cast

from cleanclose.doctor.output import Trouble

__all__ = ["lines_of", "opened", "size_of"]

_LONGEST: Final = 1 << 18
"""How many bytes of a line to keep; the rest of a longer line is dropped."""
_PEEK: Final = 8192
_GZIP: Final = b"\x1f\x8b"
_REPORT_EVERY: Final = 4096


def size_of(name: str) -> int | None:
    """Find out a file's size in bytes; None where nobody knows it before the end.

    Args:
        name: A path, or ``-``.
    """
    if name == "-":
        return None
    try:
        found = os.stat(name)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


@contextlib.contextmanager
def opened(name: str) -> Generator[BinaryIO]:
    """A log, open for reading.

    Args:
        name: A path, or ``-`` for standard input.

    Raises:
        Trouble: It cannot be read, is empty, or is not text.
    """
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        file = open(name, "rb", buffering=1 << 16)  # noqa: SIM115 - it is closed below
    except OSError as error:
        raise Trouble(f"{name} cannot be read: {error.strerror}.") from error
    with file:
        yield file


def lines_of(
    name: str, file: BinaryIO, progress: Callable[[int], object] | None = None
) -> Iterator[str]:
    """The lines of a log, without their ends.

    Args:
        name: Its name, for the report.
        file: The log, opened for bytes.
        progress: Called now and then, with the number of bytes read so far.

    Raises:
        Trouble: It is empty, is not text, or breaks off.
    """
    reader = cast("io.BufferedReader", file)
    try:
        head = reader.peek(_PEEK)[:_PEEK]
        if not head:
            raise Trouble(f"{_called(name)} is empty: there is nothing to explain.")
        if head.startswith(_GZIP):
            with gzip.open(reader, "rb") as unpacked:
                body = cast(
                    "io.BufferedReader",
                    io.BufferedReader(cast("io.RawIOBase", unpacked), 1 << 16),
                )
                if b"\0" in body.peek(_PEEK)[:_PEEK]:
                    raise _binary(name)
                yield from _lines(body, progress, reader)
            return
        if b"\0" in head:
            raise _binary(name)
        yield from _lines(reader, progress, reader)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Trouble(f"{_called(name)} is damaged: it cannot be unpacked.") from error
    except OSError as error:
        raise Trouble(f"{_called(name)} cannot be read: {error.strerror or error}.") from error


def _binary(name: str) -> Trouble:
    return Trouble(f"{_called(name)} is a binary file, not a log in text or gzip.")


def _called(name: str) -> str:
    return "Standard input" if name == "-" else name


def _lines(
    body: io.BufferedReader, progress: Callable[[int], object] | None, outer: io.BufferedReader
) -> Iterator[str]:
    count = 0
    while raw := body.readline(_LONGEST):
        count += 1
        if progress is not None and count % _REPORT_EVERY == 0:
            progress(outer.tell())
        if len(raw) == _LONGEST and not raw.endswith(b"\n"):
            while (rest := body.readline(_LONGEST)) and not rest.endswith(b"\n"):
                pass
        yield raw.decode("utf-8", "replace").rstrip("\r\n")
