"""The group of commands. It imports a command's module only when somebody uses the command."""

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
            "Say who probably caused the resets in a log.",
        ),
        "kernel": _Entry(
            "cleanclose.doctor.kernel.command",
            "Say which resets the kernel made, and why (Linux).",
        ),
    }
)
"""The commands. In each module the `click.Command` is named ``command``."""


class LazyGroup(click.Group):
    """A group that knows its commands by name, so that help needs no imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order that help shows."""
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
        """Run a command. A reader of its output that has left (``| head``) is not a finding.

        click itself would exit with status 1 then, before anybody else could notice.
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
    epilog="Exit status: 0 clean, 1 findings, 2 failure.",
)
@click.version_option(package_name="cleanclose")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw the output as an SVG.",
)
@click.pass_context
def cli(ctx: click.Context, picture: Path | None) -> None:
    """Show who causes connection resets, why they happen, and what to change."""
    if picture is not None:
        record_pictures()
        words = [word for word in sys.argv[1:] if word != str(picture)]
        words = [word for word in words if not word.startswith("--picture")]
        ctx.call_on_close(lambda: save_picture(picture, " ".join(["cleanclose", *words])))


def run(arguments: Sequence[str]) -> int:
    """Run the command line, and return the status that the process should exit with.

    Args:
        arguments: The words that follow the program's name.

    Returns:
        The status. The message of a failure has gone to standard error by then.
    """
    try:
        # A command returns its status, or ends with `Context.exit`, whose status this returns.
        status = cli.main(args=list(arguments), prog_name="cleanclose", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else EXIT_CLEAN
    except click.ClickException as error:
        error.show()
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped before it was done.", err=True)
    except Exception:  # noqa: BLE001 - Python would exit with 1, which means findings
        traceback.print_exc()
        click.echo("This is a defect of cleanclose itself: please report it.", err=True)
    return EXIT_TROUBLE
