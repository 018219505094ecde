"""How to start a server, and what it asks the kernel for. The command line needs this."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Program"]

_NO_WORDS: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A server as a program.

    Args:
        distribution: The distribution to install; None for the standard library's.
        words: Makes the words that follow the interpreter and start it on loopback. Its arguments:
            the port, the interface (``asgi`` or ``wsgi``), the application (``module:name``) and
            the user's own options. None if it has no command line.
        serve: For a server without a command line: serves the application that its first argument
            makes, on a host and a port. The application is imported when the server asks for it.
        names: The programs and modules by which a process shows that it is this server.
        backlog: The length of the accept queue that it asks the kernel for; None if not known.
        keep_alive: Seconds that it keeps an idle connection open; None if it has no such setting.
        backlog_options: The options that change the backlog.
        keep_alive_options: The options that change ``keep_alive``.
        runs_lifespan: Whether it runs an ASGI application's lifespan.
        hands_out_chunks: Whether it passes bodies without a Content-Length to a WSGI application.
    """

    distribution: str | None
    words: Callable[[int, str, str, Sequence[str]], list[str]] | None = None
    serve: Callable[[Callable[[], Any], str, int], None] | None = None
    names: Sequence[str] = _NO_WORDS
    backlog: int | None = None
    keep_alive: float | None = None
    backlog_options: Sequence[str] = ("--backlog",)
    keep_alive_options: Sequence[str] = _NO_WORDS
    runs_lifespan: bool = True
    hands_out_chunks: bool = True
