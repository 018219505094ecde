"""Conversations with each shim, by number: which goes wrong, and the simplest that still does.

Many of them take place at once on one loop: most wait for time-outs and for turns of the loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, cast

from tests.fuzz import asgi_shim, tornado_shim, wsgi_shim
from tests.fuzz.dice import drawn

__all__ = ["SHIMS", "Shim", "conversation_of", "shims"]


@dataclass(frozen=True)
class Shim:
    """What is played with."""

    name: str
    conversations: Any
    check: Callable[[Sequence[Any], asyncio.Runner], None]
    at_once: int
    share: int
    """One of so many examples: those on sockets are a tenth as fast as the others."""


SHIMS: Final = (
    Shim("ASGI", asgi_shim.CONVERSATIONS, asgi_shim.check, 64, 1),
    Shim("Tornado", tornado_shim.CONVERSATIONS, tornado_shim.check, 24, 10),
    Shim("WSGI", wsgi_shim.CONVERSATIONS, wsgi_shim.check, 64, 1),
)


def conversation_of(shim: Shim, seed: int, number: int) -> Any:
    """The conversation of this name.

    Args:
        shim: Whose.
        seed: Of all of them.
        number: Which one.
    """
    return drawn(shim.conversations)(Random(f"{shim.name}-{seed}-{number}"))


def shims(examples: int, seed: int, first: int = 0, only: Sequence[str] = ()) -> bool:
    """Have so many conversations with each shim; whether all go well.

    Args:
        examples: How many.
        seed: Of all of them.
        first: The number of the first one.
        only: The names of shims; none means all of them.
    """
    good = True
    with asyncio.Runner() as runner:
        for shim in SHIMS:
            if not only or shim.name in only:
                last = first + max(examples // shim.share, 1)
                good = _some(shim, seed, range(first, last), runner) and good
    return good


def _some(shim: Shim, seed: int, numbers: range, runner: asyncio.Runner) -> bool:
    began = time.monotonic()
    draw = drawn(shim.conversations)
    wrong = 0
    for start in range(0, len(numbers), shim.at_once):
        few = numbers[start : start + shim.at_once]
        conversations = [draw(Random(f"{shim.name}-{seed}-{number}")) for number in few]
        error = _error(shim, conversations, runner)
        if error is not None:
            wrong += 1
            _explain(shim, f"{shim.name} {seed}-{few[0]}", conversations, error, runner)
            if wrong == 5:
                return False
    seconds = max(time.monotonic() - began, 1e-3)
    print(
        f"{shim.name}: {len(numbers)} conversations, {seconds:.0f} s, "
        f"{len(numbers) / seconds:.0f} a s, {wrong} batches with something wrong",
        flush=True,
    )
    return not wrong


def _error(shim: Shim, conversations: Sequence[Any], runner: asyncio.Runner) -> str | None:
    try:
        shim.check(conversations, runner)
    except Exception:  # noqa: BLE001 - whatever it raises is a finding
        return traceback.format_exc()
    return None


def _explain(
    shim: Shim, name: str, conversations: Sequence[Any], error: str, runner: asyncio.Runner
) -> None:
    """Print the first conversation that goes wrong alone, as simple as it can be."""
    for place, conversation in enumerate(conversations):
        if _error(shim, [conversation], runner) is None:
            continue
        simple = _simplest(shim, conversation, runner)
        error = _error(shim, [simple], runner) or error
        print(f"{name}, the one after {place} others: {simple}\n{error}", flush=True)
        return
    print(f"{name} goes wrong among others, and none of them alone:\n{error}", flush=True)


def _simplest(shim: Shim, conversation: Any, runner: asyncio.Runner) -> Any:
    for simpler in _simpler(conversation):
        if _error(shim, [simpler], runner) is not None:
            return _simplest(shim, simpler, runner)
    return conversation


def _simpler(conversation: Any) -> Iterator[Any]:
    for each in dataclasses.fields(conversation):
        value: Any = getattr(conversation, each.name)
        match value:
            case tuple():
                parts = cast("tuple[object, ...]", value)
                for place in range(len(parts)):
                    fewer = (*parts[:place], *parts[place + 1 :])
                    yield dataclasses.replace(conversation, **{each.name: fewer})
            case True:
                yield dataclasses.replace(conversation, **{each.name: False})
            case int() if each.name in ("cancel_at", "write_fails", "closes_at"):
                yield dataclasses.replace(conversation, **{each.name: None})
            case _:
                pass
