"""A network namespace of our own, in which nothing happens but what is staged.

``python -m tests.harness.kernel_staging CASE`` is run inside of it: it makes ``cleanclose kernel
--watch`` look, does what the case says, waits until the counter has it, and prints all findings
that were seen, one JSON document.
"""

from __future__ import annotations

import contextlib
import errno
import json
import select
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final

from example_apps.namespaces import bring_loopback_up, set_sysctl

__all__ = ["TIMES", "closed_before_data", "closed_unread"]

TIMES: Final = 100
"""How often a case is done."""

_PATIENCE: Final = 30.0

CLEANCLOSE: Final = (
    sys.executable,
    "-c",
    "from cleanclose.doctor.main import main; main()",
)


@contextlib.contextmanager
def connected(
    address: str = "127.0.0.1",
) -> Generator[tuple[socket.socket, socket.socket]]:
    """A connection: the client's end, and the server's."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        listener.listen()
        client = socket.create_connection(listener.getsockname()[:2], timeout=_PATIENCE)
        server, _ = listener.accept()
    with client, server:
        yield client, server


def closed_unread(client: socket.socket, server: socket.socket) -> None:
    """The server closes with data unread."""
    client.sendall(b"x")
    server.recv(1, socket.MSG_PEEK)
    server.close()
    wait_for_reset(client)


def closed_before_data(client: socket.socket, server: socket.socket) -> None:
    """The server answers and closes, the client goes on sending.

    The answer is larger than the client's buffers, so that the server's end is still sending
    when the data comes: a connection that had ended at once would be in TIME_WAIT.
    """
    server.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            server.send(bytes(65536))
    server.close()
    client.sendall(b"x")
    wait_for_reset(client)


def wait_for_reset(sock: socket.socket) -> None:
    """Wait until the other side has reset a connection, with what it sent still unread."""
    poll = select.poll()
    poll.register(sock, 0)
    if not any(events & select.POLLERR for _, events in poll.poll(_PATIENCE * 1000)):
        raise AssertionError("no reset came")


def _nothing(stack: contextlib.ExitStack) -> None:
    """What is in order: a connection whose data is read before it ends."""
    del stack
    for _ in range(TIMES):
        with connected() as (client, server):
            client.sendall(b"x")
            server.recv(1)
            client.close()
            server.recv(1)


def _unread(stack: contextlib.ExitStack) -> None:
    del stack
    for _ in range(TIMES):
        with connected() as (client, server):
            closed_unread(client, server)


def _on_data(stack: contextlib.ExitStack) -> None:
    del stack
    for _ in range(TIMES):
        with connected() as (client, server):
            closed_before_data(client, server)


def _overflow(stack: contextlib.ExitStack) -> None:
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(2)
    for _ in range(20):
        client = stack.enter_context(socket.socket())
        client.setblocking(False)
        if client.connect_ex(listener.getsockname()) != errno.EINPROGRESS:
            raise AssertionError("it was connected at once")


def _overflow_reset(stack: contextlib.ExitStack) -> None:
    set_sysctl("net.ipv4.tcp_abort_on_overflow", 1)
    _overflow(stack)


CASES: Final[Mapping[str, tuple[Callable[[contextlib.ExitStack], None], str | None]]] = {
    "nothing": (_nothing, None),
    "unread": (_unread, "TCPAbortOnClose"),
    "on_data": (_on_data, "TCPAbortOnData"),
    "overflow": (_overflow, "ListenOverflows"),
    "overflow_reset": (_overflow_reset, "ListenOverflows"),
}


def watched(case: str) -> dict[str, Any]:
    """Do what a case says under the eyes of the command."""
    act, awaited = CASES[case]
    counts: Counter[str] = Counter()
    sentences: set[str] = set()
    with (
        contextlib.ExitStack() as stack,
        subprocess.Popen(
            [*CLEANCLOSE, "kernel", "--watch", "--json"], stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdout is not None
        stack.callback(process.kill)
        for looks, line in enumerate(process.stdout, 1):
            reading = json.loads(line)
            for finding in reading["findings"]:
                counts[finding["name"]] += finding["count"]
                sentences.add(finding["means"])
            if looks == 1:
                act(stack)
            elif looks >= 3 and (awaited is None or counts[awaited]):
                break
        process.send_signal(signal.SIGINT)
        # What it had not printed yet.
        process.stdout.read()
        return {
            "counts": dict(counts),
            "sentences": sorted(sentences),
            "status": process.wait(_PATIENCE),
        }


if __name__ == "__main__":
    bring_loopback_up()
    print(json.dumps(watched(sys.argv[1])))
