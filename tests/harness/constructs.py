"""What an application may be at when its client leaves, construct by construct: asyncio and trio.

Each of `ASYNC` fails with an error of the application's own, and reads or writes something of the
client's meanwhile, which fails as well: Python then shows the client's error, and the
application's is at best its context. ``docs/a-client-cannot-hide-an-error.md`` is made of these
tables.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Final, NamedTuple

import anyio

__all__ = [
    "ASGI_SERVERS",
    "ASYNC",
    "BARE_HIDES",
    "FRAMEWORKS",
    "NOT_SHOWN",
    "PREFIXES",
    "Construct",
    "Fail",
    "Use",
    "asgi_cases",
]

Fail = Callable[[], None]
Use = Callable[[], Awaitable[object]]


async def _in_finally(fail: Fail, use: Use) -> None:
    try:
        fail()
    finally:
        await use()


@contextlib.asynccontextmanager
async def _using(use: Use) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await use()


async def _in_aexit(fail: Fail, use: Use) -> None:
    async with _using(use):
        fail()


class _Reader:
    def __init__(self, use: Use) -> None:
        self._use = use

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        await self._use()


async def _in_aexit_of_a_class(fail: Fail, use: Use) -> None:
    async with _Reader(use):
        fail()


async def _in_except(fail: Fail, use: Use) -> None:
    try:
        fail()
    except Exception:
        await use()
        raise


async def _in_except_of_its_class(fail: Fail, use: Use) -> None:
    try:
        fail()
    except KeyError:
        await use()
        raise


async def _from_none(fail: Fail, use: Use) -> None:
    try:
        fail()
    finally:
        try:
            await use()
        except Exception as error:
            raise error from None


async def _from_it(fail: Fail, use: Use) -> None:
    kept: KeyError | None = None
    try:
        fail()
    except KeyError as own:
        kept = own
    try:
        await use()
    except Exception as error:
        raise error from kept


async def _in_a_group(fail: Fail, use: Use) -> None:
    try:
        fail()
    finally:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_awaited, use)


async def _awaited(use: Use) -> None:
    await use()


async def _as_a_leaf(fail: Fail, use: Use) -> None:
    async def sibling() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            fail()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sibling)
        await use()


async def _around_a_group(fail: Fail, use: Use) -> None:
    async def task() -> None:
        await _in_finally(fail, use)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(task)


async def _in_except_star(fail: Fail, use: Use) -> None:
    try:
        fail()
    except* KeyError:
        await use()
        raise


async def _in_a_callback(fail: Fail, use: Use) -> None:
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(use)
        fail()


class Second(Exception):
    """Another error of the application's, which came while the first one was being handled."""


async def _two_levels_deep(fail: Fail, use: Use) -> None:
    try:
        fail()
    except KeyError:
        try:
            raise Second
        finally:
            await use()


async def _in_a_thread(fail: Fail, use: Use) -> None:
    import anyio.to_thread

    try:
        await anyio.to_thread.run_sync(fail)
    finally:
        await use()


async def _in_a_generator(fail: Fail, use: Use) -> None:
    async def pieces() -> AsyncGenerator[int]:
        try:
            yield 1
            fail()
        finally:
            await use()

    async with contextlib.aclosing(pieces()) as source:
        async for _ in source:
            pass


class Construct(NamedTuple):
    """One construct.

    Args:
        code: What an application writes, in a line.
        run: It, for an application that has nothing else to do.
    """

    code: str
    run: Callable[[Fail, Use], Awaitable[None]]


ASYNC: Final[Mapping[str, Construct]] = {
    "finally": Construct("`try: bug()` `finally: await use()`", _in_finally),
    "aexit": Construct("`async with` a generator's context manager, which uses it", _in_aexit),
    "aexit-class": Construct("`__aexit__` of a class uses it", _in_aexit_of_a_class),
    "except": Construct("`except Exception: await use(); raise`", _in_except),
    "except-class": Construct("`except KeyError: await use(); raise`", _in_except_of_its_class),
    "except-star": Construct("`except* KeyError: await use(); raise`", _in_except_star),
    "from-none": Construct("`raise client_error from None` in a `finally`", _from_none),
    "from-it": Construct("`raise client_error from own_error`", _from_it),
    "group": Construct("a task group in the `finally` uses it", _in_a_group),
    "in-group": Construct("a `finally` in a task of a group", _around_a_group),
    "leaf": Construct("one task of a group fails when another one's use does", _as_a_leaf),
    "callback": Construct("`AsyncExitStack.push_async_callback(use)`", _in_a_callback),
    "levels": Construct(
        "a second error while the first is handled, and its `finally`", _two_levels_deep
    ),
    "thread": Construct("`bug()` in a thread, `use()` in the `finally`", _in_a_thread),
    "generator": Construct("an asynchronous generator's `finally`, by `aclosing`", _in_a_generator),
}
"""By name. ``use()`` reads the request's body, or sends on the websocket."""

