"""psycopg, sync and async, and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import psycopg
import psycopg.errors
import pytest
from psycopg import sql

from tests.harness.endings import asgi_ending, assert_untold, assert_upstream, wsgi_ending
from tests.harness.processes import ServerProcess
from tests.harness.waiting import until

pytestmark = pytest.mark.stacks

ADMIN: Final = "ended by an administrator, or the server is stopping"
there_or_gone: Final = pytest.mark.parametrize("client_left", [False, True], ids=["there", "gone"])


def connect(port: int, **options: str) -> psycopg.Connection:
    """A connection; the options are set on it."""
    set_options = " ".join(f"-c {name}={value}" for name, value in options.items())
    return psycopg.connect(
        host="127.0.0.1", port=port, user="postgres", dbname="postgres", options=set_options
    )


def end(port: int, process: int) -> None:
    """Let the server end a connection, and wait until it has."""
    with connect(port) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 10000)", [process])


def wait_until_gone(port: int, process: int) -> None:
    """Wait until the server has ended a connection by itself."""
    with connect(port) as admin:
        admin.autocommit = True
        there = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
        until(lambda: admin.execute(there, [process]).fetchone() is None)


@there_or_gone
def test_ended_while_idle(postgresql_port: int, client_left: bool) -> None:
    with connect(postgresql_port) as connection:
        end(postgresql_port, connection.info.backend_pid)
        ending = wsgi_ending(lambda: connection.execute("SELECT 1"), client_left=client_left)
        assert_upstream(ending, psycopg.errors.AdminShutdown, "psycopg", ADMIN)
        again = wsgi_ending(lambda: connection.execute("SELECT 1"), client_left=client_left)
        assert_upstream(again, psycopg.OperationalError, "psycopg")


@there_or_gone
def test_ended_while_idle_async(postgresql_port: int, client_left: bool) -> None:
    async def call() -> None:
        connection = await psycopg.AsyncConnection.connect(
            host="127.0.0.1", port=postgresql_port, user="postgres", dbname="postgres"
        )
        async with connection:
            end(postgresql_port, connection.info.backend_pid)
            await connection.execute("SELECT 1")

    ending = asgi_ending(call, client_left=client_left)
    assert_upstream(ending, psycopg.errors.AdminShutdown, "psycopg", ADMIN)


@pytest.mark.parametrize(
    ("option", "begin", "error"),
    [
        ("idle_session_timeout", False, psycopg.errors.IdleSessionTimeout),
        (
            "idle_in_transaction_session_timeout",
            True,
            psycopg.errors.IdleInTransactionSessionTimeout,
        ),
    ],
)
def test_idle_for_too_long(
    postgresql_port: int, option: str, begin: bool, error: type[BaseException]
) -> None:
    with connect(postgresql_port, **{option: "100"}) as connection:
        if begin:
            connection.execute("SELECT 1")
        wait_until_gone(postgresql_port, connection.info.backend_pid)
        ending = wsgi_ending(lambda: connection.execute("SELECT 1"))
    cause = f"idle for longer than the server's {option}"
    assert_upstream(ending, error, "psycopg", cause)


def test_broken_off_without_a_word(postgresql_to_break: ServerProcess) -> None:
    with connect(postgresql_to_break.port) as connection:
        # A process that does not get to say good-bye: the query ends its own connection.
        query = sql.SQL("COPY (SELECT 1) TO PROGRAM {}").format(
            f"kill -9 {connection.info.backend_pid}"
        )
        ending = wsgi_ending(lambda: connection.execute(query))
    assert_upstream(ending, psycopg.OperationalError, "psycopg")


def never_connected(_: int) -> object:
    return psycopg.connect(host="127.0.0.1", port=1, user="postgres")


def wrong_query(port: int) -> object:
    with connect(port) as connection:
        return connection.execute("SELECT 1/0")


def cancelled(port: int) -> object:
    with connect(port, statement_timeout="10") as connection:
        return connection.execute("SELECT pg_sleep(30)")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (never_connected, psycopg.OperationalError),
        (wrong_query, psycopg.errors.DivisionByZero),
        (cancelled, psycopg.errors.QueryCanceled),
    ],
)
def test_other_errors_are_not_a_lost_connection(
    postgresql_port: int, call: Callable[[int], object], error: type[BaseException]
) -> None:
    assert_untold(wsgi_ending(lambda: call(postgresql_port)), error)
