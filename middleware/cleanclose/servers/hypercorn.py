"""hypercorn, on asyncio and on trio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cleanclose.core.blame.records import Lines
from cleanclose.core.private import Private
from cleanclose.core.server import Continue, Server
from cleanclose.servers._program import Program
from cleanclose.servers._room import Room

__all__ = ["ROOM"]

_NO_SOCKET: Final = (
    "The client's socket is out of reach: an early response is drained first, and a reset is not "
    "seen before the server reads."
)


def _words(port: int, interface: str, app: str, options: Sequence[str]) -> list[str]:
    own = ["--access-logfile=-", "--graceful-timeout=1"]
    return ["-m", "hypercorn", *own, *options, f"--bind=127.0.0.1:{port}", app]


ROOM: Final = Room(
    package="hypercorn",
    program=Program(
        distribution="hypercorn",
        words=_words,
        names=("hypercorn",),
        backlog=100,
        keep_alive=5,
        keep_alive_options=("--keep-alive",),
    ),
    # asyncio.TaskGroup.spawn_app gives the application a plain asyncio.Queue's get, of ten pieces
    # (Config.max_app_queue_size); trio's a memory channel's receive. H11Protocol._handle_events
    # sends the 100 before anything is read. HTTPStream.handle puts the http.disconnect into the
    # queue within the send() of a response's end, and what is at the other end fills it. It closes
    # the connection within that call, too, which raises the errors of ending TLS.
    # HTTPStream.send is H11Protocol.stream_send, whose send is TCPServer.protocol_send, of asyncio
    # (with a StreamWriter) or trio (with a stream, which over TLS has another one below).
    asgi=Server(
        "hypercorn",
        Continue.EAGER,
        end_waits=True,
        connection=(
            "send.__self__.send.__self__.writer",
            "send.__self__.send.__self__.stream.transport_stream.socket",
            "send.__self__.send.__self__.stream.socket",
        ),
        # WorkerContext.terminated, an event of either loop.
        stopping=("context.terminated.is_set", True),
    ),
    loggers={"hypercorn.error": Lines()},
    private=(
        *(
            Private(owner, attribute, _NO_SOCKET)
            for owner, attribute in (
                ("hypercorn.protocol.http_stream.HTTPStream", "send"),
                ("hypercorn.protocol.h11.H11Protocol", "send"),
                ("hypercorn.asyncio.tcp_server.TCPServer", "writer"),
                ("hypercorn.trio.tcp_server.TCPServer", "stream"),
            )
        ),
        *(
            Private(owner, attribute, "A stop of the server is not seen while a body is drained.")
            for owner, attribute in (
                ("hypercorn.protocol.http_stream.HTTPStream", "context"),
                ("hypercorn.asyncio.worker_context.WorkerContext", "terminated"),
                ("hypercorn.trio.worker_context.WorkerContext", "terminated"),
            )
        ),
    ),
)
