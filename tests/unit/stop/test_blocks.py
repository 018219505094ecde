"""A block on asyncio: cancelled once, at every await there is, and nothing is lost or hidden."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import anyio
import pytest

from cleanclose.core import ClientLeft, Facts, Watch, Witness
from cleanclose.core.blame.watch import CURRENT
from cleanclose.stop import client_left, stop_work
from tests.harness.made import facts

STEPS: Final = 12


class Made(Watch):
    """A watch of a request."""

    @property
    def status(self) -> int | None:
        return None

    def facts(self) -> Facts:
        return facts(method="GET")

    def leave(self) -> None:
        self.peer_gone(Witness.RECEIVE, 1.0)


def run(work: Callable[[Made], Awaitable[Any]]) -> Any:
    """Run work as a request's."""

    async def main() -> Any:
        watch = Made(0.0)
        CURRENT.set(watch)
        task = asyncio.current_task()
        assert task is not None
        result = await work(watch)
        # Nothing is left behind for whoever comes next in this task.
        assert task.cancelling() == 0
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {task}
        return result

    return asyncio.run(main())


async def turns(number: int, watch: Made) -> None:
    """Leave after so many turns of the loop."""
    for _ in range(number):
        await asyncio.sleep(0)
    watch.leave()


@pytest.mark.parametrize("number", range(STEPS + 4))
def test_at_every_await(number: int) -> None:
    done: list[str] = []

    async def work(watch: Made) -> bool:
        leaving = asyncio.ensure_future(turns(number, watch))
        stopped = False
        try:
            async with stop_work():
                try:
                    for _ in range(STEPS):
                        await asyncio.sleep(0)
                    done.append("work")
                finally:
                    for _ in range(3):
                        await asyncio.sleep(0)
                    done.append("clean-up")
        except ClientLeft:
            stopped = True
        await leaving
        done.append("behind")
        return stopped

    stopped = run(work)
    assert done[-1] == "behind"
    # It is cancelled once: if that was before, the clean-up runs to its end. One that has begun
    # because the work was done is work like any other, as for `asyncio.timeout`; that is told.
    assert ("work" not in done) <= ("clean-up" in done and stopped)
    assert ("clean-up" not in done) <= stopped


@pytest.mark.parametrize("number", range(STEPS + 4))
def test_an_error_is_raised_instead(number: int) -> None:
    async def work(watch: Made) -> BaseException:
        leaving = asyncio.ensure_future(turns(number, watch))
        try:
            async with stop_work():
                try:
                    for _ in range(STEPS):
                        await asyncio.sleep(0)
                finally:
                    raise ValueError("told")
        except (ClientLeft, ValueError) as error:
            await leaving
            return error

    assert isinstance(run(work), ValueError)


@pytest.mark.parametrize("first", ["us", "them"])
@pytest.mark.parametrize("number", range(4))
def test_a_cancellation_from_elsewhere_stays_one(first: str, number: int) -> None:
    async def main() -> None:
        watch = Made(0.0)
        CURRENT.set(watch)

        async def work() -> None:
            async with stop_work():
                try:
                    await asyncio.sleep(60)
                finally:
                    await asyncio.sleep(0.05)

        task = asyncio.ensure_future(work())
        await asyncio.sleep(0.01)
        calls: list[Callable[[], object]] = [watch.leave, task.cancel]
        if first == "them":
            calls.reverse()
        calls[0]()
        for _ in range(number):
            await asyncio.sleep(0)
        calls[1]()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_time_limits_in_the_clean_up_work() -> None:
    passed: list[str] = []

    async def work(watch: Made) -> None:
        asyncio.get_running_loop().call_soon(watch.leave)
        with pytest.raises(ClientLeft):  # noqa: PT012 - the block is what is tested
            async with stop_work():
                try:
                    await asyncio.sleep(60)
                finally:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.01):
                            await asyncio.sleep(60)
                    with anyio.move_on_after(0.01):
                        await asyncio.sleep(60)
                    passed.append("both")

    run(work)
    assert passed == ["both"]


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("turns_before", range(4))
@pytest.mark.parametrize("turns_after", range(4))
def test_a_wait_that_ends_at_that_moment_does_not_swallow_it(
    turns_before: int, turns_after: int, raises: bool
) -> None:
    # What Python 3.11's asyncio.wait_for does; gunicorn's receive() is such a wait.
    async def work(watch: Made) -> None:
        awaited: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def end_both() -> None:
            await asyncio.sleep(0.005)
            await asyncio.gather(turns(turns_before, watch), end(awaited, turns_after, raises))

        ending = asyncio.ensure_future(end_both())
        with pytest.raises(ClientLeft):  # noqa: PT012 - the block is what is tested
            async with stop_work(cleanup_seconds=20):
                with contextlib.suppress(ConnectionError):
                    await asyncio.wait_for(awaited, 60)
                await asyncio.sleep(60)
        await ending
        if awaited.done() and not awaited.cancelled():
            awaited.exception()

    started = time.monotonic()
    run(work)
    assert time.monotonic() - started < 10


