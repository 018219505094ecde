"""The lingerer and its process: forks, limits, patched threads, and the end.

Each test is a small program in a fresh interpreter, because what it does cannot be undone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from cleanclose.linger import can_linger

pytestmark = pytest.mark.skipif(not can_linger(), reason="connections cannot be shared here")

ROOT: Final = Path(__file__).parents[2]

PRELUDE: Final = """
    import json, os, resource, socket, sys, threading, time
    from cleanclose.core.deliver.linger import Linger
    from cleanclose.core.events import Facts
    from cleanclose.core.settings import Settings
    from cleanclose.linger import LINGERER, Handover

    LIMIT = 30.0
    PATIENT = Settings(idle_seconds=600.0, max_seconds=600.0, min_rate=0)

    def until(is_so, what):
        end = time.monotonic() + LIMIT
        while not is_so():
            assert time.monotonic() < end, what
            time.sleep(0.002)

    def say(**what):
        # In one piece, also where parent and child say something.
        os.write(1, json.dumps(what).encode() + b"\\n")

    def report(event):
        say(pid=os.getpid(), outcome=event.outcome, cap=event.cap, drained=event.drained)

    def handover(held_as=None, settings=PATIENT, report=report):
        now = time.monotonic()
        linger = Linger(
            settings, facts=Facts(framework="wsgi", server="any", method="POST"), status=413,
            proxied=False, awaits_continue=False, received=0, drained=0, left=None,
            started=now, now=now,
        )
        return Handover(linger=linger, report=report, most=10_000, held_as=held_as)

    def give(server, **more):
        return LINGERER.take(server.detach(), handover(**more), own=True)

    def sockets():
        found = []
        for name in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink(f"/proc/self/fd/{name}"))
            except OSError:
                pass
        return [each for each in found if each.startswith("socket:")]
