"""The console script: what it says of itself, and how it ends."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pytest

from cleanclose.doctor import output
from cleanclose.doctor.group import COMMANDS
from tests.harness.command import cleanclose

MAIN = "from cleanclose.doctor.main import main; main()"


SYSTEM: Final = "import sys, sysconfig; sysconfig.get_config_vars(); "
"""What the standard library asks of the system once, and would not find on another one."""


def run(
    *arguments: str, before: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    if not before:
        return cleanclose(*arguments, more=env)
    return subprocess.run(
        [sys.executable, "-c", before + MAIN, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "80"},
    )


def test_help_fits_a_screen_and_names_every_command() -> None:
    told = run("--help")
    assert told.returncode == 0
    lines = told.stdout.splitlines()
    assert len(lines) <= 24
    assert all(len(line) <= 80 for line in lines)
    for name in COMMANDS:
        assert f"  {name} " in told.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_fits_a_screen(command: str) -> None:
    told = run(command, "-h")
    assert told.returncode == 0
    lines = told.stdout.splitlines()
    assert len(lines) <= 24
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra(missing: str) -> None:
    hide = f"import sys; sys.modules[{missing!r}] = None; "
    told = run("kernel", before=hide)
    assert told.returncode == 2
    assert told.stderr.count("\n") == 1
    assert "pip install 'cleanclose[doctor]'" in told.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("--nothing",),
        ("kernel", "--watch", "--trace"),
        ("kernel", "--events", "setup.cfg"),
        ("kernel", "--port", "70000"),
        ("kernel", "--fail-on", "nothing"),
    ],
)
def test_wrong_words(arguments: tuple[str, ...]) -> None:
    told = run(*arguments)
    assert told.returncode == 2
    assert "Error: " in told.stderr
    assert "Traceback" not in told.stderr


def test_not_linux() -> None:
    told = run("kernel", before=f"{SYSTEM}sys.platform = 'darwin'; ")
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith("Error: The kernel's figures are those of Linux")
    assert told.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc/net")
def test_where_proc_is_hidden() -> None:
    hide = (
        "import pathlib; from cleanclose.core import kernel; "
        "kernel._COUNTER_FILES = (); "
        "from cleanclose.doctor.kernel import figures; figures._PROC = pathlib.Path('/nowhere'); "
    )
    told = run("kernel", before=hide)
    assert told.returncode == 2
    assert "/proc/net is hidden here" in told.stderr
    assert told.stderr.count("\n") == 1


def test_a_defect_of_ours_is_no_finding() -> None:
    broken = "from cleanclose.doctor.kernel import command; command.look = lambda: 1 / 0; "
    told = run("kernel", before=broken)
    assert told.returncode == 2
    assert "please report it" in told.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_before_it_was_done(number: signal.Signals) -> None:
    # It stops itself where it would wait: no time passes that a test could miss.
    stop = f"import os, signal, time; time.sleep = lambda _: os.kill(os.getpid(), {int(number)}); "
    told = run("kernel", before=stop)
    assert told.returncode == 2
    assert told.stderr.strip() == "Stopped before it was done."


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these figures")
@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["tables", "json"])
def test_a_reader_that_has_left_is_no_finding(arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        told = subprocess.run(
            [sys.executable, "-c", MAIN, "kernel", "--seconds=0.1", *arguments],
            check=False,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    finally:
        os.close(writing)
    assert (told.returncode, told.stderr) == (2, "")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("cleanclose kernel --wa", {"plain,--watch"}),
        ("cleanclose ex", {"plain,explain"}),
        ("cleanclose doctor --server uv", {"plain,uvicorn"}),
        ("cleanclose doctor --fail-on ", {"plain,error", "plain,never", "plain,warning"}),
        # The shell itself knows the files.
        ("cleanclose explain /var/log/sh", {"file,/var/log/sh"}),
    ],
)
def test_shell_completion(words: str, offered: set[str]) -> None:
    told = run(
        env={
            "_CLEANCLOSE_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
    )
    assert set(told.stdout.splitlines()) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_their_completion(shell: str) -> None:
    """What the page has people put into their shell's own file."""
    # click asks bash for its version, and has a word on standard error if it is missing or old.
    told = run(env={"_CLEANCLOSE_COMPLETE": f"{shell}_source"})
    assert told.returncode == 0
    assert f"_CLEANCLOSE_COMPLETE={shell}_complete" in told.stdout


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass(frozen=True)
class Thing:
    name: str
    colour: Colour


def test_json_of_what_commands_have(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json(
        {
            "thing": Thing("ä", Colour.RED),
            "at": datetime(2026, 1, 2, tzinfo=UTC),
            Colour.RED: MappingProxyType({1: (None, True)}),
            "set": frozenset({"b", "a"}),
        }
    )
    text = capsys.readouterr().out
    assert text.isascii()
    found = json.loads(text)
    assert list(found) == sorted(found)
    assert found == {
        "at": "2026-01-02T00:00:00+00:00",
        "red": {"1": [None, True]},
        "set": ["a", "b"],
        "thing": {"colour": "red", "name": "ä"},
    }
    output.print_json_line({"b": 1, "a": 2})
    assert capsys.readouterr().out == '{"a": 2, "b": 1}\n'
    with pytest.raises(ValueError, match="Out of range"):
        output.print_json({"a": float("nan")})


def test_a_picture_is_what_was_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "shown.svg"
    output.record_pictures()
    output.console(json=False).print("what is shown")
    output.save_picture(path, "cleanclose kernel")
    svg = path.read_text("utf-8")
    assert "what&#160;is&#160;shown" in svg
    # It must not load fonts from somewhere when it is looked at.
    assert "@font-face" not in svg
    output.save_picture(path, "cleanclose kernel")
    assert "no picture" in capsys.readouterr().err
    output.record_pictures()
    output.console(json=False).print("what is shown")
    with pytest.raises(output.Trouble, match="cannot be written"):
        output.save_picture(tmp_path / "nowhere" / "a.svg", "cleanclose kernel")