async def end(awaited: asyncio.Future[None], number: int, raises: bool) -> None:
    """End a wait after so many turns of the loop."""
    for _ in range(number):
        await asyncio.sleep(0)
    if awaited.done():
        return
    if raises:
        awaited.set_exception(ConnectionError())
    else:
        awaited.set_result(None)


@pytest.mark.parametrize("turns_after", range(3))
def test_what_it_waits_for_is_cancelled_by_somebody_else_as_well(turns_after: int) -> None:
    done: list[str] = []

    async def work(watch: Made) -> None:
        awaited: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def end_both() -> None:
            await asyncio.sleep(0.005)
            watch.leave()
            for _ in range(turns_after):
                await asyncio.sleep(0)
            awaited.cancel()

        ending = asyncio.ensure_future(end_both())
        with pytest.raises(ClientLeft):  # noqa: PT012 - the block is what is tested
            async with stop_work():
                try:
                    await asyncio.wait_for(awaited, 60)
                finally:
                    await asyncio.sleep(0.005)
                    done.append("cleaned")
        await ending

    run(work)
    assert done == ["cleaned"]


def test_the_clean_up_of_a_wait_that_heeds_it_is_not_cancelled_again() -> None:
    done: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.005)
            done.append("inner")

    async def work(watch: Made) -> None:
        asyncio.get_running_loop().call_later(0.005, watch.leave)
        with pytest.raises(ClientLeft):  # noqa: PT012 - the block is what is tested
            async with stop_work():
                try:
                    await asyncio.wait_for(slow(), 60)
                finally:
                    await asyncio.sleep(0.005)
                    done.append("outer")

    run(work)
    assert done == ["inner", "outer"]


def test_a_clean_up_that_hangs_has_a_limit() -> None:
    async def work(watch: Made) -> Watch:
        asyncio.get_running_loop().call_soon(watch.leave)
        with pytest.raises(ClientLeft):  # noqa: PT012 - the block is what is tested
            async with stop_work(cleanup_seconds=0.05):
                try:
                    await asyncio.sleep(60)
                finally:
                    await asyncio.sleep(60)
        return watch

    watch = run(work)
    assert watch.stops.overdue
    (event,) = watch.app_ended(2.0).events
    assert event.overdue is True


def test_a_group_of_tasks_ends_with_it() -> None:
    cleaned: list[int] = []

    async def one(number: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.001)
            cleaned.append(number)

    async def work(watch: Made) -> None:
        asyncio.get_running_loop().call_later(0.01, watch.leave)
        with pytest.raises(ClientLeft):  # noqa: PT012 - the block is what is tested
            async with stop_work(), asyncio.TaskGroup() as group:
                for number in range(3):
                    group.create_task(one(number))

    run(work)
    assert sorted(cleaned) == [0, 1, 2]


