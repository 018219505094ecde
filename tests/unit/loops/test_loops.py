"""What a shim needs of an event loop: a bell, and a reader that hardly ever has to be there."""

from __future__ import annotations

import anyio
import pytest

from cleanclose.loops import Bell, LateReader, current_runtime


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.mark.anyio
async def test_a_bell_wakes_all_who_wait_and_can_ring_again() -> None:
    bell = Bell()
    woken: list[str] = []

    async def wait(name: str) -> None:
        await bell.wait()
        woken.append(name)

    # Nobody waits: there is nothing to remember.
    bell.ring()
    for _ in range(2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, "one")
            tasks.start_soon(wait, "other")
            await anyio.wait_all_tasks_blocked()
            bell.ring()
    assert sorted(woken) == ["one", "one", "other", "other"]


@pytest.mark.anyio
async def test_who_waits_for_a_bell_waits_no_longer_than_wanted() -> None:
    await Bell().wait(0)


@pytest.mark.anyio
async def test_a_reader_reads_behind_some_turns_until_it_is_ended() -> None:
    began, ended = anyio.Event(), anyio.Event()

    async def read() -> None:
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    reader = LateReader(current_runtime(), read, 2)
    assert not began.is_set()
    await began.wait()
    reader.end()
    await ended.wait()


@pytest.mark.anyio
async def test_a_reader_that_is_ended_within_these_turns_never_reads() -> None:
    loop = current_runtime()
    turns_over = anyio.Event()
    left = 5

    async def read() -> None:
        raise AssertionError

    def turn() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.next_turn(turn)
        else:
            turns_over.set()

    reader = LateReader(loop, read, 3)
    reader.end()
    loop.next_turn(turn)
    await turns_over.wait()


@pytest.mark.anyio
async def test_a_reader_whose_task_has_not_begun_does_not_read_either() -> None:
    loop = current_runtime()
    turns_over = anyio.Event()

    async def read() -> None:
        raise AssertionError

    reader = LateReader(loop, read, 1)
    # Between the turn that makes its task and the task's own.
    loop.next_turn(reader.end)
    loop.next_turn(lambda: loop.next_turn(turns_over.set))
    await turns_over.wait()
