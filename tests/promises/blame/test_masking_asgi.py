"""A client cannot hide an error: whatever an application is at on ASGI when its client leaves.

All constructs and both ways of leaving are tried on one server at the same time, each with its own
``X-Request-ID``, which is in the error.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.harness.apps.noise_asgi import CAME, DONE, WORKS
from tests.harness.asgi_noise import (
    HOWS,
    Observed,
    leave_websocket,
    masking_stack,
    observed,
    together,
)
from tests.harness.constructs import ASGI_SERVERS, BARE_HIDES, NOT_SHOWN, asgi_cases
from tests.harness.leavers import How, leave_at, request

pytestmark = pytest.mark.stacks


def visit(seen: Observed, path: str, how: How) -> None:
    """Come, and leave when the application is about to fail."""
    who = name_of(path, how)
    headers = (("X-Request-ID", who),)
    if path.startswith("/ws/"):
        leave_websocket(seen.port, path, who, how, once=partial(seen.noted, WORKS, who))
    elif path.startswith("/stream/"):
        leave_at(seen.port, request("GET", path, headers=headers), how, read=70000)
    elif path == "/background":
        once = partial(seen.noted, WORKS, who)
        leave_at(seen.port, request("GET", path, headers=headers), how, once=once)
    else:
        head = request("POST", path, length=1000, headers=headers)
        leave_at(seen.port, head, how, body=b"ab", once=partial(seen.noted, CAME, who))


def name_of(path: str, how: How) -> str:
    return f"{path[1:].replace('/', '-')}-{how}"


def let_all_leave(server: str, folder: Path, *, wrapped: bool) -> Mapping[str, int]:
    """Let a client leave in each construct, in both ways.

    Returns:
        How many records at ERROR or above show the application's own error, by the request's id.
    """
    paths = asgi_cases(server)
    names = [name_of(path, how) for path in paths for how in HOWS]
    with observed(masking_stack(server), folder, wrapped=wrapped) as seen:
        jobs: list[Callable[[], None]] = [
            partial(visit, seen, path, how) for path in paths for how in HOWS
        ]
        together(jobs)
        seen.all_have_left()
        for name in names:
            seen.until(partial(seen.noted, DONE, name), f"{name} has not come to its end")
        if wrapped:
            untold = {name_of(path, how) for path in NOT_SHOWN.get(server, ()) for how in HOWS}
            expected = set(names) - untold
            seen.until(
                lambda: expected <= told(seen.records_now(), names).keys(),
                f"untold: {sorted(expected - told(seen.records_now(), names).keys())}",
            )
    return told(seen.records, names)


def told(records: Iterable[Mapping[str, Any]], names: Iterable[str]) -> Counter[str]:
    """How many records tell of each."""
    found: Counter[str] = Counter()
    for record in records:
        if record["level"] >= logging.ERROR:
            text = f"{record['message']}\n{record['traceback']}"
            found.update(name for name in names if f"KeyError: '{name}'" in text)
    return found


@pytest.mark.parametrize("server", ASGI_SERVERS)
def test_what_a_departure_would_hide_is_told_once(server: str, tmp_path: Path) -> None:
    found = let_all_leave(server, tmp_path, wrapped=True)
    untold = NOT_SHOWN.get(server, frozenset())
    assert found == {
        name_of(path, how): 1 for path in asgi_cases(server) if path not in untold for how in HOWS
    }


@pytest.mark.negative_control
@pytest.mark.parametrize(
    "server",
    # Each lets some sixty clients leave, and waits for all of them.
    [ASGI_SERVERS[0], *(pytest.param(each, marks=pytest.mark.full) for each in ASGI_SERVERS[1:])],
)
def test_the_control_what_a_bare_server_does_not_tell(server: str, tmp_path: Path) -> None:
    found = let_all_leave(server, tmp_path, wrapped=False)
    hidden = {
        path for path in asgi_cases(server) if not any(found[name_of(path, how)] for how in HOWS)
    }
    assert hidden == BARE_HIDES[server]
