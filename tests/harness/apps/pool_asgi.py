"""FastAPI with database connections from a pool, given back by a dependency's clean-up.

``/busy/{kind}/{how}``: ``kind`` says which library, ``how`` what ends the work when its client has
left: our block, an anyio scope (which cancels at every await), and for streams our block or what
Starlette does by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any, Final, Protocol

import anyio
import anyio.lowlevel
import psycopg
from fastapi import Depends, FastAPI, Request, Response
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse

from cleanclose.asgi import CleanCloseMiddleware, client_left, stop_work
from tests.harness import tap

# It has no types.
asyncpg: Final[Any] = importlib.import_module("asyncpg")

PORT: Final = int(os.environ.get("TEST_POSTGRESQL", "0"))
DATABASE: Final = os.environ.get("TEST_DATABASE", "postgres")
SIZE: Final = 10
LONG: Final = 30.0
BEGUN: set[str] = set()
SQL: Final = "SELECT count(*) FROM pg_class"


class Pool(Protocol):
    """A pool of one library's connections."""

    async def take(self) -> Any:
        """A connection with a transaction on it."""

    async def give_back(self, taken: Any) -> None:
        """End the transaction, and put the connection back."""

    def free(self) -> int:
        """How many connections are in the pool."""
        ...


class Asyncpg:
    def __init__(self) -> None:
        self._free: asyncio.Queue[Any] = asyncio.Queue()
        # As a pool's own: those which nobody gives back stay open.
        self._all: list[Any] = []

    async def fill(self) -> None:
        for _ in range(SIZE):
            connection = await asyncpg.connect(
                host="127.0.0.1", port=PORT, user="postgres", database=DATABASE
            )
            self._all.append(connection)
            self._free.put_nowait(connection)

    async def take(self) -> Any:
        connection = await self._free.get()
        transaction = connection.transaction()
        await transaction.start()
        await connection.fetch(SQL)
        return connection, transaction

    async def give_back(self, taken: Any) -> None:
        connection, transaction = taken
        await transaction.rollback()
        self._free.put_nowait(connection)

    def free(self) -> int:
        return self._free.qsize()


class Psycopg:
    def __init__(self) -> None:
        self._free: asyncio.Queue[psycopg.AsyncConnection[Any]] = asyncio.Queue()
        self._all: list[psycopg.AsyncConnection[Any]] = []

    async def fill(self) -> None:
        for _ in range(SIZE):
            connection = await psycopg.AsyncConnection.connect(
                host="127.0.0.1", port=PORT, user="postgres", dbname=DATABASE
            )
            self._all.append(connection)
            self._free.put_nowait(connection)

    async def take(self) -> Any:
        connection = await self._free.get()
        await connection.execute(SQL)
        return connection

    async def give_back(self, taken: Any) -> None:
        await taken.rollback()
        self._free.put_nowait(taken)

    def free(self) -> int:
        return self._free.qsize()


class SqlAlchemy:
    def __init__(self, driver: str) -> None:
        url = f"postgresql+{driver}://postgres@127.0.0.1:{PORT}/{DATABASE}"
        self._engine: AsyncEngine = create_async_engine(url, pool_size=SIZE, max_overflow=0)

    async def take(self) -> Any:
        session = AsyncSession(self._engine)
        await session.execute(text(SQL))
        return session

    async def give_back(self, taken: Any) -> None:
        await taken.rollback()
        await taken.close()

    def free(self) -> int:
        pool: Any = self._engine.pool
        return SIZE - int(pool.checkedout())


POOLS: dict[str, Pool] = {}


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    # One pool for a process: the database has room for so many connections.
    kind = os.environ.get("TEST_POOL", "asyncpg")
    if kind.startswith("sqlalchemy-"):
        POOLS[kind] = SqlAlchemy(kind.removeprefix("sqlalchemy-"))
    else:
        pool = Asyncpg() if kind == "asyncpg" else Psycopg()
        await pool.fill()
        POOLS[kind] = pool
    yield


api = FastAPI(lifespan=lifespan)


@contextlib.asynccontextmanager
async def anyio_scope() -> AsyncGenerator[None]:
    """What many write by hand."""
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            await client_left()
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        yield
        tasks.cancel_scope.cancel()


def guard(how: str) -> contextlib.AbstractAsyncContextManager[Any]:
    match how:
        case "block" | "stream-block":
            return stop_work()
        case "anyio":
            return anyio_scope()
        case _:
            return contextlib.nullcontext()


async def clean_up(kind: str, taken: Any) -> None:
    """What a service does, the one or the other thing before it gives the connection back."""
    await anyio.lowlevel.checkpoint()
    await POOLS[kind].give_back(taken)


async def connection_of(kind: str, how: str, request: Request) -> AsyncIterator[Any]:
    if how.startswith("stream"):
        yield None
        return
    async with guard(how):
        taken = await POOLS[kind].take()
        BEGUN.add(request.headers["x-request-id"])
        try:
            yield taken
        finally:
            await clean_up(kind, taken)


@api.get("/busy/{kind}/{how}")
async def work(
    kind: str, how: str, request: Request, taken: Annotated[Any, Depends(connection_of)]
) -> Response:
    if taken is None:
        return StreamingResponse(pieces(kind, how, request))
    await anyio.sleep(LONG)
    return PlainTextResponse("done")


async def pieces(kind: str, how: str, request: Request) -> AsyncIterator[bytes]:
    async with guard(how):
        taken = await POOLS[kind].take()
        BEGUN.add(request.headers["x-request-id"])
        try:
            yield b"begun"
            await anyio.sleep(LONG)
        finally:
            await clean_up(kind, taken)


@api.get("/")
async def index() -> Response:
    free = {name: pool.free() for name, pool in POOLS.items()}
    return JSONResponse({"free": free, "running": sorted(BEGUN), "notes": {}})


class Passing(BaseHTTPMiddleware):
    """Does nothing; that is enough."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


tap.tap_logging()
if os.environ.get("TEST_BASE_HTTP") == "1":
    api.add_middleware(Passing)
app = CleanCloseMiddleware(api, outlets=tap.outlets())
