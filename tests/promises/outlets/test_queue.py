"""The queue before a slow outlet in whole processes: forks, and the exit."""

from __future__ import annotations

import os
import time

import pytest

from tests.harness.processes import run_python


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