"""


def run(
    program: str, *, first: str = "", code: int = 0, quiet: bool = True
) -> list[dict[str, Any]]:
    """What a program says, one mapping a line; nothing else, if it is to be quiet."""
    done = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "-c"),
            "\n".join(textwrap.dedent(part) for part in (first, PRELUDE, program)),
        ],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": ""},
    )
    assert done.returncode == code, done.stderr
    assert not quiet or done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


# The end of the process.


def test_a_process_ends_at_once_and_reports_what_is_left() -> None:
    said = run(
        """
        clients = []
        for _ in range(3):
            client, server = socket.socketpair()
            clients.append(client)
            give(server)
            assert client.recv(1) == b""
        client, server = socket.socketpair()
        LINGERER.take(server.fileno(), handover(server.fileno()))
        began = time.monotonic()
        """
    )
    assert [(each["outcome"], each["cap"]) for each in said] == [("cut", "application")] * 4


def test_an_outlet_that_has_something_to_do_at_the_end_has_the_events_by_then() -> None:
    said = run(
        """
        import atexit
        atexit.register(lambda: say(cap="the outlet's own end"))
        client, server = socket.socketpair()
        give(server)
        """
    )
    assert [each["cap"] for each in said] == ["application", "the outlet's own end"]


def test_an_error_ends_it_as_usual() -> None:
    said = run(
        """
        client, server = socket.socketpair()
        give(server)
        sys.exit(3)
        """,
        code=3,
    )
    assert [each["cap"] for each in said] == ["application"]


def test_a_process_without_a_connection_has_no_thread() -> None:
    (said,) = run("say(threads=threading.active_count(), sockets=len(sockets()))")
    assert said == {"threads": 1, "sockets": 0}


# Forks.


def test_a_child_has_nothing_of_its_parents_connections() -> None:
    said = run(
        """
        client, server = socket.socketpair()
        before = sorted(sockets())
        LINGERER.take(server.fileno(), handover(server.fileno()))
        child = os.fork()
        if child == 0:
            # Only what the parent itself has, and it can have connections of its own.
            assert sorted(sockets()) == before, sockets()
            assert LINGERER.count == 0
            own_client, own_server = socket.socketpair()
            give(own_server)
            own_client.sendall(bytes(7))
            own_client.close()
            until(lambda: LINGERER.count == 0, "the child's own has ended")
            client.close()
            server.close()
            sys.exit(0)
        assert os.waitpid(child, 0) == (child, 0)
        say(pid=os.getpid(), cap="the child is gone")
        server.close()
        client.sendall(bytes(5))
        assert client.recv(1) == b""
        client.close()
        until(lambda: LINGERER.count == 0, "the parent's has ended")
        """
    )
    first, gone, second = said
    assert (first["drained"], second["drained"]) == (7, 5)
    assert gone["pid"] == second["pid"] != first["pid"]


def test_a_child_keeps_no_connection_open() -> None:
    run(
        """
        client, server = socket.socketpair()
        give(server)
        assert client.recv(1) == b""
        reading, writing = os.pipe()
        here, there = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.write(there, b"!")
            os.read(reading, 1)
            os._exit(0)
        # What a child does at its beginning it has done.
        os.read(here, 1)
        LINGERER.stop()
        try:
            # It is closed for good: whoever still had it would take this.
            client.sendall(b"x")
        except BrokenPipeError:
            pass
        else:
            raise AssertionError("somebody still has it")
        os.close(writing)
        os.waitpid(child, 0)
        """
    )


def test_forks_at_any_moment() -> None:
    """While connections are taken and closed in another thread, as fast as it can."""
    run(
        """
        sys.setswitchinterval(1e-5)
        client, server = socket.socketpair()
        inode = os.readlink(f"/proc/self/fd/{server.fileno()}")
        over = False

        def nothing(event):
            pass

        def take_and_close():
            while not over:
                # Who never lets go of the lock lets nobody fork.
                time.sleep(0)
                if LINGERER.count > 5:
                    continue
                LINGERER.take(
                    server.fileno(),
                    handover(server.fileno(), Settings(max_seconds=0), nothing),
                )

        thread = threading.Thread(target=take_and_close)
        thread.start()
        leaks = 0
        for _ in range(200):
            child = os.fork()
            if child == 0:
                os._exit(sockets().count(inode) != 1)
            leaks += os.waitpid(child, 0)[1] != 0
        over = True
        thread.join()
        until(lambda: LINGERER.count == 0, "all are over")
        assert leaks == 0, leaks
        """
    )


# The limit on descriptors.


def test_without_a_descriptor_nothing_happens() -> None:
    run(
        """
        client, server = socket.socketpair()
        number = server.fileno()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for spare in range(3):
            resource.setrlimit(resource.RLIMIT_NOFILE, (number + 1 + spare, hard))
            for own in (False, True):
                assert LINGERER.take(number, handover(), own=own) is None
                assert threading.active_count() == 1
                # It is as it was, and whoever had it has it.
                client.sendall(b"still there")
                assert server.recv(100) == b"still there"
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert give(server) is not None
        client.close()
        until(lambda: LINGERER.count == 0, "it has ended")
        """
    )


def test_no_more_than_half_of_the_descriptors_linger() -> None:
    said = run(
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        pairs = [socket.socketpair() for _ in range(80)]
        for client, server in pairs[:-1]:
            give(server)
            assert client.recv(1) == b""
        assert LINGERER.count == 79
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
        give(pairs[-1][1])
        until(lambda: LINGERER.count == 50, "half of them linger")
        # The oldest ones have gone.
        for client, _ in pairs[:30]:
            try:
                client.sendall(b"x")
            except BrokenPipeError:
                continue
            raise AssertionError("it is still there")
        for client, _ in pairs[30:]:
            client.sendall(b"x")
        """
    )
    # The lingerer's thread may report its last one while the process already reports what is left.
    caps = Counter(each["cap"] for each in said)
    assert caps == {"max_lingering": 30, "application": 50}


