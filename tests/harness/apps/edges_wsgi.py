"""Applications that do what few do, for what only a real gunicorn shows."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

from cleanclose.core import Event, snapshot
from cleanclose.wsgi import CleanCloseMiddleware

MIB = 1024 * 1024
EVENTS: list[dict[str, object]] = []


def record(event: Event) -> None:
    EVENTS.append(event.fields())


def application(environ: Any, start_response: Any) -> Iterable[bytes]:
    match environ["PATH_INFO"]:
        case "/events":
            body = json.dumps({"events": EVENTS, "counters": snapshot()}).encode()
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]
        case "/large":
            start_response("200 OK", [("Content-Length", str(30 * MIB))])
            return [b"x" * (30 * MIB)]
        case "/raises-late":
            return raises_late(start_response)
        case "/works-late":
            return works_late(start_response)
        case _:
            pass
    start_response("413 Too Large", [("Content-Length", "2")])
    return [b"no"]


def raises_late(start_response: Any) -> Iterator[bytes]:
    start_response("413 Too Large", [("Content-Length", "2")])
    yield b"no"
    raise LookupError("behind the last piece")


def works_late(start_response: Any) -> Iterator[bytes]:
    start_response("413 Too Large", [("Content-Length", "2")])
    yield b"no"
    time.sleep(2)


class OpaqueInput:
    """A ``wsgi.input`` behind which nobody can see, as some middleware makes them."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size)
        return data


def app(environ: Any, start_response: Any) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/opaque":
        environ["wsgi.input"] = OpaqueInput(environ["wsgi.input"])
    result: Iterable[bytes] = wrapped(environ, start_response)
    return result


wrapped: Any = application
if os.environ["CLEANCLOSE"] == "1":
    wrapped = CleanCloseMiddleware(
        application, outlets=[record], **json.loads(os.environ["CLEANCLOSE_SETTINGS"])
    )
