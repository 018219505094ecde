"""How much a service burns for clients that have left: bare, polling, with a block.

``make demo-stop``, or ``python -m example_apps.llm_demo``.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from example_apps.staging import ServerProcess

ROOT: Final = Path(__file__).resolve().parents[1]
MODES: Final = {
    "bare": "bare",
    "polling": "request.is_disconnected(), behind BaseHTTPMiddleware",
    "block": "async with stop_work()",
}
PATIENCE: Final = 300.0
"""Seconds: bare, all of the work is done, on a busy machine as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Burnt:
    """What one way of doing it burns after its clients have left.

    Args:
        mode: One of `MODES`.
        local_tokens: Tokens of the model in the process.
        cpu_seconds: What they took.
        remote_tokens: Tokens that the other service produced.
    """

    mode: str
    local_tokens: int
    cpu_seconds: float
    remote_tokens: int


def measure(mode: str, *, clients: int, tokens: int) -> Burnt:
    """Have clients ask for tokens and leave, and see what is burnt for them.

    Args:
        mode: One of `MODES`.
        clients: How many for each of the two models.
        tokens: How many tokens each wants.
    """
    with (
        ServerProcess(_command("upstream"), cwd=ROOT, ready_path="/usage", name="upstream") as sold,
        ServerProcess(
            _command("app"),
            env={"LLM_MODE": mode, "LLM_UPSTREAM": f"http://127.0.0.1:{sold.port}"},
            cwd=ROOT,
            ready_path="/usage",
            name=f"llm-{mode}",
        ) as service,
    ):
        before, after = _visit(service.port, "/local", clients, tokens, service.port)
        remote_before, remote_after = _visit(service.port, "/remote", clients, tokens, sold.port)
    return Burnt(
        mode=mode,
        local_tokens=int(after["tokens"] - before["tokens"]),
        cpu_seconds=after["cpu_seconds"] - before["cpu_seconds"],
        remote_tokens=int(remote_after["tokens"] - remote_before["tokens"]),
    )


def table(rows: list[Burnt]) -> Table:
    """The rows, side by side."""
    made = Table(title="Burnt after the clients had left")
    made.add_column("when the client leaves")
    for title in ("tokens here", "CPU seconds", "tokens bought"):
        made.add_column(title, justify="right")
    for row in rows:
        made.add_row(
            MODES[row.mode],
            str(row.local_tokens),
            f"{row.cpu_seconds:.2f}",
            str(row.remote_tokens),
        )
    return made


def _command(app: str) -> tuple[str, ...]:
    return (
        *(sys.executable, "-m", "uvicorn", "--host=127.0.0.1", "--port={port}"),
        *("--no-access-log", "--timeout-graceful-shutdown=1", f"example_apps.llm:{app}"),
    )


def _visit(
    port: int, path: str, clients: int, tokens: int, counted_by: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Come, wait for some tokens to be made, leave; the figures then, and when all is quiet."""
    start = _usage(counted_by)["tokens"]
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(clients)]
    for connection in connections:
        connection.sendall(f"GET {path}?tokens={tokens} HTTP/1.1\r\nHost: demo\r\n\r\n".encode())
    _wait(lambda: _usage(port)["active"] == clients)
    _wait(lambda: _usage(counted_by)["tokens"] >= start + clients)
    before = _usage(counted_by)
    for connection in connections:
        connection.close()
    _wait(lambda: _usage(port)["active"] == 0)
    _wait(lambda: _usage(counted_by)["active"] == 0)
    return before, _usage(counted_by)


def _usage(port: int) -> dict[str, float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/usage")
        found: dict[str, float] = json.load(connection.getresponse())
        return found
    finally:
        connection.close()


def _wait(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError("the services are not quiet")
        time.sleep(0.02)


def main() -> None:
    """Measure all of them and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=4, help="clients for each model")
    parser.add_argument("--tokens", type=int, default=100, help="tokens that each wants")
    arguments = parser.parse_args()
    rows = [measure(mode, clients=arguments.clients, tokens=arguments.tokens) for mode in MODES]
    Console().print(table(rows))


if __name__ == "__main__":
    main()