def test_the_greediest_address_goes_first() -> None:
    said = run(
        """
        listener = socket.create_server(("127.0.0.1", 0))

        def connect(address):
            client = socket.create_connection(
                listener.getsockname(), source_address=(address, 0)
            )
            server, _ = listener.accept()
            return client, server

        def give_tcp(address):
            client, server = connect(address)
            number = server.detach()
            now = handover(report=lambda event: say(address=address, cap=event.cap))
            one = Handover(linger=now.linger, report=now.report, most=4)
            assert LINGERER.take(number, one, own=True) is not None
            assert client.recv(1) == b""
            return client

        modest = give_tcp("127.0.0.2")
        greedy = [give_tcp("127.0.0.3") for _ in range(20)]
        late = give_tcp("127.0.0.4")
        until(lambda: LINGERER.count == 4, "four are left")
        modest.sendall(b"x")
        late.sendall(b"x")
        """
    )
    turned_out = [each["address"] for each in said if each["cap"] == "max_lingering"]
    assert turned_out == ["127.0.0.3"] * 18
    left = sorted(each["address"] for each in said if each["cap"] == "application")
    assert left == ["127.0.0.2", "127.0.0.3", "127.0.0.3", "127.0.0.4"]


# Patched threads.

PATCH: Final = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}

LINGER_AND_END: Final = """
        def linger_and_end(size):
            client, server = socket.socketpair()
            taken = LINGERER.take(server.fileno(), handover(server.fileno()))
            assert taken is not None
            client.sendall(bytes(size))
            time.sleep(0)
            server.close()
            taken.let_go()
            assert client.recv(1) == b""
            client.close()
            until(lambda: LINGERER.count == 0, "it has ended")

        def native_threads():
            return len(os.listdir("/proc/self/task"))
"""


@pytest.fixture(params=["gevent"])
def patch(request: pytest.FixtureRequest) -> str:
    """What patches threads, sockets and selectors."""
    pytest.importorskip(request.param)
    return PATCH[request.param]


@pytest.mark.stacks
def test_patched_before_it_is_a_greenlet(patch: str) -> None:
    *events, said = run(
        LINGER_AND_END
        + """
        before = native_threads()
        for size in (10, 1_000):
            linger_and_end(size)
        during = native_threads()
        until(lambda: threading.active_count() == 1, "the greenlet has ended")
        linger_and_end(100)
        say(threads=during - before)
        """,
        first=patch,
    )
    assert [each["drained"] for each in events] == [10, 1_000, 100]
    assert said == {"threads": 0}


@pytest.mark.stacks
def test_patched_while_a_thread_runs(patch: str) -> None:
    events = run(
        LINGER_AND_END
        + f"""
        old_client, old_server = socket.socketpair()
        give(old_server)
        assert old_client.recv(1) == b""
        {patch}
        old_client.sendall(bytes(77))
        old_client.close()
        until(lambda: LINGERER.count == 0, "the old one has ended")
        for size in (10, 1_000):
            linger_and_end(size)
        until(lambda: native_threads() == 1, "the thread has ended")
        linger_and_end(100)
        """,
        # Of any thread that is older than its patching, threading says when it ends that it
        # does not know it.
        quiet=False,
    )
    assert [each["drained"] for each in events] == [77, 10, 1_000, 100]


@pytest.mark.stacks
def test_a_greenlet_of_the_parents_has_nothing_to_do_in_a_child(patch: str) -> None:
    said = run(
        LINGER_AND_END
        + """
        import gc, weakref
        client, server = socket.socketpair()
        give(server, settings=Settings(idle_seconds=600.0, max_seconds=600.0, min_rate=0))
        assert client.recv(1) == b""
        parents = weakref.ref(LINGERER._running)
        child = os.fork()
        if child == 0:
            assert LINGERER.count == 0
            linger_and_end(7)
            client.close()
            until(lambda: gc.collect() >= 0 and parents() is None, "the greenlet has ended")
            sys.exit(0)
        assert os.waitpid(child, 0) == (child, 0)
        client.sendall(bytes(5))
        client.close()
        until(lambda: LINGERER.count == 0, "the parent's has ended")
        """,
        first=patch,
        # See above: a child's threading does not know its parent's threads.
        quiet=False,
    )
    assert [each["drained"] for each in said] == [7, 5]
    assert said[0]["pid"] != said[1]["pid"]


@pytest.mark.stacks
def test_greenlets_end_with_their_process(patch: str) -> None:
    said = run(
        """
        client, server = socket.socketpair()
        give(server)
        assert client.recv(1) == b""
        """,
        first=patch,
    )
    assert [each["cap"] for each in said] == ["application"]
