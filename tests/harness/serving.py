"""Servers that are started once and used by many tests, and rows for the table at the end."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from example_apps import staging
from tests.harness.processes import ServerProcess
from tests.harness.proxies import PROXIES, NginxProxy, Proxy
from tests.harness.stacks import Stack

if TYPE_CHECKING:
    from cleanclose.core import SettingsOptions

_POOL_SIZE: Final = 6
TALLY: Final = "cleanclose-tally"
LOG_TAIL: Final = 4000


class _Key(NamedTuple):
    stack: str
    command: tuple[str, ...]
    wrapped: bool
    settings: str
    env: str


class ServerPool:
    """The servers that run now. The one that was not asked for the longest makes room."""

    def __init__(self, require_program: Callable[[str], str]) -> None:
        self._require_program = require_program
        self._servers: OrderedDict[_Key, ServerProcess] = OrderedDict()
        self._proxies: dict[tuple[int, str], Proxy] = {}

    def server(
        self,
        stack: Stack,
        *,
        wrapped: bool,
        settings: SettingsOptions | None,
        env: Mapping[str, str] | None,
    ) -> ServerProcess:
        """A running server of this kind."""
        key = _Key(
            *(stack.name, stack.command, wrapped),
            *(json.dumps(settings or {}), json.dumps(env or {})),
        )
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

    def proxy(self, server: ServerProcess, name: str, make: Callable[[int], Proxy]) -> Proxy:
        """A running proxy in front of this server, which goes with it."""
        key = (server.port, name)
        if key not in self._proxies:
            proxy = make(server.port)
            for program in proxy.programs:
                self._require_program(program)
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
        self._behind: dict[int, tuple[Proxy, int]] = {}
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

    def behind(
        self, server: ServerProcess, name: str, make: Callable[[int], Proxy] | None = None
    ) -> Proxy:
        """A proxy in front of this server, which other tests may have used before.

        Args:
            server: The server.
            name: One of `tests.harness.proxies.PROXIES`, or another name for what ``make`` gives.
            make: Makes the proxy.
        """
        proxy = self._pool.proxy(server, name, make or PROXIES[name])
        self._behind.setdefault(id(proxy), (proxy, proxy.server.log_size()))
        return proxy

    def behind_nginx(
        self,
        server: ServerProcess,
        *,
        buffering: bool,
        upstream_http: Literal["1.0", "1.1"] = "1.0",
    ) -> Proxy:
        """An nginx in front of this server."""
        make = partial(NginxProxy, request_buffering=buffering, upstream_http=upstream_http)
        return self.behind(server, f"nginx {buffering} {upstream_http}", make)

    def leave_out_what_was_said_by(self, server: ServerProcess) -> None:
        """What this server has written so far is not this test's."""
        _, _, wrapped = self._used[id(server)]
        self._used[id(server)] = (server, server.log_size(), wrapped)

    def allow_tracebacks(self) -> None:
        """This test makes the app or the server fail on purpose."""
        self.tracebacks_allowed = True

    def logs(self) -> list[tuple[str, str]]:
        """What each server and proxy wrote since this test first used it."""
        servers: list[tuple[staging.ServerProcess, int]]
        servers = [(server, size) for server, size, _ in self._used.values()]
        servers += [(proxy.server, size) for proxy, size in self._behind.values()]
        return [(server.name, server.log_text()[size:]) for server, size in servers]

    def check(self) -> None:
        """No server has died, and none that is wrapped has printed a traceback."""
        for server, size, wrapped in self._used.values():
            log = server.log_text()[size:]
            assert server.alive, f"{server.name} has died:\n{log[-LOG_TAIL:]}"
            if wrapped and not self.tracebacks_allowed:
                for sign in ("Traceback (most recent call last)", "--- Logging error ---"):
                    assert sign not in log, f"{server.name} wrote:\n{log[-LOG_TAIL:]}"


class Tally:
    """What a test gets as ``tally``: a row for the table at the end of the run."""

    def __init__(self, properties: list[tuple[str, object]]) -> None:
        self._properties = properties

    def __call__(
        self, row: str, client: str, *, wrapped: bool, delivered: int, tries: int, note: str = ""
    ) -> None:
        """In this row, so many of so many responses arrived at this kind of client."""
        figures = {"delivered": delivered, "tries": tries, "note": note}
        self._properties.append((TALLY, [row, client, wrapped, figures]))
