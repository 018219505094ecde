"""Database connections are back in their pool, with no transaction open, when clients have left.

Asked at the server: PostgreSQL says which connections are ``idle in transaction``.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
import uuid
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from tests.harness.brokers import postgresql, postgresql_programs
from tests.harness.scenarios import TRIES
from tests.harness.serving import Serve
from tests.harness.stacks import Stack
from tests.harness.stopping import ASGI, HOWS, Observed
from tests.harness.tap import PATH_VARIABLE
from tests.harness.waiting import until

pytestmark = [pytest.mark.stacks, pytest.mark.slow]

KINDS: Final = ("asyncpg", "psycopg", "sqlalchemy-asyncpg", "sqlalchemy-psycopg")
AT_ONCE: Final = 10
"""All of a pool's connections."""
ROUNDS: Final = 3
DEPARTURES: Final = 1000
"""With the pool that most services have. Each of the others has a tenth of them in each try
(``CLEANCLOSE_TRIES``): a minute for all, and what ten rounds do not lose a hundred do not."""
MOST_USED: Final = "sqlalchemy-asyncpg"
UVICORN: Final[Stack] = replace(
    ASGI[0],
    name="pool-uvicorn",
    command=(*ASGI[0].command[:-1], "tests.harness.apps.pool_asgi:app"),
)


@pytest.fixture(scope="module")
def port(require_program: Callable[[str], str]) -> Iterator[int]:
    """The port of a PostgreSQL."""
    for program in postgresql_programs():
        require_program(program)
    with postgresql() as server:
        yield server.port


class Database:
    """A database of a test's own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.name = f"test_{uuid.uuid4().hex}"
        self._ask(f"CREATE DATABASE {self.name}")

    def in_transaction(self) -> int:
        """How many of its connections are ``idle in transaction``."""
        found: int = self._ask(
            "SELECT count(*) FROM pg_stat_activity"
            f" WHERE datname = '{self.name}' AND state LIKE 'idle in transaction%'"
        )[0]
        return found

    def connections(self) -> int:
        """How many connections to it are open."""
        found: int = self._ask(
            f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{self.name}'"
        )[0]
        return found

    def _ask(self, query: str) -> Any:
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchone() if cursor.description else None


@pytest.fixture
def database(port: int) -> Database:
    """One on this PostgreSQL."""
    return Database(port)


def leave_all(server: Observed, path: str) -> None:
    server.leave_all(path, "rst", [uuid.uuid4().hex for _ in range(AT_ONCE)])


def free(server: Observed, kind: str) -> int:
    pools: Any = server.state()["free"]
    found: int = pools[kind]
    return found


def observed(serve: Serve, database: Database, kind: str, tmp_path: Path, base: str) -> Observed:
    tap = tmp_path / "tap"
    env = {
        PATH_VARIABLE: str(tap),
        "TEST_POSTGRESQL": str(database.port),
        "TEST_DATABASE": database.name,
        "TEST_POOL": kind,
        "TEST_BASE_HTTP": base,
    }
    return Observed(serve(UVICORN, env=env), tap)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["block", "stream-block"])
@pytest.mark.parametrize("base", ["0", "1"])
def test_connections_come_back(
    serve: Serve, database: Database, kind: str, how: str, base: str, tmp_path: Path
) -> None:
    server = observed(serve, database, kind, tmp_path, base)
    for _ in range(ROUNDS):
        leave_all(server, f"/busy/{kind}/{how}")
        until(lambda: free(server, kind) == AT_ONCE, server.state)
        until(lambda: database.in_transaction() == 0)
        assert database.connections() == AT_ONCE
    until(lambda: len(server.events()) == ROUNDS * AT_ONCE, lambda: len(server.events()))
    assert all(event["stopped"] for event in server.events())
    assert server.loud() == []


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_departures_under_load(
    serve: Serve, database: Database, kind: str, tmp_path: Path
) -> None:
    server = observed(serve, database, kind, tmp_path, "1")
    departures = DEPARTURES if kind == MOST_USED else min(DEPARTURES, TRIES * DEPARTURES // 10)
    with asking(server.port, threads=4) as answers:
        for number in range(departures // AT_ONCE):
            how = ("block", "stream-block")[number % 2]
            names = [uuid.uuid4().hex for _ in range(AT_ONCE)]
            server.leave_all(f"/busy/{kind}/{how}", HOWS[number // 2 % 2], names)
            until(lambda: free(server, kind) == AT_ONCE, server.state)
        until(lambda: database.in_transaction() == 0)
        assert database.connections() == AT_ONCE
    until(lambda: len(server.events()) == departures, lambda: len(server.events()))
    assert all(event["stopped"] for event in server.events())
    assert server.loud() == []
    assert answers
    assert set(answers) == {200}


@contextlib.contextmanager
def asking(port: int, *, threads: int) -> Generator[list[int]]:
    """Clients that ask all the time; the statuses of their answers, once they have gone."""
    over = threading.Event()
    answers: list[int] = []

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(connection):
            while not over.is_set():
                connection.request("GET", "/")
                response = connection.getresponse()
                response.read()
                answers.append(response.status)

    with ThreadPoolExecutor(threads) as pool:
        asked = [pool.submit(ask) for _ in range(threads)]
        try:
            yield answers
        finally:
            over.set()
    for each in asked:
        each.result()


@pytest.mark.negative_control
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["anyio", "stream-starlette"])
def test_they_are_lost_where_every_await_is_cancelled(
    serve: Serve, database: Database, kind: str, how: str, tmp_path: Path
) -> None:
    serve.allow_tracebacks()
    server = observed(serve, database, kind, tmp_path, "1")
    leave_all(server, f"/busy/{kind}/{how}")
    until(lambda: len(server.events()) == AT_ONCE, lambda: len(server.events()))
    if kind.startswith("sqlalchemy"):
        # Its pool closes what nobody has given back, when the collector comes across it.
        until(
            lambda: free(server, kind) < AT_ONCE or database.connections() < AT_ONCE, server.state
        )
    else:
        assert free(server, kind) < AT_ONCE
        assert database.in_transaction() > 0
