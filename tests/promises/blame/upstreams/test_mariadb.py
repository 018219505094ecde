"""pymysql and a real MariaDB."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any, Final

import pymysql  # type: ignore[import-untyped]
import pymysql.err  # type: ignore[import-untyped]
import pytest

from tests.harness.endings import assert_untold, assert_upstream, wsgi_ending
from tests.harness.waiting import until

pytestmark = pytest.mark.stacks

KILLED: Final = "killed by an administrator"
there_or_gone: Final = pytest.mark.parametrize("client_left", [False, True], ids=["there", "gone"])


@contextlib.contextmanager
def connected(port: int) -> Generator[Any]:
    """A connection, which may be broken at the end."""
    connection: Any = pymysql.connect(host="127.0.0.1", port=port, user="root")
    try:
        yield connection
    finally:
        if connection.open:
            connection.close()


def query(connection: Any, text: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(text)
        return cursor.fetchall()


def wait_until_gone(port: int, thread: int) -> None:
    """Wait until the server has ended a connection."""
    with connected(port) as admin:
        until(lambda: all(row[0] != thread for row in query(admin, "SHOW PROCESSLIST")))


@there_or_gone
def test_killed_while_idle(mariadb_port: int, client_left: bool) -> None:
    with connected(mariadb_port) as connection:
        thread = connection.thread_id()
        with connected(mariadb_port) as admin:
            query(admin, f"KILL {thread}")
        wait_until_gone(mariadb_port, thread)
        ending = wsgi_ending(lambda: query(connection, "SELECT 1"), client_left=client_left)
        assert_upstream(ending, pymysql.err.OperationalError, "pymysql", cause_of(ending.inside))
        again = wsgi_ending(lambda: query(connection, "SELECT 1"), client_left=client_left)
        assert_upstream(
            again, pymysql.err.InterfaceError, "pymysql", "used after it was lost or closed"
        )


def cause_of(error: BaseException) -> str | None:
    # Whether the reset is there before the query is sent is a race in the kernel.
    return "idle for longer than the server's wait_timeout" if error.args[0] == 2006 else None


def test_idle_for_too_long(mariadb_port: int) -> None:
    with connected(mariadb_port) as connection:
        query(connection, "SET SESSION wait_timeout = 1")
        wait_until_gone(mariadb_port, connection.thread_id())
        ending = wsgi_ending(lambda: query(connection, "SELECT 1"))
        assert_upstream(ending, pymysql.err.OperationalError, "pymysql", cause_of(ending.inside))


def test_killed_by_its_own_query(mariadb_port: int) -> None:
    with connected(mariadb_port) as connection:
        ending = wsgi_ending(lambda: query(connection, "KILL CONNECTION_ID()"))
    assert_upstream(ending, pymysql.err.OperationalError, "pymysql", KILLED)


def never_connected(_: int) -> object:
    with connected(1) as connection:
        return query(connection, "SELECT 1")


def wrong_query(port: int) -> object:
    with connected(port) as connection:
        return query(connection, "SELECT nothing")


def too_slow(port: int) -> object:
    with connected(port) as connection:
        return query(connection, "SET STATEMENT max_statement_time=0.01 FOR SELECT SLEEP(30)")


@pytest.mark.parametrize("call", [never_connected, wrong_query, too_slow])
def test_other_errors_are_not_a_lost_connection(
    mariadb_port: int, call: Callable[[int], object]
) -> None:
    assert_untold(wsgi_ending(lambda: call(mariadb_port)), pymysql.err.OperationalError)
