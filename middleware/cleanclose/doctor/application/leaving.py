"""Clients that leave at a chosen moment: with a reset, or in good order."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from typing import Final, Literal

from cleanclose.doctor.application import routes
from cleanclose.doctor.application.results import Answer
from cleanclose.testing.wire import WireReader

__all__ = ["How", "Place", "leave"]

How = Literal["reset", "close"]
Place = Literal["headers", "body", "handler", "response", "keep-alive"]

_LINGER_0: Final = struct.pack("ii", 1, 0)
_SETTLE: Final = 0.05
"""Seconds in which the server can read the last bytes before the client leaves."""
_ANSWER_SECONDS: Final = 2.0
_DECLARED: Final = 1024 * 1024
_SENT: Final = 64 * 1024
_READ: Final = 64 * 1024


def leave(
    port: int,
    case: str,
    place: Place,
    how: How,
    begun: Callable[[], object],
    *,
    path: str | None = None,
    method: str | None = None,
    headers: tuple[tuple[str, str], ...] = (),
) -> Answer:
    """Open a connection, go as far as a place in the exchange, and leave.

    Args:
        port: The server's.
        case: The case's name, for the server's process.
        place: Where to leave.
        how: With RST, or with FIN. In the body, FIN means: send no more, but read the answer.
        begun: Waits until the application has the request.
        path: The path; None for the doctor's route that suits the place.
        method: The method; None for the one that suits it.
        headers: More headers.

    Returns:
        ``left``, or the answer to the body that was cut short.
    """
    method = method or ("POST" if place in ("headers", "body") else "GET")
    length = _DECLARED if place == "body" else 0 if method not in ("GET", "HEAD") else None
    head = _head(method, path or _ROUTES[place], case, length, headers)
    # Nobody knows the length of an answer that is not ours.
    first = _READ if path is None else 1
    with socket.create_connection(("127.0.0.1", port), timeout=5.0) as sock:
        try:
            return _conversation(sock, head, place, how, begun, first)
        except OSError as error:
            return Answer(kind="left", detail=f"the server was faster: {error}")


def _conversation(
    sock: socket.socket,
    head: bytes,
    place: Place,
    how: How,
    begun: Callable[[], object],
    first: int,
) -> Answer:
    if place == "headers":
        sock.sendall(head[: len(head) // 2])
        time.sleep(_SETTLE)
    elif place == "body":
        sock.sendall(head + b"x" * _SENT)
        begun()
        time.sleep(_SETTLE)
        if how == "close":
            return _answer_to_half_close(sock)
    elif place == "handler":
        sock.sendall(head)
        begun()
        time.sleep(_SETTLE)
    elif place == "response":
        sock.sendall(head)
        left = first
        while left > 0 and (data := sock.recv(left)):
            left -= len(data)
    else:
        sock.sendall(head)
        if _read_answer(sock).kind != "answered":
            return Answer(kind="lost", detail="the request before the pause was not answered")
        time.sleep(_SETTLE)
    if how == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
    return Answer(kind="left")


def _answer_to_half_close(sock: socket.socket) -> Answer:
    sock.shutdown(socket.SHUT_WR)
    answer = _read_answer(sock)
    return answer if answer.kind == "answered" else Answer(kind="left", detail=answer.detail)


def _read_answer(sock: socket.socket) -> Answer:
    wire = WireReader()
    wire.expect("POST")
    sock.settimeout(_ANSWER_SECONDS)
    with contextlib.suppress(OSError):
        while wire.waiting and (data := sock.recv(65536)):
            wire.feed(data)
    wire.end()
    response = wire.transcript().first
    if response is None:
        return Answer(kind="lost", detail="no answer")
    return Answer(kind="answered", status=response.status, server=response.header("Server"))


def _head(
    method: str,
    path: str,
    case: str,
    length: int | None,
    headers: tuple[tuple[str, str], ...],
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"{routes.CASE_HEADER}: {case}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


_ROUTES: Final[dict[Place, str]] = {
    "headers": routes.READ,
    "body": routes.READ,
    "handler": routes.SLOW,
    "response": routes.STREAM,
    "keep-alive": routes.READY,
}
