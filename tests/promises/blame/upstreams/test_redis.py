"""redis-py, sync and async, and a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Generator
from typing import Any, Final

import pytest
import redis
import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.harness.endings import asgi_ending, assert_untold, assert_upstream, wsgi_ending
from tests.harness.processes import ServerProcess

pytestmark = pytest.mark.stacks

there_or_gone: Final = pytest.mark.parametrize("client_left", [False, True], ids=["there", "gone"])


# The types of its methods are known in parts.
make: Final[Any] = redis.Redis
make_async: Final[Any] = redis.asyncio.Redis


def connected(port: int) -> Any:
    """A client with one connection, which does not try again by itself."""
    return make(port=port, retry=Retry(NoBackoff(), 0), single_connection_client=True)


def kill(port: int, client_id: int) -> None:
    """Let Redis close the connection of a client."""
    with make(port=port) as admin:
        assert admin.execute_command("CLIENT", "KILL", "ID", client_id) == 1


@there_or_gone
def test_killed_while_idle(redis_port: int, client_left: bool) -> None:
    with connected(redis_port) as client:
        kill(redis_port, client.client_id())
        ending = wsgi_ending(lambda: client.get("order"), client_left=client_left)
    assert_upstream(ending, redis.exceptions.ConnectionError, "redis")


def test_killed_while_waiting(redis_port: int) -> None:
    with connected(redis_port) as client, killed_once_blocked(redis_port, client.client_id()):
        ending = wsgi_ending(lambda: client.blpop(["nothing"], timeout=30))
    assert_upstream(ending, redis.exceptions.ConnectionError, "redis")


@contextlib.contextmanager
def killed_once_blocked(port: int, client_id: int) -> Generator[None]:
    """Close a client's connection as soon as a command of its waits."""

    def watch() -> None:
        with make(port=port) as admin:
            while not any(
                int(each["id"]) == client_id and "b" in each["flags"]
                for each in admin.client_list()
            ):
                if done.wait(0.01):
                    return
            kill(port, client_id)

    done = threading.Event()
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@there_or_gone
def test_killed_while_waiting_async(redis_port: int, client_left: bool) -> None:
    async def call() -> object:
        async with make_async(
            port=redis_port, retry=AsyncRetry(NoBackoff(), 0), single_connection_client=True
        ) as client:
            client_id: int = await client.client_id()
            with killed_once_blocked(redis_port, client_id):
                return await client.execute_command("BLPOP", "nothing", 30)

    ending = asgi_ending(call, client_left=client_left)
    assert_upstream(ending, redis.exceptions.ConnectionError, "redis")


def test_stopped(redis_to_stop: ServerProcess) -> None:
    # As it is by default: it tries again, and the last word is that the connection is refused.
    with make(port=redis_to_stop.port) as client:
        client.ping()
        redis_to_stop.stop()
        ending = wsgi_ending(lambda: client.get("order"))
    assert " connecting to " in str(ending.inside)
    assert_upstream(ending, redis.exceptions.ConnectionError, "redis")


def test_stopped_async(redis_to_stop: ServerProcess) -> None:
    async def call() -> object:
        async with make_async(port=redis_to_stop.port) as client:
            await client.ping()
            await asyncio.to_thread(redis_to_stop.stop)
            return await client.get("order")

    # The same, but its last word is all that is left of it: that says nothing of a connection
    # which was lost.
    assert_untold(asgi_ending(call), redis.exceptions.ConnectionError)


def test_other_errors_are_not_a_lost_connection(redis_port: int) -> None:
    with connected(redis_port) as client:
        refused = wsgi_ending(lambda: client.execute_command("NOTHING"))
        assert_untold(refused, redis.exceptions.ResponseError)
    stranger = make(port=redis_port, username="stranger", password="wrong")
    with stranger as client:
        assert_untold(wsgi_ending(client.ping), redis.exceptions.AuthenticationError)
    pool: Any = redis.ConnectionPool(port=redis_port, max_connections=1)
    with make(connection_pool=pool) as client:
        held = pool.get_connection()
        full = wsgi_ending(client.ping)
        assert_untold(full, redis.exceptions.MaxConnectionsError)
        held.disconnect()


def test_never_connected() -> None:
    with make(port=1, retry=Retry(NoBackoff(), 0)) as client:
        assert_untold(wsgi_ending(client.ping), redis.exceptions.ConnectionError)
