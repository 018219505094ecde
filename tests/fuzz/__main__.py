"""Whatever can happen, in any order: the tables, the shims, the wire: ``make fuzz``.

- The state machines of the unit tests, with dice in place of hypothesis.
- Each shim with scripts of an application and a server, bare and wrapped.
- Each server, bare and wrapped, with the same bytes.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.fuzz import wire
from tests.fuzz.shims import shims
from tests.fuzz.tables import tables
from tests.harness import servers_asgi, servers_wsgi
from tests.harness.stacks import SERVERS, Stack

_PARTS: Final = ("tables", "shims", "wire")


def stacks() -> dict[str, Stack]:
    """Every server with the application of the fuzzing, by name."""
    rows = (
        *SERVERS,
        *(servers_asgi.raw(row) for row in servers_asgi.OTHERS),
        *servers_wsgi.ROWS,
    )
    return {row.name: wire.fuzzed_stack(row) for row in rows}


def _wire(chosen: Sequence[Stack], conversations: int, seed: int, first: int) -> bool:
    table = Table(title=f"the wire, seed {seed}")
    for column in ("server", "conversations", "a second", "requests run", "wrong", "only once"):
        table.add_column(column)
    good = True
    for stack in chosen:
        found = wire.fuzz(stack, conversations=conversations, seed=seed, first=first)
        table.add_row(
            stack.name,
            str(conversations),
            f"{conversations / found.seconds:.0f}",
            str(found.run),
            str(len(found.wrong)),
            str(found.once.total()),
        )
        print(
            f"{stack.name}: {found.run} requests run in {found.seconds:.0f} s, "
            f"{len(found.wrong)} wrong, only once: {dict(found.once)}",
            flush=True,
        )
        for each in found.wrong[:20]:
            print(f"  {each}", flush=True)
        good = good and not found.wrong
    Console().print(table)
    return good


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz; 1 if anything went wrong.

    Args:
        arguments: The command line.
    """
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("servers", nargs="*", metavar="SERVER", help="for the wire; default: all")
    parser.add_argument("--only", choices=_PARTS, action="append", help="default: all three")
    parser.add_argument("--steps", type=int, default=50_000, help="of each table")
    parser.add_argument("--examples", type=int, default=2000, help="of each shim")
    parser.add_argument("--conversations", type=int, default=100, help="on the wire, per server")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one")
    options = parser.parse_args(arguments)
    parts = options.only or _PARTS
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    good = True
    if "tables" in parts:
        good = tables(options.steps, seed, options.first) and good
    if "shims" in parts:
        good = shims(options.examples, seed, options.first) and good
    if "wire" in parts:
        known = stacks()
        chosen = [known[name] for name in options.servers] or list(known.values())
        good = _wire(chosen, options.conversations, seed, options.first) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
