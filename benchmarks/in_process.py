"""Requests in one process, to the servers' own callables: what one costs, and what it leaves.

``python -m benchmarks.in_process REQUESTS ASGI`` counts its own instructions, on valgrind.

The samples of what requests there are, ten a second whatever the load, are left out: on valgrind,
where a second has few requests, each of them would be one.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from benchmarks.instructions import Counter, can_count, count
from benchmarks.requests import METHODS, Batch, Method
from benchmarks.rounds import Costs, take_turns

__all__ = ["INTERFACES", "Measured", "compare", "count_garbage"]

INTERFACES: Final = ("ASGI", "WSGI", "Tornado")
_WARM_UP: Final = 100
"""Requests until the interpreter has specialised what it runs, and caches are full."""
_COUNTS: Final = 4
"""Of each batch, and the least is taken: a dictionary may just grow, a loop turn once more."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What requests cost."""

    costs: dict[str, Costs]
    """By interface and method, for example ``"ASGI GET"``."""
    counted: bool
    """Whether the costs are instructions. Else they are nanoseconds of processor time."""


@contextmanager
def _all_batches(only: Sequence[str] = INTERFACES) -> Generator[dict[str, dict[str, Batch]]]:
    with asyncio.Runner() as runner:
        makers = {interface: _maker(interface, runner) for interface in only}
        yield {
            f"{interface} {method}": makers[interface](method)
            for interface in only
            for method in METHODS
        }


def _maker(interface: str, runner: asyncio.Runner) -> Callable[[Method], dict[str, Batch]]:
    # Imported here: a server's process serves one interface, and the other two's classes would
    # displace its own from CPython's cache of attributes.
    match interface:
        case "ASGI":
            from benchmarks import requests_asgi

            return partial(requests_asgi.batches, runner)
        case "WSGI":
            from benchmarks import requests_wsgi

            return requests_wsgi.batches
        case _:
            from benchmarks import requests_tornado

            return partial(requests_tornado.batches, runner)


@contextmanager
def _without_collector() -> Generator[None]:
    # As timeit does: a collection in the middle of one variant would be charged to it.
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def compare(*, rounds: int, requests: int, only: Sequence[str] = INTERFACES) -> Measured:
    """What a request costs, bare and behind two wrappers.

    Args:
        only: The interfaces to look at.
        rounds: How many rounds, where only the time can be measured.
        requests: How many requests a round, or a count, has.
    """
    if can_count():
        return Measured(_counted(requests, only), counted=True)
    with _all_batches(only) as batches, _without_collector():
        return Measured(
            {
                what: take_turns(
                    {name: _timed(batch, requests) for name, batch in variants.items()}, rounds
                )
                for what, variants in batches.items()
            },
            counted=False,
        )


def _timed(batch: Batch, requests: int) -> Callable[[], float]:
    def run() -> float:
        serve = batch(requests)
        started = time.process_time_ns()
        serve()
        return (time.process_time_ns() - started) / requests

    return run


def _counted(requests: int, only: Sequence[str]) -> dict[str, Costs]:
    found: dict[str, dict[str, list[float]]] = {}
    for interface in only:
        counted = count("benchmarks.in_process", [str(requests), interface])
        for name, instructions in counted.items():
            what, variant, _ = name.split(":")
            found.setdefault(what, {}).setdefault(variant, []).append(instructions / requests)
    return {
        f"{interface} {method}": Costs(found[f"{interface} {method}"])
        for interface in only
        for method in METHODS
    }


def _count(requests: int, interface: str) -> None:
    counter = Counter()
    with _all_batches((interface,)) as batches, _without_collector():
        for what, variants in batches.items():
            # All of them before the first is counted: they share the server's code.
            for batch in variants.values():
                batch(_WARM_UP)()
            for name, batch in variants.items():
                for number in range(_COUNTS):
                    counter.count(f"{what}:{name}:{number}", batch(requests))


def count_garbage(method: Method, *, requests: int) -> dict[str, dict[str, float]]:
    """Objects per request that only the cyclic collector could free.

    Args:
        method: The requests' method.
        requests: How many.

    Returns:
        By interface, and by variant.
    """
    with _all_batches() as batches:
        return {
            interface: {
                name: _garbage(batch, requests) / requests
                for name, batch in batches[f"{interface} {method}"].items()
            }
            for interface in INTERFACES
        }


def _garbage(batch: Batch, requests: int) -> int:
    # The first one fills the caches.
    batch(requests)()
    serve = batch(requests)
    with _without_collector():
        serve()
        return gc.collect()


if __name__ == "__main__":
    _count(int(sys.argv[1]), sys.argv[2])
