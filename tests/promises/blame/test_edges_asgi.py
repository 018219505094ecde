"""What applications do at the edges of ASGI: each departure is one event, and no other one is."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.harness.apps.noise_asgi import DONE, WORKS
from tests.harness.asgi_noise import HOWS, edge_stack, observed, together
from tests.harness.leavers import How, leave, leave_at, request
from tests.harness.waiting import LIMIT

pytestmark = pytest.mark.stacks

WHOLE: Final = (("GET", 200), ("HEAD", 200), ("GET", 204), ("GET", 304))
"""Methods and statuses of responses whose head says how much of a body follows it."""
SERVERS: Final = ("uvicorn-h11", "uvicorn-uvloop", "hypercorn", "gunicorn")


def read_whole(sock: socket.socket, *, length: int) -> None:
    """Read one response, up to the last byte that its head has announced."""
    data = b""
    while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < length:
        piece = sock.recv(65536)
        assert piece, data
        data += piece


def get_all_and_leave(port: int, method: str, status: int, name: str, how: How) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as sock:
        sock.sendall(request(method, f"/whole/{status}", headers=(("X-Request-ID", name),)))
        read_whole(sock, length=5 if (method, status) == ("GET", 200) else 0)
        leave(sock, how)


@pytest.mark.parametrize(
    ("server", "edge"), [*((server, "whole") for server in SERVERS), ("uvicorn-h11", "flask")]
)
def test_who_has_got_all_that_was_announced_has_not_departed(
    server: str, edge: str, tmp_path: Path
) -> None:
    # gunicorn's worker writes no head before the first byte of a body.
    kinds = WHOLE[:1] if edge == "flask" or server == "gunicorn" else WHOLE
    visits: dict[str, tuple[str, int, How]] = {
        f"{method}-{status}-{how}": (method, status, how)
        for method, status in kinds
        for how in HOWS
    }
    with observed(edge_stack(server, edge), tmp_path, wrapped=True) as seen:
        together(
            [
                partial(get_all_and_leave, seen.port, method, status, name, how)
                for name, (method, status, how) in visits.items()
            ]
        )
        for name in visits:
            seen.until(partial(seen.noted, WORKS, name), f"{name} does not work")
        seen.all_have_left()
        for name in visits:
            seen.until(partial(seen.noted, DONE, name), f"{name} has not come to its end")
        assert seen.departures() == 0
    assert seen.events == []
    assert seen.records == []


@pytest.mark.parametrize("edge", ["twice", "mounted", "calling"])
@pytest.mark.parametrize("server", ["uvicorn-h11", "gunicorn"])
def test_a_departure_is_one_event_however_often_the_middleware_stands_there(
    server: str, edge: str, tmp_path: Path
) -> None:
    with observed(edge_stack(server, edge), tmp_path, wrapped=True) as seen:
        head = request("GET", "/poll", headers=(("X-Request-ID", "poll"),))
        leave_at(seen.port, head, "rst", once=partial(seen.noted, WORKS, "poll"))
        seen.until(lambda: "poll" in seen.events_now(), "the departure was not told")
        assert seen.departures() == 1
        assert seen.ask("/seen")["poll"] is True
    assert [event["event"] for event in seen.events] == ["client_departed"]
    assert seen.records == []
