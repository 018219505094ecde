"""What the commands share: where they write, how they fail, and how they end.

People get tables on standard output; programs get one JSON document there, and nothing else.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn, cast

import click
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI

__all__ = [
    "EXIT_CLEAN",
    "EXIT_FINDINGS",
    "EXIT_TROUBLE",
    "Trouble",
    "console",
    "print_json",
    "print_json_line",
    "record_pictures",
    "save_picture",
]

EXIT_CLEAN: Final = 0
"""The command did all its work, and found nothing."""
EXIT_FINDINGS: Final = 1
"""Something was found."""
EXIT_TROUBLE: Final = 2
"""The command could not do its work."""

PICTURE_WIDTH: Final = 92
"""Columns of a picture. Fewer would break the addresses in tables in two."""


class Trouble(click.ClickException):
    """The command cannot do its work.

    Args:
        message: One sentence for the user: the mistake and, if there is one, the remedy.
    """

    exit_code = EXIT_TROUBLE


class _Console(Console):
    """A console whose reader may leave (``| head``); that does not look like a finding."""

    def on_broken_pipe(self) -> NoReturn:
        self.quiet = True
        discard_output()
        raise SystemExit(EXIT_TROUBLE)


@dataclasses.dataclass(slots=True)
class _Recorder:
    wanted: bool = False
    recorded: Console | None = None


_recorder: Final = _Recorder()


def console(json: bool) -> Console:
    """Make the console that a command writes to.

    rich finds out colour and width: no colour where ``NO_COLOR`` is set or output is no terminal,
    and 80 columns without a terminal.

    Args:
        json: Whether standard output is for a JSON document: then this console writes progress and
            remarks to standard error.
    """
    if json:
        return _Console(stderr=True)
    if not _recorder.wanted:
        return _Console()
    made = _recorder.recorded or _Console(
        record=True, width=PICTURE_WIDTH, color_system="truecolor", force_terminal=False
    )
    _recorder.recorded = made
    return made


def record_pictures() -> None:
    """Let every console made from now on record its output for `save_picture`."""
    _recorder.wanted = True
    _recorder.recorded = None


def save_picture(path: Path, title: str) -> None:
    """Draw what the console has shown as an SVG.

    Args:
        path: The file to write.
        title: The picture's title: the command line.

    Raises:
        Trouble: The file cannot be written.
    """
    recorded, _recorder.wanted, _recorder.recorded = _recorder.recorded, False, None
    if recorded is None:
        click.echo("This run drew no picture: it showed nothing for people.", err=True)
        return
    svg = recorded.export_svg(title=title, theme=DIMMED_MONOKAI, unique_id=path.stem)
    # Viewing the picture must not load fonts from anywhere.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    try:
        path.write_text(svg, encoding="utf-8")
    except OSError as error:
        raise Trouble(f"The picture cannot be written to {path}: {error.strerror}.") from error


def print_json(obj: object) -> None:
    """Print one JSON document: keys sorted, two spaces, ASCII.

    Args:
        obj: Mappings, sequences, dataclasses, enums (their values), dates (ISO 8601), plain values.

    Raises:
        TypeError: It has something else in it.
        ValueError: It has a number in it that JSON cannot express.
    """
    _write(json.dumps(_plain(obj), indent=2, sort_keys=True, allow_nan=False))


def print_json_line(obj: object) -> None:
    """Print one JSON document on one line, at once: for commands that go on and on.

    Args:
        obj: As for `print_json`.
    """
    _write(json.dumps(_plain(obj), sort_keys=True, allow_nan=False))
    sys.stdout.flush()


def discard_output() -> None:
    """Discard all further output: nobody reads it any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _write(text: str) -> None:
    click.echo(text)


def _plain(obj: object) -> Any:
    # The two type checkers disagree about the type that isinstance() gives a container.
    anything = cast("Any", obj)
    if isinstance(obj, enum.Enum):
        return _plain(obj.value)
    if isinstance(obj, datetime):
        return obj.isoformat()
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {each.name: _plain(getattr(obj, each.name)) for each in dataclasses.fields(obj)}
    if isinstance(obj, Mapping):
        return {str(_plain(key)): _plain(value) for key, value in anything.items()}
    if isinstance(obj, set | frozenset):
        return sorted((_plain(each) for each in anything), key=str)
    if isinstance(obj, Sequence) and not isinstance(obj, str | bytes):
        return [_plain(each) for each in anything]
    return obj
