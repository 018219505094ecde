"""Run the matrix: every server bare and wrapped, every client, every case."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import json
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

from cleanclose.doctor.wire import Fault
from tests.harness.apps import routes
from tests.harness.processes import ServerProcess, StartError, find_program
from tests.harness.proxies import (
    ApacheProxy,
    CaddyProxy,
    EnvoyProxy,
    H2oProxy,
    HaproxyProxy,
    LighttpdProxy,
    NginxProxy,
    SquidProxy,
    TraefikProxy,
    VarnishProxy,
)
from tests.harness.stacks import Stack
from tests.matrix.cases import Case
from tests.matrix.drivers import Client, Driver, DriverError, Workshop
from tests.matrix.servers import certified, missing

__all__ = ["DIRECT", "PROXIES", "Matrix", "Plan", "Result", "Way", "judge"]

Kind = Literal["delivered", "lost", "wrong", "hung", "unsupported", "not here"]
"""What came of an upload. ``lost``: no answer, or not all of it. ``wrong``: another answer, or
more than one. ``unsupported``: this client or this server has no such request."""

Next = Literal["same connection", "new connection", "failed"]
"""What came of the GET behind it."""

_OK_DIGEST: Final = hashlib.sha256(routes.OK_BODY).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a client gets to the server: by itself or through a proxy."""

    name: str
    program: str | None = None
    quick: bool = True
    """Whether a quick run takes it, too."""
    open: Callable[[int], contextlib.AbstractContextManager[Any]] | None = None

    def __str__(self) -> str:
        return self.name


