"""Who writes to another client's websocket has an error of its own when that one has left."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.harness.apps.noise_asgi import WORKS
from tests.harness.asgi_noise import (
    Observed,
    leave_websocket,
    module_stack,
    observed,
    said_by,
)

pytestmark = pytest.mark.stacks

SERVERS: Final = ("uvicorn-h11", "uvicorn-httptools", "uvicorn-uvloop", "gunicorn", "hypercorn")
TAKES_ALL: Final = frozenset({"hypercorn"})
"""Servers which take what they cannot send: nothing fails there."""
CUTS_OFF: Final = frozenset({"uvicorn-uvloop"})
"""Servers which raise what they say of another's connection from that one's error: Python then
prints no context, and an error which was being handled is not shown, bare neither."""
WAYS: Final = ("raw", "starlette")
LOST: Final = frozenset({"ClientDisconnected", "WebSocketDisconnect", "WebSocketDisconnected"})


def broadcast(
    server: str, path: str, folder: Path, *, wrapped: bool
) -> tuple[list[bytes], Sequence[tuple[str, str | None]], Observed]:
    """Let a client come and leave, and another one post, in each of the ways.

    Returns:
        The statuses that the other one got, the loggers and errors of the records, and all else.
    """
    statuses: list[bytes] = []
    stack = module_stack(server, "broadcasting_asgi")
    with observed(stack, folder, wrapped=wrapped) as seen:
        for by in WAYS:
            here = partial(seen.noted, WORKS, by)
            leave_websocket(seen.port, "/chat", by, "rst", once=here)
            statuses.append(said_by(seen.port, f"{path}?by={by}")[9:12])
        seen.all_have_left()
    return statuses, seen.errors(), seen


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("path", ["/post", "/post-hiding", "/task"])
def test_who_posts_is_told_of_its_own_error(server: str, path: str, tmp_path: Path) -> None:
    bare_statuses, bare_errors, _ = broadcast(server, path, tmp_path, wrapped=False)
    statuses, errors, seen = broadcast(server, path, tmp_path, wrapped=True)
    assert (statuses, errors) == (bare_statuses, bare_errors)
    # Who is there has not left; each of the others is one departure.
    assert [event["event"] for event in seen.events] == ["client_departed"] * len(WAYS)
    assert {event["phase"] for event in seen.events} == {"websocket"}
    fails = server not in TAKES_ALL
    assert len(errors) == len(WAYS) * (fails or path == "/post-hiding")
    if path == "/post-hiding" and server not in CUTS_OFF:
        assert all("KeyError: 'order'" in record["traceback"] for record in seen.records)
    else:
        assert all(error in LOST for _, error in errors)
    answered = path == "/task" or (path == "/post" and not fails)
    assert statuses == [b"200" if answered else b"500"] * len(WAYS)


@pytest.mark.parametrize("server", ["uvicorn-h11", "gunicorn"])
def test_a_task_from_before_the_first_request_is_heard(server: str, tmp_path: Path) -> None:
    for wrapped in (False, True):
        folder = tmp_path / str(wrapped)
        folder.mkdir()
        with observed(module_stack(server, "broadcasting_asgi"), folder, wrapped=wrapped) as seen:
            here = partial(seen.noted, WORKS, "chat")
            leave_websocket(seen.port, "/chat", "chat", "rst", once=here)
            assert said_by(seen.port, "/lifespan-task?by=raw")[9:12] == b"200"
            seen.all_have_left()
        assert [logger for logger, _ in seen.errors()] == ["asyncio"]
