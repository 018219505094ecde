"""Let clients hang up on the publisher while RabbitMQ hangs up too, and show who learns what.

``python -m example_apps.publisher_demo``, from the root of the checkout, with rabbitmq-server and
nginx installed. The service is started three times, each behind an nginx of its own: with
Bottle's default, with exceptions let through to the server, and like that with the middleware.
All three lose the same orders to a connection that RabbitMQ has closed after missed heartbeats,
while clients break off their uploads and downloads. Nothing of it is simulated.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Self

from rich import box
from rich.console import Console
from rich.table import Table

from example_apps.staging import NginxProxy, RabbitMq, ServerProcess, StartError

ROOT: Final = Path(__file__).resolve().parent.parent
WIDTH: Final = 116
TITLE: Final = "Orders that RabbitMQ lost, and clients that hung up meanwhile"
HEARTBEAT: Final = 1
"""Seconds. RabbitMQ closes a connection after three of them without a word."""
REPORT_SECONDS: Final = 2.0
PATIENCE: Final = 30.0
CLOSED: Final = "missed heartbeats from client"
"""What RabbitMQ logs when it closes a connection."""

How = Literal["reset", "close"]
HOWS: Final[tuple[How, ...]] = ("reset", "close")

_LINGER_0: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way of running the service."""

    name: str
    catchall: bool
    cleanclose: bool


VARIANTS: Final = (
    Variant(name="bare, Bottle's default", catchall=True, cleanclose=False),
    Variant(name="bare, catchall=False", catchall=False, cleanclose=False),
    Variant(name="wrapped, catchall=False", catchall=False, cleanclose=True),
)


@dataclass(kw_only=True)
class Tally:
    """What came of the scenario on one of them."""

    lost: int = 0
    """Orders that were answered with 500 because their connection was lost."""
    errors: int = 0
    """Those of them for which there is a record of level ERROR from the server."""
    unlabelled: int = 0
    """Those of them for which there is a traceback without a level."""
    hung_up: int = 0
    loud: int = 0
    """Records of WARNING and above, and tracebacks, about the clients that hung up."""
    events: Counter[str] = field(default_factory=Counter[str])
    upstream: str = ""
    """The library and the likely cause, as the event tells them."""

    @property
    def departures(self) -> int:
        """Events about clients that left."""
        return sum(
            count
            for name, count in self.events.items()
            if name in ("client_departed", "response_undelivered", "truncated_upload")
        )

    @property
    def right(self) -> bool:
        """Whether every lost order is an error, and every client that hung up is quiet."""
        return (
            self.errors == self.lost == self.events["upstream_reset"] > 0
            and self.departures == self.hung_up
            and self.loud == 0
            and "missed heartbeats" in self.upstream
        )


