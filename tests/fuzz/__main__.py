"""Whatever can happen, in any order: the tables, the shims, the wire: ``make fuzz``.

- The state machines of the unit tests, with more examples.
- Each shim with scripts of an application and a server, bare and wrapped.
- Each server, bare and wrapped, with the same bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final

import hypothesis
from rich.console import Console
from rich.table import Table

from tests.fuzz import asgi_shim, tornado_shim, wire, wsgi_shim
from tests.harness import servers_asgi, servers_wsgi
from tests.harness.paths import ROOT
from tests.harness.stacks import SERVERS, Stack

_PARTS: Final = ("tables", "shims", "wire")


def _tables(examples: int) -> bool:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=0"),
            *("-k", "AnyOrder", "tests/unit/core"),
        ],
        cwd=ROOT,
        env={**os.environ, "CLEANCLOSE_EXAMPLES": str(examples)},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode == 0


def _shims(examples: int) -> bool:
    with asyncio.Runner() as runner:
        good = _shim(
            "ASGI", asgi_shim.CONVERSATIONS, lambda it: asgi_shim.check(it, runner), examples
        )
        # On sockets, so a tenth as fast as the others.
        good &= _shim(
            "Tornado",
            tornado_shim.CONVERSATIONS,
            lambda it: tornado_shim.check(it, runner),
            max(examples // 10, 1),
        )
    return _shim("WSGI", wsgi_shim.CONVERSATIONS, wsgi_shim.check, examples) and good


def _shim(name: str, conversations: Any, check: Callable[[Any], None], examples: int) -> bool:
    began = time.monotonic()

    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=(
            hypothesis.HealthCheck.too_slow,
            hypothesis.HealthCheck.data_too_large,
            hypothesis.HealthCheck.filter_too_much,
        ),
    )
    @hypothesis.given(conversations)
    def any_conversation(conversation: Any) -> None:
        check(conversation)

    try:
        any_conversation()
    except AssertionError:
        traceback.print_exc()
        print(f"{name}: a conversation goes wrong", flush=True)
        return False
    print(f"{name}: {examples} conversations, {time.monotonic() - began:.0f} s", flush=True)
    return True


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
    parser.add_argument("--examples", type=int, default=500, help="of each table and shim")
    parser.add_argument("--conversations", type=int, default=100, help="on the wire, per server")
    parser.add_argument("--first", type=int, default=0, help="number of the first conversation")
    parser.add_argument("--seed", type=int, default=None, help="of the wire; default: a new one")
    options = parser.parse_args(arguments)
    parts = options.only or _PARTS
    good = True
    if "tables" in parts:
        good = _tables(options.examples) and good
    if "shims" in parts:
        good = _shims(options.examples) and good
    if "wire" in parts:
        known = stacks()
        chosen = [known[name] for name in options.servers] or list(known.values())
        seed = random.randrange(10**6) if options.seed is None else options.seed
        good = _wire(chosen, options.conversations, seed, options.first) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
