"""Pools of connections to a real PostgreSQL: what they say themselves is no upstream's reset."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import psycopg
import psycopg.errors
import psycopg_pool
import pytest
import sqlalchemy
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolIsEmpty
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from tests.harness.endings import asgi_ending, assert_untold, assert_upstream, wsgi_ending
from tests.harness.waiting import until

pytestmark = pytest.mark.stacks

# It has no types.
asyncpg: Final[Any] = importlib.import_module("asyncpg")

ADMIN: Final = "ended by an administrator, or the server is stopping"
SHORT: Final = 0.1
"""Seconds that a pool waits for a connection which nobody gives back."""
PROCESS: Final = "SELECT pg_backend_pid()"
there_or_gone: Final = pytest.mark.parametrize("client_left", [False, True], ids=["there", "gone"])


def end(port: int, process: int) -> None:
    """Let the server end a connection, and wait until it has."""
    with psycopg.connect(
        host="127.0.0.1", port=port, user="postgres", dbname="postgres"
    ) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 10000)", [process])


Pool = psycopg_pool.ConnectionPool[psycopg.Connection]


@pytest.fixture
def pool(postgresql_port: int) -> Iterator[Pool]:
    """A pool of psycopg's with one connection, and room for one who waits."""
    info = f"host=127.0.0.1 port={postgresql_port} user=postgres dbname=postgres"
    with Pool(info, min_size=1, max_size=1, max_waiting=1, timeout=SHORT, open=False) as made:
        made.wait(30)
        yield made


@there_or_gone
def test_nobody_has_given_one_back(pool: Pool, client_left: bool) -> None:
    with pool.connection():
        ending = wsgi_ending(lambda: pool.getconn(timeout=SHORT), client_left=client_left)
    assert_untold(ending, psycopg_pool.PoolTimeout)


@there_or_gone
def test_the_pool_is_closed(pool: Pool, client_left: bool) -> None:
    pool.close()
    ending = wsgi_ending(pool.getconn, client_left=client_left)
    assert_untold(ending, psycopg_pool.PoolClosed)


@there_or_gone
def test_too_many_wait(pool: Pool, client_left: bool) -> None:
    ended: list[BaseException] = []

    def one_too_many() -> object:
        def first() -> None:
            try:
                pool.getconn(timeout=30)
            except psycopg_pool.PoolClosed as error:
                ended.append(error)

        waits = threading.Thread(target=first)
        waits.start()
        try:
            until(lambda: pool.get_stats().get("requests_waiting") == 1, pool.get_stats)
            return pool.getconn(timeout=SHORT)
        finally:
            pool.close()
            waits.join()

    with pool.connection():
        ending = wsgi_ending(one_too_many, client_left=client_left)
    assert_untold(ending, psycopg_pool.TooManyRequests)
    assert len(ended) == 1


@there_or_gone
def test_a_connection_of_a_pool_is_killed(
    pool: Pool, postgresql_port: int, client_left: bool
) -> None:
    def call() -> None:
        with pool.connection() as connection:
            end(postgresql_port, connection.info.backend_pid)
            connection.execute("SELECT 1")

    ending = wsgi_ending(call, client_left=client_left)
    assert_upstream(ending, psycopg.errors.AdminShutdown, "psycopg", ADMIN)


@pytest.fixture(params=["psycopg", "psycopg2"])
def engine(request: pytest.FixtureRequest, postgresql_port: int) -> Iterator[sqlalchemy.Engine]:
    """SQLAlchemy's own pool with one connection."""
    url = f"postgresql+{request.param}://postgres@127.0.0.1:{postgresql_port}/postgres"
    made = sqlalchemy.create_engine(url, pool_size=1, max_overflow=0, pool_timeout=SHORT)
    yield made
    made.dispose()


@there_or_gone
def test_sqlalchemys_pool_is_empty(engine: sqlalchemy.Engine, client_left: bool) -> None:
    with engine.connect():
        ending = wsgi_ending(engine.connect, client_left=client_left)
    assert_untold(ending, PoolIsEmpty)


@there_or_gone
def test_a_connection_of_sqlalchemys_is_killed(
    engine: sqlalchemy.Engine, postgresql_port: int, client_left: bool
) -> None:
    def call() -> None:
        with engine.connect() as connection:
            end(postgresql_port, connection.execute(sqlalchemy.text(PROCESS)).scalar_one())
            connection.execute(sqlalchemy.text("SELECT 1"))

    ending = wsgi_ending(call, client_left=client_left)
    assert isinstance(ending.inside, DBAPIError)
    # The driver has lost its connection, and the event names the driver. psycopg2 passes on no
    # word of the server's here.
    cause = None if engine.driver == "psycopg2" else ADMIN
    assert_upstream(ending, type(ending.inside), engine.driver, cause)


def async_engine(port: int) -> AsyncEngine:
    return create_async_engine(
        f"postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres",
        pool_size=1,
        max_overflow=0,
        pool_timeout=SHORT,
    )


async def execute(connection: AsyncConnection, query: str) -> int:
    found: int = (await connection.execute(sqlalchemy.text(query))).scalar_one()
    return found


@there_or_gone
def test_sqlalchemys_pool_around_asyncpg_is_empty(postgresql_port: int, client_left: bool) -> None:
    async def call() -> None:
        made = async_engine(postgresql_port)
        try:
            async with made.connect(), made.connect():
                pass
        finally:
            await made.dispose()

    assert_untold(asgi_ending(call, client_left=client_left), PoolIsEmpty)


@there_or_gone
def test_a_connection_of_sqlalchemys_around_asyncpg_is_killed(
    postgresql_port: int, client_left: bool
) -> None:
    async def call() -> None:
        made = async_engine(postgresql_port)
        try:
            async with made.connect() as connection:
                end(postgresql_port, await execute(connection, PROCESS))
                await execute(connection, "SELECT 1")
        finally:
            await made.dispose()

    ending = asgi_ending(call, client_left=client_left)
    assert isinstance(ending.inside, DBAPIError)
    assert_upstream(ending, type(ending.inside), "asyncpg", ADMIN)


@there_or_gone
def test_asyncpgs_own_pool(postgresql_port: int, client_left: bool) -> None:
    async def with_pool(work: Callable[[Any], Any]) -> None:
        async with asyncpg.create_pool(
            host="127.0.0.1",
            port=postgresql_port,
            user="postgres",
            database="postgres",
            min_size=1,
            max_size=1,
        ) as made:
            await work(made)

    async def is_empty(made: Any) -> None:
        async with made.acquire(), made.acquire(timeout=SHORT):
            pass

    async def is_killed(made: Any) -> None:
        async with made.acquire() as connection:
            end(postgresql_port, connection.get_server_pid())
            await connection.fetch("SELECT 1")

    empty = asgi_ending(lambda: with_pool(is_empty), client_left=client_left)
    assert_untold(empty, TimeoutError)
    killed = asgi_ending(lambda: with_pool(is_killed), client_left=client_left)
    assert_upstream(killed, type(killed.inside), "asyncpg", ADMIN)
