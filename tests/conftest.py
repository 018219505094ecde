"""Servers that are started once and used by many tests, and the table at the end of a run."""

from __future__ import annotations

import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import pytest

from cleanclose.core import Outlet, Reporter, reset
from example_apps.staging import NginxProxy, ServerProcess, find_program
from tests.support.stacks import Stack

if TYPE_CHECKING:
    from cleanclose.core import SettingsOptions

_POOL_SIZE: Final = 6
_TALLY: Final = "cleanclose-tally"
_LOG_TAIL: Final = 4000
_ALL_STACKS: Final = re.compile(r"^pytestmark = \[?\s*pytest\.mark\.stacks\b", re.MULTILINE)


class _Key(NamedTuple):
    stack: str
    wrapped: bool
    settings: str
    env: str


class ServerPool:
    """The servers that run now. The one that was not asked for the longest makes room."""

    def __init__(self) -> None:
        self._servers: OrderedDict[_Key, ServerProcess] = OrderedDict()
        self._proxies: dict[tuple[int, bool, str], NginxProxy] = {}

    def server(
        self,
        stack: Stack,
        *,
        wrapped: bool,
        settings: SettingsOptions | None,
        env: Mapping[str, str] | None,
    ) -> ServerProcess:
        """A running server of this kind."""
        key = _Key(stack.name, wrapped, json.dumps(settings or {}), json.dumps(env or {}))
        server = self._servers.get(key)
        if server is not None and not server.alive:
            self._end(key)
            server = None
        if server is None:
            while len(self._servers) >= _POOL_SIZE:
                self._end(next(iter(self._servers)))
            server = stack.process(wrapped=wrapped, settings=settings, env=env)
            server.start()
            self._servers[key] = server
        self._servers.move_to_end(key)
        return server

    def proxy(
        self, server: ServerProcess, *, buffering: bool, upstream_http: Literal["1.0", "1.1"]
    ) -> NginxProxy:
        """A running nginx in front of this server."""
        key = (server.port, buffering, upstream_http)
        if key not in self._proxies:
            proxy = NginxProxy(
                server.port, request_buffering=buffering, upstream_http=upstream_http
            )
            proxy.start()
            self._proxies[key] = proxy
        return self._proxies[key]

    def close(self) -> None:
        """Stop everything."""
        for key in list(self._servers):
            self._end(key)

    def _end(self, key: _Key) -> None:
        server = self._servers.pop(key)
        for proxy_key in [known for known in self._proxies if known[0] == server.port]:
            self._proxies.pop(proxy_key).stop()
        server.stop()


class Serve:
    """What a test gets as ``serve``: servers, and a look at their logs when it is over."""

    def __init__(self, pool: ServerPool) -> None:
        self._pool = pool
        self._used: dict[int, tuple[ServerProcess, int, bool]] = {}
        self.tracebacks_allowed = False

    def __call__(
        self,
        stack: Stack,
        *,
        wrapped: bool = True,
        settings: SettingsOptions | None = None,
        env: Mapping[str, str] | None = None,
    ) -> ServerProcess:
        """A server of this kind, which other tests may have used before."""
        server = self._pool.server(stack, wrapped=wrapped, settings=settings, env=env)
        self._used.setdefault(id(server), (server, server.log_size(), wrapped))
        return server

    def behind_nginx(
        self,
        server: ServerProcess,
        *,
        buffering: bool,
        upstream_http: Literal["1.0", "1.1"] = "1.0",
    ) -> NginxProxy:
        """An nginx in front of this server."""
        return self._pool.proxy(server, buffering=buffering, upstream_http=upstream_http)

    def allow_tracebacks(self) -> None:
        """This test makes the app or the server fail on purpose."""
        self.tracebacks_allowed = True

    def logs(self) -> list[tuple[str, str]]:
        """What each server wrote since this test first used it."""
        return [(server.name, server.log_text()[size:]) for server, size, _ in self._used.values()]

    def check(self) -> None:
        """No server has died, and none that is wrapped has printed a traceback."""
        for server, size, wrapped in self._used.values():
            log = server.log_text()[size:]
            assert server.alive, f"{server.name} has died:\n{log[-_LOG_TAIL:]}"
            if wrapped and not self.tracebacks_allowed:
                for sign in ("Traceback (most recent call last)", "--- Logging error ---"):
                    assert sign not in log, f"{server.name} wrote:\n{log[-_LOG_TAIL:]}"


