"""gunicorn: its WSGI workers, and the ASGI worker of its own."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cleanclose.core.blame.records import Lines
from cleanclose.core.private import Private
from cleanclose.core.server import Continue, Server
from cleanclose.servers._asking import find, number
from cleanclose.servers._program import Program
from cleanclose.servers._room import Room

__all__ = ["ROOM"]

_IGNORED: Final = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN})


def _hides(error: OSError) -> bool:
    # handle() of each worker. Every SSLError is the client's there: the end of a connection is a
    # debug line, all others are a 403 and an "Invalid request".
    return isinstance(error, ssl.SSLError) or error.errno in _IGNORED


def _close(response: Any, body: Any) -> None:
    # It puts Connection: close into the head, too.
    force_close = find(response, "force_close")
    if callable(force_close):
        force_close()


def _threads(environ: Mapping[str, Any], response: Any) -> int | None:
    return number(response, "cfg.threads")


def _worker_timeout(environ: Mapping[str, Any], response: Any) -> float | None:
    # The sync worker says that it is alive between two requests only.
    if environ.get("wsgi.multithread"):
        return None
    timeout = find(response, "cfg.timeout")
    return float(timeout) if isinstance(timeout, int | float) and timeout > 0 else None


_PROTOCOL: Final = "gunicorn.asgi.protocol.ASGIProtocol"
_NO_SOCKET: Final = (
    "The client's socket is out of reach: an early response is drained first, and a reset is not "
    "seen before the server reads."
)
_NOT_SEEN: Final = "A departure is seen only when the application asks for a message."
_NOT_DRAINED: Final = "An early response is sent and lingers, but nothing is drained before."
_RESPONSE: Final = "gunicorn.http.wsgi.Response"


def _words(port: int, interface: str, app: str, options: Sequence[str]) -> list[str]:
    # Not at the top: it takes longer to import than all of the rooms.
    from importlib.metadata import version

    given = any(option.startswith(("-k", "--worker-class", "-c", "--config")) for option in options)
    worker = ["--worker-class=asgi"] if interface == "asgi" and not given else []
    own = ["--access-logfile=-", "--graceful-timeout=1"]
    if int(version("gunicorn").partition(".")[0]) >= 27:
        own.append("--no-control-socket")
    return ["-m", "gunicorn", *own, *worker, *options, f"--bind=127.0.0.1:{port}", app]


ROOM: Final = Room(
    package="gunicorn",
    program=Program(
        distribution="gunicorn",
        words=_words,
        names=("gunicorn",),
        backlog=2048,
        keep_alive=2,
        keep_alive_options=("--keep-alive",),
    ),
    # ASGIProtocol.connection_lost sets them, for HTTP and for websockets. The state that receive()
    # itself keeps is no sign: giving up a call of it leaves it closed.
    # ASGIProtocol._handle_http_request logs what comes after the end at DEBUG, without the
    # exception. BodyReceiver.receive sends the 100, and a response's start takes that back.
    # ASGIProtocol._will_close looks at the request's headers, not at the response's.
    asgi=Server(
        "gunicorn-asgi",
        Continue.LAZY,
        gone_attributes=("protocol._closed", "_eof"),
        # BodyReceiver.set_complete.
        arrived=("_complete", True),
        hides_after_end=True,
        connection=("protocol.transport",),
        # ASGIProtocol._feed_callback_parser sends a 400 of its own until the application returns.
        stops_reading="protocol.transport.pause_reading",
        stopping=("protocol.worker.alive", False),
    ),
    environ_key="gunicorn.socket",
    # gunicorn.http.wsgi.create sends the 100 before the application is called.
    wsgi=Server(
        "gunicorn",
        Continue.EAGER,
        "gunicorn.socket",
        head_attribute="headers",
        hides=_hides,
        replaces_head=True,
        # handle() of each worker: a "Socket error processing request", and an empty reply.
        answers=False,
        # SocketUnreader.sock, of LengthReader and EOFReader, and of ChunkedReader's request.
        reads_from=("reader.unreader.sock", "reader.req.unreader.sock"),
        closes_last=True,
        close=_close,
        threads=_threads,
        worker_timeout=_worker_timeout,
    ),
    loggers={
        # Worker.handle_error says it of every SSLError, the application's included.
        "gunicorn.error": Lines(in_a_handshake=frozenset({"gunicorn", "gevent", "ssl"})),
    },
    private=(
        Private("gunicorn.asgi.protocol.BodyReceiver", "protocol", f"{_NO_SOCKET} {_NOT_SEEN}"),
        Private(
            "gunicorn.asgi.protocol.BodyReceiver",
            "_complete",
            "A client that leaves after an unread body counts as having left within it.",
        ),
        Private(_PROTOCOL, "_closed", _NOT_SEEN),
        Private("gunicorn.asgi.websocket.WebSocketProtocol", "_eof", _NOT_SEEN),
        Private(_PROTOCOL, "transport", _NO_SOCKET),
        Private(_PROTOCOL, "worker", "A stop of the server is not seen while a body is drained."),
        Private("gunicorn.http.body.Body", "reader", _NOT_DRAINED),
        Private("gunicorn.http.body.LengthReader", "unreader", _NOT_DRAINED),
        Private("gunicorn.http.unreader.SocketUnreader", "sock", _NOT_DRAINED),
        Private(
            _RESPONSE, "force_close", "The head of an early response has no Connection: close."
        ),
        Private(
            _RESPONSE,
            "headers",
            "The head of an answer to a departed client is added to the application's own.",
        ),
        Private(
            _RESPONSE,
            "cfg",
            "As many requests are drained at once as in a worker with two threads, and a sync "
            "worker's timeout is not heeded.",
        ),
    ),
)
