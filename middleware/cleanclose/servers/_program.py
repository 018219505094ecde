"""How a server is started, and what it asks the kernel for: what the command line needs to know."""

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
        distribution: What has to be installed; None for the standard library's.
        words: Makes the words behind the interpreter that start it on loopback: of the port, the
            interface (``asgi`` or ``wsgi``), the application (``module:name``) and the user's own
            options. None if it has no command line.
        serve: Serves on a host and a port what its first argument makes, if it has no command
            line: the application is imported when the server wants it.
        names: By which programs and modules a process shows that it is this server.
        backlog: How long an accept queue it asks the kernel for; None if that is not known.
        keep_alive: Seconds that it keeps an idle connection open; None if it has no such setting.
        backlog_options: The options that change the backlog.
        keep_alive_options: The options that change the other one.
        runs_lifespan: Whether it runs an ASGI application's lifespan.
        hands_out_chunks: Whether a WSGI application gets bodies without a Content-Length.
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