class Service:
    """The publisher on gunicorn, with nginx in front of it."""

    def __init__(self, variant: Variant, broker: RabbitMq) -> None:
        self.tally = Tally()
        self._server = ServerProcess(
            (
                *(sys.executable, "-m", "gunicorn", "--bind=127.0.0.1:{port}", "--workers=1"),
                *("--no-control-socket", "example_apps.publisher:make_app()"),
            ),
            cwd=ROOT,
            env={
                "CLEANCLOSE": "1" if variant.cleanclose else "0",
                "PUBLISHER_BROKER": f"{broker.url}?heartbeat={HEARTBEAT}",
                "PUBLISHER_CATCHALL": "1" if variant.catchall else "0",
                "PUBLISHER_REPORT_SECONDS": str(REPORT_SECONDS),
            },
            ready_path="/healthz",
            name="publisher",
        )

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._server)
            # Unbuffered, so that an upload which breaks off reaches the service at all.
            self._proxy = stack.enter_context(
                NginxProxy(self._server.port, request_buffering=False)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def order(self) -> int:
        """Order something; return the status of the answer."""
        before = self._server.log_size()
        status, _ = self._ask("POST", "/orders", json.dumps({"item": "a book"}))
        if status == 500:
            log = self._server.log_text()[before:]
            self.tally.lost += 1
            if "[ERROR] Error handling request POST /orders" in log:
                self.tally.errors += 1
            elif "StreamLostError" in _without_records(log):
                self.tally.unlabelled += 1
            told = re.search(r"event='upstream_reset'.*", log)
            if told is not None:
                fields = dict(re.findall(r"(library|likely_cause)='([^']*)'", told[0]))
                self.tally.upstream = ", ".join(fields.values())
        return status

    def hang_up(self) -> None:
        """Let clients leave: behind nginx and inside of the network, in both directions."""
        before = self._server.log_size()
        order = _head("POST", "/orders", 1000) + b'{"item": "half'
        report = _head("GET", "/report")
        for port in (self._proxy.port, self._server.port):
            for how in HOWS:
                for request, read in ((order, 0), (report, 1000)):
                    _hang_up(port, request, how, read=read)
                    self.tally.hung_up += 1
                    # There is one worker: this is answered behind the other.
                    self._ask("GET", "/healthz")
        log = self._server.log_text()[before:]
        self.tally.loud += len(_LOUD.findall(log))

    def count(self) -> None:
        """Ask for the counters, and put them down by the names of the events."""
        _, body = self._ask("GET", "/counters")
        counters: Mapping[str, float] = json.loads(body)
        found: Counter[str] = Counter()
        for name, value in counters.items():
            match = re.match(r"cleanclose_(departures|truncated_uploads|upstream_resets)_", name)
            if match is not None:
                found[match[1]] += int(value)
        self.tally.events = +Counter(
            {
                "client_departed": found["departures"] - found["truncated_uploads"],
                "truncated_upload": found["truncated_uploads"],
                "upstream_reset": found["upstream_resets"],
            }
        )

    def _ask(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._proxy.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


_LOUD: Final = re.compile(
    r"^(?:\[[^\]]*\] |\d[\d:., -]* )*\[?(?:WARNING|ERROR|CRITICAL)\b|^Traceback", re.MULTILINE
)


def _without_records(log: str) -> str:
    """The log without the records that pika writes by itself, and their tracebacks."""
    kept: list[str] = []
    for line in log.splitlines():
        if re.match(r"\d{4}-", line):
            kept.clear()
        kept.append(line)
    # The last record is in there too, in one line: what stands behind it has no level.
    return "\n".join(kept[1:])


def _head(method: str, path: str, length: int | None = None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: publisher"]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _hang_up(port: int, request: bytes, how: How, *, read: int = 0) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.sendall(request)
        if read:
            while read > 0 and (data := sock.recv(read)):
                read -= len(data)
        else:
            # What was sent has to be in the service: a reset overtakes it on the way.
            time.sleep(0.3)
        if how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)


def run(variants: Sequence[Variant] = VARIANTS, *, rounds: int = 2) -> list[Tally]:
    """Run the scenario on all variants at once, with one broker.

    Args:
        variants: How to run the service.
        rounds: How often RabbitMQ is given the time to close the connections.
    """
    with ExitStack() as stack:
        broker = stack.enter_context(RabbitMq())
        services = [stack.enter_context(Service(variant, broker)) for variant in variants]
        for _ in range(rounds):
            closed = broker.server.log_text().count(CLOSED)
            for service in services:
                _expect(service.order(), 201)
            for service in services:
                service.hang_up()
            _wait_for(broker, closed + len(services))
            for service in services:
                _expect(service.order(), 500)
        for service in services:
            _expect(service.order(), 201)
            service.count()
        return [service.tally for service in services]


def _expect(status: int, expected: int) -> None:
    if status != expected:
        raise StartError(f"an order was answered with {status} instead of {expected}")


def _wait_for(broker: RabbitMq, closed: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while broker.server.log_text().count(CLOSED) < closed:
        if time.monotonic() > deadline:
            raise StartError(f"RabbitMQ keeps its connections:\n{broker.server.log_text()}")
        time.sleep(0.05)


def as_table(variants: Sequence[Variant], tallies: Sequence[Tally]) -> Table:
    """Lay the tallies out, one column for each variant."""
    table = Table(title=TITLE, title_justify="left", title_style="bold", box=box.HORIZONTALS)
    table.add_column("")
    for variant in variants:
        table.add_column(variant.name.replace(", ", ",\n"))
    rows: dict[str, list[str]] = {
        "orders answered with 500: RabbitMQ had closed": [f"{t.lost}" for t in tallies],
        "  … that the server logged as ERROR": [f"{t.errors}" for t in tallies],
        "  … that are a traceback without a level": [f"{t.unlabelled}" for t in tallies],
        "clients that hung up": [f"{t.hung_up}" for t in tallies],
        "  … records at WARNING+ and tracebacks about them": [f"{t.loud}" for t in tallies],
        "events": [
            "\n".join(f"{count} {name}" for name, count in sorted(t.events.items())) or "none"
            for t in tallies
        ],
        "upstream_reset: library, likely cause": [t.upstream or "-" for t in tallies],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it from the command line; the exit code tells whether the middleware got it right."""
    parser = argparse.ArgumentParser(
        prog="python -m example_apps.publisher_demo", description=__doc__
    )
    parser.add_argument("--quick", action="store_true", help="one round instead of two")
    options = parser.parse_args(arguments)
    try:
        tallies = run(rounds=1 if options.quick else 2)
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    # Output that goes to a file or a pipe has no width of its own.
    Console(width=None if sys.stdout.isatty() else WIDTH).print(as_table(VARIANTS, tallies))
    wrapped = [
        tally for variant, tally in zip(VARIANTS, tallies, strict=True) if variant.cleanclose
    ]
    return 0 if all(tally.right for tally in wrapped) else 1


if __name__ == "__main__":
    sys.exit(main())
