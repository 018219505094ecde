"""What interrupts an outlet from outside goes on: a server can be stopped at any moment."""

from __future__ import annotations

import sys

import pytest

from tests.harness.processes import run_python

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")

SIGNALS = {
    "Ctrl-C": ("SIGINT", "signal.default_int_handler", "KeyboardInterrupt"),
    "a handler that exits, as gunicorn's": ("SIGTERM", "lambda *_: sys.exit(0)", "SystemExit"),
    "a handler's own": ("SIGTERM", "Worker().stop", "Stop"),
}


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_that_comes_in_an_outlet_is_not_lost(name: str) -> None:
    number, handler, raised = SIGNALS[name]
    code = f"""
        import os, signal, sys
        from cleanclose.core.tell.reporter import Reporter
        from tests.harness.made import drained

        class Stop(SystemExit):
            pass

        class Worker:
            def stop(self, number, frame):
                raise Stop

        def outlet(event):
            os.kill(os.getpid(), signal.{number})
            signal.pause()

        signal.signal(signal.{number}, {handler})
        try:
            Reporter([outlet]).report(drained())
        except {raised}:
            os._exit(0)
        os._exit(1)
    """
    run_python(code)


def test_a_second_interrupt_under_asyncio_is_not_lost() -> None:
    code = """
        import asyncio, os, signal
        from cleanclose.core.tell.reporter import Reporter
        from tests.harness.made import drained

        def outlet(event):
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
            signal.pause()

        async def main():
            Reporter([outlet]).report(drained())
            os._exit(1)

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            os._exit(0)
    """
    run_python(code)


@pytest.mark.stacks
def test_a_greenlet_that_is_killed_in_an_outlet_ends() -> None:
    code = """
        import gevent
        from cleanclose.core.tell.reporter import Reporter
        from tests.harness.made import drained

        went_on = []

        def request():
            Reporter([lambda event: gevent.sleep(600)]).report(drained())
            went_on.append(True)

        greenlet = gevent.spawn(request)
        gevent.sleep(0)
        greenlet.kill(timeout=20)
        assert greenlet.dead and not went_on
    """
    run_python(code)


@pytest.mark.stacks
def test_a_time_limit_of_an_outlets_own_does_not_reach_the_request() -> None:
    code = """
        import gevent
        from cleanclose.core import snapshot
        from cleanclose.core.tell.reporter import Reporter
        from tests.harness.made import drained

        def outlet(event):
            with gevent.Timeout(0.01):
                gevent.sleep(600)

        Reporter([outlet]).report(drained())
        assert snapshot()["cleanclose_outlet_errors_total"] == 1
    """
    run_python(code)
