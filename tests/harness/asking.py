"""Asking a server on this machine for something, as somebody who has time."""

from __future__ import annotations

import contextlib
import http.client
import json
from typing import Any

from tests.harness.waiting import LIMIT

__all__ = ["get", "get_json", "status_of"]


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
