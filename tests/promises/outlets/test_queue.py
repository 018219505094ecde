"""The queue before a slow outlet in whole processes: forks, and the exit."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import pytest


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
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
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
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)
    assert time.monotonic() - started < 60
