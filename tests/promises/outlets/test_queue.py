"""The queue before a slow outlet in whole processes: forks, and the exit."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.harness.asking import status_of
from tests.harness.leavers import leave_at, request
from tests.harness.processes import run_python
from tests.harness.reporting import counted
from tests.harness.stacks import gunicorn
from tests.harness.waiting import until

if TYPE_CHECKING:
    from tests.harness.serving import Serve

PRELOADED = gunicorn(
    "told-gevent-preloaded", "told_flask", "--worker-class=gevent", "--preload", threads=True
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_child_has_a_thread_of_its_own_and_the_exit_waits_a_moment() -> None:
    code = """
        import os, sys, time
        from tests.harness.made import drained
        from cleanclose.integrations.queue import QueuedOutlet

        def slow(event):
            time.sleep(0.05)
            os.write(1, f"{label} {event.drained}\\n".encode())

        label = "parent"
        outlet = QueuedOutlet(slow)
        outlet(drained(drained=1))
        outlet(drained(drained=2))
        if os.fork() == 0:
            label = "child"
            outlet(drained(drained=3))
            sys.exit()
        os.wait()
    """
    run = run_python(code, "-W", "ignore")
    assert sorted(run.stdout.splitlines()) == ["child 3", "parent 1", "parent 2"], run


def test_the_end_of_the_process_does_not_wait_for_long() -> None:
    code = """
        import time
        from tests.harness.made import drained
        from cleanclose.integrations.queue import QueuedOutlet

        outlet = QueuedOutlet(lambda _: time.sleep(600))
        outlet(drained())
    """
    started = time.monotonic()
    run_python(code)
    assert time.monotonic() - started < 60


@pytest.mark.stacks
def test_the_first_event_does_not_freeze_a_preloaded_gevent_worker(serve: Serve) -> None:
    """The outlet is made in the arbiter, before the worker patches threads and queues."""
    server = serve(PRELOADED, env={"TEST_OUTLETS": "queued-notes"})
    before = counted(server)
    leave_at(server.port, request("POST", "/read", length=1000), "rst", body=b"some")
    until(lambda: counted(server)["departures"] > before["departures"])
    assert status_of(server.port, "/") == 200
    until(lambda: "an outlet's note: client_departed" in server.log_text())


@pytest.mark.stacks
@pytest.mark.parametrize("patched", ["before", "after the import", "after the construction"])
def test_wherever_gevent_patches_the_other_greenlets_go_on(patched: str) -> None:
    code = f"""
        import gevent, gevent.monkey, sys
        if {patched!r} == "before":
            gevent.monkey.patch_all()
        from tests.harness.made import drained
        from cleanclose.integrations.queue import QueuedOutlet
        if {patched!r} == "after the import":
            gevent.monkey.patch_all()
        seen = []
        outlet = QueuedOutlet(seen.append)
        gevent.monkey.patch_all()
        with gevent.Timeout(20):
            for number in range(3):
                outlet(drained(drained=number))
                gevent.sleep(0)
            assert outlet.close()
        assert [event.drained for event in seen] == [0, 1, 2], seen
    """
    run_python(code, "-W", "ignore")


@pytest.mark.stacks
def test_a_thread_of_gevents_pool_may_have_events_too() -> None:
    code = """
        import gevent, gevent.monkey
        gevent.monkey.patch_all()
        from tests.harness.made import drained
        from cleanclose.integrations.queue import QueuedOutlet

        seen = []
        outlet = QueuedOutlet(seen.append)
        outlet(drained())
        assert outlet.flush()
        with gevent.Timeout(20):
            pool = gevent.get_hub().threadpool
            for number in range(1, 20):
                pool.spawn(outlet, drained(drained=number)).get()
            while len(seen) < 20:
                gevent.sleep(0.01)
    """
    run_python(code)
