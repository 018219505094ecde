"""What a process has of its own: what its child gets anew, and what is left at its end."""

from __future__ import annotations

import os

import pytest

from tests.harness.processes import run_python

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")


@forks
def test_no_child_waits_for_a_lock_that_a_thread_of_its_parent_had() -> None:
    """The threads count, fold, drain and ask as fast as they can while children are forked."""
    code = """
        import os, threading, logging
        from cleanclose.core import StructlogOutlet, snapshot
        from cleanclose.core.deliver.places import Places
        from cleanclose.core.tell.reporter import Reporter
        from cleanclose.integrations.queue import QueuedOutlet
        from cleanclose.integrations.status import StatusPage
        from cleanclose.surge import Surge
        from tests.harness.made import departed

        logging.getLogger("cleanclose").setLevel(logging.DEBUG)
        queued, page = QueuedOutlet(lambda event: None), StatusPage(kernel=False)
        reporter = Reporter([StructlogOutlet(), queued, page], surge=Surge())
        places = Places(10)

        def busy():
            while True:
                reporter.report(departed())
                places.take("a") and places.give_back("a")

        for _ in range(4):
            threading.Thread(target=busy, daemon=True).start()
        for number in range(150):
            pid = os.fork()
            if not pid:
                snapshot(); page.figures(); reporter.report(departed())
                os._exit(0 if places.take("a") and queued.flush(20) else 3)
            assert os.waitpid(pid, 0)[1] == 0
        os._exit(0)
    """
    run_python(code, "-W", "ignore")


@forks
def test_a_child_that_was_forked_inside_of_a_lock_goes_on() -> None:
    # Not in the tests' own process: eventlet, which sentry-sdk imports, warns of each fork there.
    code = """
        import os, threading
        from cleanclose.core import Lock

        lock = Lock()
        with lock:
            pid = os.fork()
            if not pid:
                lock.__exit__()
                free = threading.Thread(target=lock.__enter__)
                free.start()
                free.join()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
    """
    run_python(code)


@forks
def test_what_a_request_of_the_parent_has_taken_is_free_in_its_child() -> None:
    code = """
        import os
        from cleanclose.core.deliver.places import Places

        places = Places(1)
        assert places.take("a")
        pid = os.fork()
        if not pid:
            taken = places.take("b")
            # A greenlet of the parent's that goes on in here.
            places.give_back("a")
            os._exit(not (taken and places.take("a")))
        assert os.waitpid(pid, 0)[1] == 0
        assert not places.take("b")
    """
    run_python(code)


def test_20_000_constructions_leave_nothing_behind() -> None:
    code = """
        import atexit, gc, os
        from cleanclose.asgi import CleanCloseMiddleware as Asgi
        from cleanclose.core import StructlogOutlet
        from cleanclose.core.process import _ENDING, _RENEWED
        from cleanclose.integrations.queue import QueuedOutlet
        from cleanclose.wsgi import CleanCloseMiddleware as Wsgi

        def make():
            Asgi(len), Wsgi(len), StructlogOutlet(), QueuedOutlet(len)

        make()
        gc.collect()
        before = atexit._ncallbacks(), len(_ENDING), len(_RENEWED)
        for _ in range(5000):
            make()
        gc.collect()
        assert (atexit._ncallbacks(), len(_ENDING), len(_RENEWED)) == before
    """
    run_python(code)


def test_what_was_made_last_has_its_last_word_first() -> None:
    code = """
        import os
        from cleanclose.core import at_exit

        class Ending:
            def __init__(self, name):
                self.name = name
                at_exit(self)
            def finish(self):
                os.write(1, self.name.encode())

        kept = [Ending(name) for name in "abc"]
        Ending("gone")
    """
    assert run_python(code).stdout == "cba"
