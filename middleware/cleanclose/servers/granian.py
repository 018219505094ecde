"""granian, for ASGI and for WSGI: compiled, so that nothing behind its callables can be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from cleanclose.core.server import Continue, Server
from cleanclose.servers._asking import frames_of_all_threads
from cleanclose.servers._program import Program
from cleanclose.servers._room import Room

__all__ = ["ROOM"]


def _threads(environ: Mapping[str, Any], response: Any) -> int:
    # _spawn_wsgi_worker of each of its servers hands the number to compiled code, and then waits
    # for the worker's end.
    found: list[int] = []
    for frame in frames_of_all_threads():
        name = str(frame.f_globals.get("__name__"))
        if frame.f_code.co_name == "_spawn_wsgi_worker" and name.startswith("granian."):
            threads: object = frame.f_locals.get("blocking_threads")
            if isinstance(threads, int):
                found.append(threads)
    return min(found, default=1)


def _words(port: int, interface: str, app: str, options: Sequence[str]) -> list[str]:
    own = [f"--interface={interface}", "--access-log", "--workers-kill-timeout=1"]
    return ["-m", "granian", *own, *options, "--host=127.0.0.1", f"--port={port}", app]


ROOM: Final = Room(
    package="granian",
    program=Program(
        distribution="granian",
        words=_words,
        names=("granian",),
        backlog=1024,
    ),
    # It says 1005 to websockets, as uvicorn does. hyper sends the 100 (Conn.poll_read_body),
    # unless a response has begun; and it drops a stream of pieces when Content-Length has been
    # reached (its Encoder), which is what ASGIHTTPProtocol.receive takes for the client's
    # departure.
    asgi=Server("granian", Continue.LAZY, lost_code=1005, ends_at_length=True),
    # hyper ends the exchange when the Content-Length is out, and drops the rest of the body.
    # Its body sends the 100 when it is first polled.
    wsgi=Server("granian", Continue.LATE, ends_with_response=True, threads=_threads),
)