FRAMEWORKS: Final[Mapping[str, str]] = {
    "/within/middleware": "a `BaseHTTPMiddleware` reads the body in its `finally`",
    "/with/handler": "an exception handler reads the body",
    "/fastapi/dependency": "a dependency with `yield` reads the body in its `finally` (FastAPI)",
    "/task": "a task that nobody awaits has failed",
    "/background": "a background task fails behind a response that nobody has got",
    "/stream/stream-finally": "a streamed response's generator fails in its `finally`",
    "/stream/stream-with": "a streamed response's generator fails in an `__aexit__`",
    "/ws/ws-close": "a websocket's `finally: await websocket.close()`",
    "/ws/ws-receive": "a websocket's `finally: await websocket.receive_text()`",
}
"""What frameworks add, by the path in ``masking_asgi``."""

PREFIXES: Final[Mapping[str, str]] = {
    "/": "Starlette",
    "/fastapi/": "FastAPI",
    "/behind/": "Starlette behind two `BaseHTTPMiddleware`",
    "/ws/": "a websocket",
}
"""Where each of `ASYNC` is tried, by the path's beginning in ``masking_asgi``."""

ASGI_SERVERS: Final = (
    "uvicorn-h11",
    "uvicorn-httptools",
    "uvicorn-uvloop",
    "hypercorn",
    "hypercorn-trio",
    "gunicorn",
    "daphne",
    "granian",
)
"""The servers, by the names of ``asgi_noise``."""

_READS_BODIES: Final = frozenset({"daphne"})
"""Servers which read a body before the application runs: a cut upload never comes to it."""


def asgi_cases(server: str) -> tuple[str, ...]:
    """The paths of ``masking_asgi`` that are tried on a server."""
    paths = (*(f"{prefix}{name}" for prefix in PREFIXES for name in ASYNC), *FRAMEWORKS)
    return tuple(path for path in paths if _is_tried(path, server))


def _is_tried(path: str, server: str) -> bool:
    if path == "/task" and server == "hypercorn-trio":
        # It has no such tasks.
        return False
    return server not in _READS_BODIES or path.startswith(("/ws/", "/stream/", "/background"))


_HTTP: Final = ("/", "/fastapi/")
# ClientDisconnect without a context, or with one that is not printed. Two `BaseHTTPMiddleware`
# happen to print it.
_CUT_OFF: Final = frozenset(
    f"{prefix}{name}" for prefix in (*_HTTP, "/ws/") for name in ("from-none", "group")
)
_TELLS_OF_NO_CLIENT: Final = frozenset(f"/ws/{name}" for name in ASYNC) - {
    "/ws/from-it",
    "/ws/leaf",
}
_PRINTS_ONE_ERROR: Final = frozenset(
    path
    for path in asgi_cases("granian")
    if not path.startswith("/stream/") and path not in ("/task", "/background", "/ws/ws-close")
)

BARE_HIDES: Final[Mapping[str, frozenset[str]]] = {
    "uvicorn-h11": _CUT_OFF,
    "uvicorn-httptools": _CUT_OFF,
    # The older implementation of websockets takes an application's last error for its client's.
    "uvicorn-uvloop": _CUT_OFF | _TELLS_OF_NO_CLIENT,
    "hypercorn": _CUT_OFF,
    # On trio the group's context is gone, before anybody can print it.
    "hypercorn-trio": _CUT_OFF | {"/behind/group"},
    "gunicorn": _CUT_OFF,
    # Behind its first exception its checker has ended.
    "daphne": frozenset(asgi_cases("daphne")),
    # It prints the outermost exception, without causes, contexts and leaves.
    "granian": _PRINTS_ONE_ERROR,
}
"""What a bare server does not tell, by server: paths of ``masking_asgi``."""

NOT_SHOWN: Final[Mapping[str, frozenset[str]]] = {
    "hypercorn-trio": frozenset(f"{prefix}group" for prefix in PREFIXES),
    "granian": frozenset(f"{prefix}{name}" for prefix in PREFIXES for name in ("leaf", "levels")),
}
"""What is not told behind the middleware either: trio takes a group's context away before anybody
can see it; and granian prints neither an exception's leaves nor its context, so that it shows the
group and the second error alone."""