def test_what_asyncio_shields_finishes() -> None:
    finished: list[bool] = []

    async def part() -> None:
        await asyncio.sleep(0.02)
        finished.append(True)

    async def work(watch: Made) -> None:
        asyncio.get_running_loop().call_later(0.005, watch.leave)
        shielded = asyncio.ensure_future(part())
        with pytest.raises(ClientLeft):
            async with stop_work():
                await asyncio.shield(shielded)
        await shielded

    run(work)
    assert finished == [True]


def test_between_two_threads() -> None:
    calls: list[int] = []

    async def work(watch: Made) -> None:
        asyncio.get_running_loop().call_later(0.01, watch.leave)
        with pytest.raises(ClientLeft):  # noqa: PT012 - the block is what is tested
            async with stop_work():
                # Nearly always in a part that anyio shields.
                for number in range(1000):
                    await anyio.to_thread.run_sync(time.sleep, 0.004)
                    calls.append(number)

    run(work)
    assert len(calls) < 50


def test_a_generator_is_stopped_inside_and_not_its_reader() -> None:
    async def work(watch: Made) -> list[object]:
        seen: list[object] = []

        async def pieces() -> AsyncIterator[int]:
            async with stop_work():
                yield 1
                seen.append("inside")
                await asyncio.sleep(60)
                yield 2

        asyncio.get_running_loop().call_later(0.005, watch.leave)
        with pytest.raises(ClientLeft):  # noqa: PT012 - the block is what is tested
            async for piece in pieces():
                seen.append(piece)
                # The reader is at work when the client leaves.
                await asyncio.sleep(0.05)
                seen.append("read")
        return seen

    assert run(work) == [1, "read", "inside"]


def test_a_generator_that_nobody_reads_any_more_ends() -> None:
    async def work(watch: Made) -> Watch:
        async def pieces() -> AsyncIterator[int]:
            async with stop_work():
                yield 1

        async for _ in pieces():
            break
        gc.collect()
        # Its end is a task of the loop's.
        await asyncio.sleep(0.01)
        assert watch.stops is not None
        assert not watch.stops.is_busy
        watch.leave()
        await asyncio.sleep(0.03)
        return watch

    assert not run(work).stops.stopped


def test_it_has_left_before() -> None:
    async def work(watch: Made) -> None:
        watch.leave()
        with pytest.raises(ClientLeft):
            async with stop_work():
                await asyncio.sleep(60)

    run(work)


def test_quietly() -> None:
    async def work(watch: Made) -> bool:
        asyncio.get_running_loop().call_soon(watch.leave)
        async with stop_work(quiet=True) as block:
            await asyncio.sleep(60)
        return block.stopped

    assert run(work)


def test_quietly_it_does_not_hide_the_loss_of_an_upstream() -> None:
    async def work(watch: Made) -> None:
        asyncio.get_running_loop().call_soon(watch.leave)
        with pytest.raises(ClientLeft):  # noqa: PT012 - the block is what is tested
            async with stop_work(quiet=True):
                try:
                    raise ConnectionResetError(104, "a database")
                except ConnectionResetError:
                    await asyncio.sleep(60)

    run(work)


def test_outside_of_a_request_it_does_nothing() -> None:
    async def main() -> str:
        async with stop_work() as block:
            await asyncio.sleep(0)
        assert not block.stopped
        return "done"

    assert asyncio.run(main()) == "done"


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_limit_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="cleanup_seconds"):
        stop_work(cleanup_seconds=seconds)


def test_to_wait_for_it() -> None:
    async def work(watch: Made) -> str:
        waiting = asyncio.ensure_future(client_left())
        other = asyncio.ensure_future(asyncio.sleep(60))
        await asyncio.sleep(0)
        watch.leave()
        done, _ = await asyncio.wait({waiting, other}, return_when=asyncio.FIRST_COMPLETED)
        other.cancel()
        return "left" if done == {waiting} else "?"

    assert run(work) == "left"


def test_from_a_thread() -> None:
    async def work(watch: Made) -> None:
        with pytest.raises(ClientLeft):  # noqa: PT012 - the block is what is tested
            async with stop_work():
                asyncio.get_running_loop().run_in_executor(None, watch.leave)
                await asyncio.sleep(60)

    run(work)