DIRECT: Final = Way(name="direct")
PROXIES: Final = (
    Way(name="nginx", program="nginx", open=NginxProxy),
    Way(
        name="nginx unbuffered",
        program="nginx",
        open=partial(NginxProxy, request_buffering=False, upstream_http="1.1"),
    ),
    Way(name="HAProxy", program="haproxy", open=HaproxyProxy),
    Way(name="Caddy", program="caddy", open=CaddyProxy),
    *(
        Way(name=name, program=make.PROGRAM, open=make, quick=False)
        for name, make in (
            ("Traefik", TraefikProxy),
            ("Envoy", EnvoyProxy),
            ("Squid", SquidProxy),
            ("Apache", ApacheProxy),
            ("Varnish", VarnishProxy),
            ("lighttpd", LighttpdProxy),
            ("H2O", H2oProxy),
        )
    ),
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One upload: a line of the JSON file."""

    server: str
    wrapped: bool
    way: str
    client: str
    case: str
    kind: Kind
    told: str = ""
    """What the client said, if the answer did not arrive."""
    resets: int = 0
    """How many errors its connections gave it that say that the server cut one."""
    next: Next | None = None
    faults: str = ""
    """What else was wrong with the bytes or the end of its connection."""
    seconds: float = 0.0

    @property
    def counts(self) -> bool:
        """Whether there was an upload at all."""
        return self.kind not in ("unsupported", "not here")

    @property
    def good(self) -> bool:
        """Whether everything arrived, in good order."""
        well = self.kind == "delivered" and self.next != "failed"
        return well and not self.resets and not self.faults

    def as_json(self) -> str:
        """The line; what is as it should be is left out."""
        values = {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if value not in ("", 0, None) or name == "wrapped"
        }
        return json.dumps(values, ensure_ascii=False)


def judge(case: Case, answer: Mapping[str, Any]) -> dict[str, Any]:
    """What an answer of a driver means: the fields of a `Result`."""
    if "unsupported" in answer:
        return {"kind": "unsupported", "told": answer["unsupported"]}
    if "hung" in answer:
        return {"kind": "hung", "told": answer["hung"]}
    first: Mapping[str, Any] = answer["first"]
    faults: Sequence[str] = answer.get("faults") or ()
    seen: dict[str, Any] = {
        "resets": len(answer.get("resets") or ()),
        "faults": ", ".join(faults),
        "told": "",
    }
    if first.get("error"):
        return {**seen, "kind": "lost", "told": first["error"]}
    if first["status"] != case.scenario.status:
        return {**seen, "kind": "wrong", "told": f"status {first['status']}"}
    if first.get("digest") != case.digest:
        return {**seen, "kind": "lost", "told": f"{first.get('length', 0)} bytes of the answer"}
    if Fault.UNEXPECTED_RESPONSE in faults:
        return {**seen, "kind": "wrong", "told": "more than one answer"}
    seen["kind"] = "delivered"
    following: Mapping[str, Any] | None = answer.get("next")
    if following is not None:
        if (following.get("status"), following.get("digest")) == (200, _OK_DIGEST):
            seen["next"] = "same connection" if answer.get("reused") else "new connection"
        else:
            told = following.get("error") or f"status {following.get('status')}"
            seen.update(next="failed", told=f"next request: {told}")
    return seen


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be run."""

    servers: Sequence[Stack]
    uploads: Sequence[tuple[Way, Client, Case]]
    tries: int = 1
    workers: int = 2
    bare_seconds: float = 4.0
    """How long an upload to a bare server may take: some never end."""
    wrapped_seconds: float = 8.0

    def seconds(self, case: Case, *, wrapped: bool) -> float:
        """How long an upload may take."""
        limit = self.wrapped_seconds if wrapped else self.bare_seconds
        return limit * (3 if case.large else 1)


@dataclass(kw_only=True)
class Matrix:
    """One run of a plan.

    Args:
        plan: What to run.
        advance: Called with a text as the work goes on, and whether an upload is done.
    """

    plan: Plan
    advance: Callable[[str, bool], None] = lambda text, done: None
    results: list[Result] = field(default_factory=list[Result])
    absent: dict[str, str] = field(default_factory=dict[str, str])
    """What is not here, and why: servers, clients, proxies."""
    problems: list[str] = field(default_factory=list[str])
    """Servers that did not start, or did not answer in the end."""
    versions: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._drivers: list[Driver] = []
        self._idle: list[Mapping[str, Driver]] = []

    @property
    def total(self) -> int:
        """The number of uploads."""
        return 2 * len(self.plan.servers) * len(self.plan.uploads) * self.plan.tries

    def run(self) -> None:
        """Run it all. An exception, KeyboardInterrupt included, leaves no process behind."""
        self.advance("making the clients", False)
        self._workshop = Workshop()
        try:
            self._workshop.build({client.driver for _, client, _ in self.plan.uploads})
            self._look_around()
            # The pairs side by side, so that both see the machine in the same state.
            units = [(stack, wrapped) for stack in self.plan.servers for wrapped in (False, True)]
            with ThreadPoolExecutor(self.plan.workers) as pool:
                try:
                    self._wait([pool.submit(self._unit, *unit) for unit in units])
                finally:
                    # Leaving the pool waits for its threads, so they have to be on their way out.
                    self._stopped.set()
                    pool.shutdown(wait=False, cancel_futures=True)
                    for driver in list(self._drivers):
                        driver.close()
        finally:
            self._stopped.set()
            for driver in self._drivers:
                driver.stop()
            self._workshop.close()
        order = {key: number for number, key in enumerate(self._in_order())}
        self.results.sort(key=lambda result: order[_key(result)])

    def _in_order(self) -> Iterator[tuple[str, bool, str, str, str]]:
        for stack in self.plan.servers:
            for wrapped in (False, True):
                for way, client, case in self.plan.uploads:
                    yield stack.name, wrapped, way.name, client.name, case.name

    @staticmethod
    def _wait(futures: list[Future[None]]) -> None:
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()

    def _look_around(self) -> None:
        """Find out what is here, and which version it is."""
        for name, reason in self._workshop.missing.items():
            for client in self._clients(name):
                self.absent[client.name] = reason
        for name, command in self._workshop.commands.items():
            driver = Driver(command, self._workshop.folder)
            try:
                driver.start()
                greeting = driver.hello
            except DriverError as error:
                greeting = {"missing": {c.name: str(error) for c in self._clients(name)}}
            finally:
                driver.stop()
            used = {client.name for client in self._clients(name)}
            for client, reason in greeting.get("missing", {}).items():
                if client in used:
                    self.absent[client] = reason
            for client, version in greeting.get("versions", {}).items():
                if client in used:
                    self.versions[client] = version
        for way in {way.name: way for way, _, _ in self.plan.uploads}.values():
            if way.program is not None and find_program(way.program) is None:
                self.absent[way.name] = f"there is no {way.program} on this machine"
        for stack in self.plan.servers:
            lacking = missing(stack)
            if lacking is not None:
                self.absent[stack.name] = lacking

    def _clients(self, driver: str) -> list[Client]:
        found = {client.name: client for _, client, _ in self.plan.uploads}
        return [client for client in found.values() if client.driver == driver]

    @contextlib.contextmanager
    def _clients_of_mine(self) -> Generator[Mapping[str, Driver]]:
        """A set of driver processes. They stay for the next server: Java takes seconds to start."""
        with self._lock:
            if self._idle:
                drivers = self._idle.pop()
            else:
                drivers = {
                    name: Driver(command, self._workshop.folder)
                    for name, command in self._workshop.commands.items()
                }
                self._drivers += drivers.values()
        try:
            yield drivers
        finally:
            with self._lock:
                self._idle.append(drivers)

    def _unit(self, stack: Stack, wrapped: bool) -> None:
        """All uploads to one server, bare or wrapped."""
        if self._stopped.is_set():
            return None
        side = f"{stack.name}, {'wrapped' if wrapped else 'bare'}"
        if stack.name in self.absent:
            return self._skip(stack, wrapped, self.absent[stack.name])
        self.advance(f"{side}: starting", False)
        with contextlib.ExitStack() as running:
            drivers = running.enter_context(self._clients_of_mine())
            try:
                chosen = certified(stack, self._workshop.certificate)
                server = chosen.process(wrapped=wrapped)
                # What it still waits for then is nobody's any more.
                server.stop_seconds = 0.5
                running.enter_context(server)
            except StartError as error:
                self.problems.append(f"{side} did not start: {str(error)[-300:]}")
                return self._skip(stack, wrapped, "did not start")
            self._uploads(stack, wrapped, server, drivers, running)
            if not self._stopped.is_set() and self._smuggled(stack, server) is None:
                self.problems.append(f"{side} does not answer any more")
        return None

    def _uploads(
        self,
        stack: Stack,
        wrapped: bool,
        server: ServerProcess,
        drivers: Mapping[str, Driver],
        running: contextlib.ExitStack,
    ) -> None:
        ports = {DIRECT.name: server.port}
        smuggled = 0
        for way, client, case in self.plan.uploads:
            result = partial(
                Result,
                server=stack.name,
                wrapped=wrapped,
                way=way.name,
                client=client.name,
                case=case.name,
            )
            absent = self.absent.get(client.name) or self.absent.get(way.name)
            if absent is not None:
                self._add(result(kind="not here", told=absent), self.plan.tries)
                continue
            if stack.tls and (way is not DIRECT or not client.tls):
                self._add(result(kind="unsupported", told="no TLS here"), self.plan.tries)
                continue
            if way.open is not None and way.name not in ports:
                ports[way.name] = running.enter_context(way.open(server.port)).port
            limit = self.plan.seconds(case, wrapped=wrapped)
            job = case.job(client.name, ports[way.name], limit, tls=stack.tls)
            text = f"{stack.name}, {'wrapped' if wrapped else 'bare'}: {client} {case}"
            for _ in range(self.plan.tries):
                if self._stopped.is_set():
                    return
                self.advance(text if way is DIRECT else f"{text} behind {way}", False)
                begun = time.monotonic()
                try:
                    # Its own time-out comes first, where it has one.
                    answer = drivers[client.driver].ask(job, limit + 3)
                except DriverError as error:
                    answer = {"hung": str(error)}
                if not self._stopped.is_set():
                    verdict = judge(case, answer)
                    seconds = round(time.monotonic() - begun, 2)
                    count = self._smuggled(stack, server)
                    if count is not None and count > smuggled:
                        verdict["kind"] = "wrong"
                        verdict["told"] = f"its body was taken for {count - smuggled} requests"
                        smuggled = count
                    self._add(result(**verdict, seconds=seconds))

    def _skip(self, stack: Stack, wrapped: bool, reason: str) -> None:
        for way, client, case in self.plan.uploads:
            self._add(
                Result(
                    server=stack.name,
                    wrapped=wrapped,
                    way=way.name,
                    client=client.name,
                    case=case.name,
                    kind="not here",
                    told=reason,
                ),
                self.plan.tries,
            )

    def _add(self, result: Result, times: int = 1) -> None:
        with self._lock:
            self.results.append(result)
        for _ in range(times):
            self.advance("", True)

    def _smuggled(self, stack: Stack, server: ServerProcess) -> int | None:
        """How many pieces of bodies the application was given as requests, if it answers."""
        address = f"{server.url}{routes.SEEN}"
        context: ssl.SSLContext | None = None
        if stack.tls:
            address = address.replace("http:", "https:", 1)
            context = self._workshop.certificate.context()
        try:
            with urllib.request.urlopen(address, timeout=5, context=context) as response:
                seen: dict[str, int] = json.load(response)
        except (OSError, ValueError, http.client.HTTPException):
            return None
        return seen["smuggled"]


def _key(result: Result) -> tuple[str, bool, str, str, str]:
    return result.server, result.wrapped, result.way, result.client, result.case