class Tally:
    """What a test gets as ``tally``: a row for the table at the end of the run."""

    def __init__(self, properties: list[tuple[str, object]]) -> None:
        self._properties = properties

    def __call__(
        self, row: str, client: str, *, wrapped: bool, delivered: int, tries: int, note: str = ""
    ) -> None:
        """In this row, so many of so many responses arrived at this kind of client."""
        figures = {"delivered": delivered, "tries": tries, "note": note}
        self._properties.append((_TALLY, [row, client, wrapped, figures]))


@pytest.fixture(autouse=True)
def outlets_raise(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outlet that fails fails the test, but where its failing is the subject."""

    def failed(reporter: Reporter, outlet: Outlet, error: Exception) -> None:
        raise error

    if request.path.name != "test_outlets.py":
        monkeypatch.setattr(Reporter, "_failed", failed)


@pytest.fixture(autouse=True)
def counters_from_zero() -> None:
    """What the tests before have counted in this process is not this one's."""
    reset()


@pytest.fixture(scope="session")
def server_pool() -> Iterator[ServerPool]:
    """The servers of this test process."""
    pool = ServerPool()
    yield pool
    pool.close()


@pytest.fixture
def serve(server_pool: ServerPool) -> Iterator[Serve]:
    """Start servers, or take running ones; afterwards, see that they are well."""
    serve = Serve(server_pool)
    yield serve
    serve.check()


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Put figures into the table at the end of the run."""
    return Tally(request.node.user_properties)


@pytest.fixture(scope="session")
def require_program() -> Callable[[str], str]:
    """Skip, or with ``CLEANCLOSE_REQUIRE_PROGRAMS=1`` fail, where a program is missing."""

    def require(name: str) -> str:
        program = find_program(name)
        if program is not None:
            return program
        reason = f"there is no {name} on this machine"
        if os.environ.get("CLEANCLOSE_REQUIRE_PROGRAMS") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)

    return require


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file that is all ``stacks`` where these are deselected and not installed."""
    if collection_path.suffix != ".py" or "not stacks" not in config.option.markexpr:
        return None
    return _ALL_STACKS.search(collection_path.read_text("utf-8")) is not None or None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files with slow tests come first: at the end, everybody would wait for one of them."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failing test shows what its servers wrote meanwhile."""
    report = yield
    arguments: Mapping[str, object] = getattr(item, "funcargs", {})
    serve = arguments.get("serve")
    if report.failed and isinstance(serve, Serve):
        for name, log in serve.logs():
            if log:
                report.sections.append((f"log of {name}", log[-_LOG_TAIL:]))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Delivered responses, without and with the middleware, side by side."""
    rows: dict[str, dict[str, dict[bool, str]]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) != "call":
                continue
            for name, value in report.user_properties:
                if name == _TALLY:
                    row, client, wrapped, figures = value
                    cell = f"{figures['delivered']}/{figures['tries']}"
                    cell += f" ({figures['note']})" if figures["note"] else ""
                    rows.setdefault(row, {}).setdefault(client, {})[wrapped] = cell
    if not rows:
        return
    terminalreporter.section("responses delivered (bare -> wrapped, - is not tried)")
    width = max(map(len, rows))
    for row, clients in sorted(rows.items()):
        cells = (
            f"{client} {sides.get(False, '-')} -> {sides.get(True, '-')}"
            for client, sides in sorted(clients.items())
        )
        terminalreporter.write_line(f"{row:<{width}}  {'   '.join(cells)}")
