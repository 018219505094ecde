"""Asking a server on this machine for something, as somebody who has time."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from typing import Any

from cleanclose.doctor.wire import Transcript, read_transcript
from tests.harness.waiting import LIMIT

__all__ = ["get", "get_json", "post_and_get", "status_of"]


def get(port: int, path: str = "/") -> tuple[int, bytes]:
    """The status and the body that a GET is answered with, on a connection of its own.

    Args:
        port: The server's port.
        path: The path.

    Raises:
        OSError: The connection broke.
        http.client.HTTPException: The response did.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read()


def get_json(port: int, path: str = "/") -> Any:
    """The JSON of a good answer."""
    status, body = get(port, path)
    assert status == 200, body
    return json.loads(body)


def status_of(port: int, path: str) -> int | None:
    """The status of an answer; None if it breaks off."""
    try:
        return get(port, path)[0]
    except (OSError, http.client.HTTPException):
        return None


def post_and_get(port: int, path: str, *, chunked: bool) -> Transcript:
    """POST a small body in one piece with its head, and GET / behind the answer.

    Args:
        port: The server's port.
        path: The POST's path.
        chunked: Whether the body is chunked; if not, it has a Content-Length.

    Raises:
        OSError: The connection broke.
    """
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 1000"
    body = b"3e8\r\n%s\r\n0\r\n\r\n" % (b"x" * 1000) if chunked else b"x" * 1000
    head = b"POST %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n" % (path.encode(), framing)
    received = b""
    with socket.create_connection(("127.0.0.1", port), LIMIT) as client:
        client.sendall(head + body)
        while b"\r\n\r\n" not in received:
            piece = client.recv(65536)
            assert piece, received
            received += piece
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while piece := client.recv(65536):
            received += piece
    return read_transcript(received, "POST", "GET")
