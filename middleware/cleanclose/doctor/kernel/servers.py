"""Read a server's backlog and its keep-alive timeout off its command line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from types import MappingProxyType
from typing import Final

from cleanclose.servers import ROOMS, Program

__all__ = ["SERVERS", "ServerSettings", "settings_of"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ServerSettings:
    """A server, as far as its command line shows it.

    Args:
        server: Its name.
        backlog: The length of the accept queue that it asks the kernel for.
        keep_alive: Seconds that it keeps an idle connection open; None if it has no such setting.
        from_defaults: Which of the two settings its command line lacks: their values are its
            defaults, unless a configuration file or a variable changes them.
    """

    server: str
    backlog: int | None
    keep_alive: float | None
    from_defaults: Sequence[str]


SERVERS: Final[Mapping[str, Program]] = MappingProxyType(
    {
        room.package: room.program
        for room in ROOMS
        if room.program is not None and room.program.names
    }
)
"""The servers that this module recognises by their command lines."""

_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {name: server for server, program in SERVERS.items() for name in program.names}
)


def settings_of(command: Sequence[str]) -> ServerSettings | None:
    """Read a server's settings off its command line.

    Args:
        command: The words. Programs that rename their processes, like gunicorn, leave one long
            word.

    Returns:
        The settings; None if it is not a server in `SERVERS`.
    """
    words = [word for each in command for word in each.split(" ")] if len(command) == 1 else command
    name = _server_name(words)
    if name is None:
        return None
    server = SERVERS[name]
    backlog = _option(words, server.backlog_options)
    keep_alive = _option(words, server.keep_alive_options)
    missing = [
        setting
        for setting, found, default in (
            ("backlog", backlog, server.backlog),
            ("keep_alive", keep_alive, server.keep_alive),
        )
        if found is None and default is not None
    ]
    return ServerSettings(
        server=name,
        backlog=server.backlog if backlog is None else int(backlog),
        keep_alive=server.keep_alive if keep_alive is None else keep_alive,
        from_defaults=tuple(missing),
    )


def _server_name(words: Sequence[str]) -> str | None:
    # The interpreter, `-m`, and the program: a later word may be anything.
    for word in words[:4]:
        stem = re.sub(r"(\.exe|\.py|:)+$", "", PurePath(word).name)
        if stem in _NAMES:
            return _NAMES[stem]
        parent = PurePath(word).parent.name
        if stem == "__main__" and parent in _NAMES:
            return _NAMES[parent]
    return None


def _option(words: Sequence[str], names: Sequence[str]) -> float | None:
    found: float | None = None
    for at, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name not in names:
            continue
        if not equals:
            value = words[at + 1] if at + 1 < len(words) else ""
        if re.fullmatch(r"\d+(\.\d+)?", value):
            found = float(value)
    return found
