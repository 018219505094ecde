"""uWSGI."""

from __future__ import annotations

import array
import select
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cleanclose.core.deliver.draining import Drained
from cleanclose.core.deliver.table import Read, Step
from cleanclose.core.server import Continue, Server
from cleanclose.servers._asking import number
from cleanclose.servers._program import Program
from cleanclose.servers._room import Room

if sys.platform != "win32":
    # Where uWSGI runs.
    import fcntl
    import termios

__all__ = ["ROOM"]

_BUFFER: Final = 4096
"""Its buffer-size, by default: as much of a body can have come with the request's head."""
_PIECE: Final = 256 * 1024


def _threads(environ: Mapping[str, Any], response: Any) -> int | None:
    # The module that it puts into its own processes; one core is one thread of a worker.
    return number(sys.modules.get("uwsgi"), "cores")


def _drain(stream: Any, number: int, drained: Drained) -> Step:
    """What came together with the request's head is in uWSGI's own buffer, and is read first.

    It does not say how much that is. So a body that may be in there as a whole is asked for
    unseen, where waiting is allowed; uWSGI's socket-timeout (4 s) ends that.
    """
    left = drained.left or 0
    may_be_buffered = left <= _BUFFER
    step = drained.step()
    while isinstance(step, Read):
        size = _arrived(number)
        if size == 0 and may_be_buffered and step.at_most_seconds:
            size = left
        elif size == 0:
            if not _wait_for(number, step.at_most_seconds):
                step = drained.nothing_came()
                continue
            size = _arrived(number)
        may_be_buffered = False
        data: bytes = stream.read(min(size, left, _PIECE)) if size else b""
        left -= len(data)
        step = drained.drained(len(data), at_end=not data or left == 0)
    return step


def _arrived(number: int) -> int:
    """Bytes that the kernel has for a reader."""
    size = array.array("i", [0])
    fcntl.ioctl(number, termios.FIONREAD, size)
    return size[0]


def _wait_for(number: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _words(port: int, interface: str, app: str, options: Sequence[str]) -> list[str]:
    own = ["--master", "--enable-threads", "--need-app", "--die-on-term"]
    run = ["-c", "import pyuwsgi; pyuwsgi.run()", f"--module={app}", *own, *options]
    return [*run, f"--http-socket=127.0.0.1:{port}"]


ROOM: Final = Room(
    package="uwsgi",
    program=Program(
        distribution="pyuwsgi",
        words=_words,
        names=("uwsgi", "pyuwsgi"),
        backlog=100,
        backlog_options=("--listen", "-l"),
        # uwsgi_chunked_read() of its own is the only way to those.
        hands_out_chunks=False,
    ),
    environ_key="uwsgi.version",
    # It never sends a 100 itself; its HTTP router does with http-manage-expect, and then by itself.
    wsgi=Server(
        "uwsgi",
        Continue.LAZY,
        closes_anyway=True,
        keeps_quiet=True,
        descriptor="uwsgi.connection_fd",
        drain=_drain,
        # plugins/http: it ends everything when the worker has sent its last byte. The router, and
        # other proxies, tell their client's port; http-socket has no REMOTE_PORT.
        relays=True,
        threads=_threads,
    ),
)
