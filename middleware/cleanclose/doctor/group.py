"""The group of the commands. A command's module is imported when the command is used."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import click

from cleanclose.doctor.output import (
    EXIT_CLEAN,
    EXIT_TROUBLE,
    discard_output,
    record_pictures,
    save_picture,
)

__all__ = ["cli", "run"]


class _Entry(NamedTuple):
    module: str
    help: str


COMMANDS: Final[Mapping[str, _Entry]] = MappingProxyType(
    {
        "doctor": _Entry(
            "cleanclose.doctor.application.command",
            "Try an application, or an address, with clients that leave.",
        ),
        "explain": _Entry(
            "cleanclose.doctor.explain.command",
            "Say whose the resets in a log were likely to be.",
        ),
        "kernel": _Entry(
            "cleanclose.doctor.kernel.command",
            "Say which resets the kernel made, and why (Linux).",
        ),
    }
)
"""The commands. Each module calls its `click.Command` ``command``."""


class LazyGroup(click.Group):
    """A group that knows its commands by their names, so that help needs no imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order in which help shows them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is no such command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        found = importlib.import_module(entry.module).command
        assert isinstance(found, click.Command)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. If its reader has left (``| head``), that is not a finding.

        click itself would end with 1 then, before anybody else hears of it.
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            discard_output()
            ctx.exit(EXIT_TROUBLE)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 clean, 1 findings, 2 could not run.",
)
@click.version_option(package_name="cleanclose")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw the output as an SVG.",
)
@click.pass_context
def cli(ctx: click.Context, picture: Path | None) -> None:
    """Show whose connection resets are, why they happen, and what to change."""
    if picture is not None:
        record_pictures()
        words = [word for word in sys.argv[1:] if word != str(picture)]
        words = [word for word in words if not word.startswith("--picture")]
        ctx.call_on_close(lambda: save_picture(picture, " ".join(["cleanclose", *words])))


def run(arguments: Sequence[str]) -> int:
    """Run the command line, and say with which status the process should end.

    Args:
        arguments: The words behind the name of the program.

    Returns:
        The status. The message of a failure is on standard error by then.
    """
    try:
        # A command returns its status, or ends by `Context.exit`, whose status this returns.
        status = cli.main(args=list(arguments), prog_name="cleanclose", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else EXIT_CLEAN
    except click.ClickException as error:
        error.show()
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped before it was done.", err=True)
    except Exception:  # noqa: BLE001 - status 1, which Python ends with, means findings
        traceback.print_exc()
        click.echo("This is a defect of cleanclose itself: please report it.", err=True)
    return EXIT_TROUBLE
