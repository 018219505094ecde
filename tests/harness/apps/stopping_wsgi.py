"""WSGI without a framework, for the tests about stopping work.

What became of it stands in the file that ``TEST_NOTES`` names, a line for each thing: some of
these servers serve one connection at a time.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from cleanclose.core import snapshot
from cleanclose.wsgi import CleanCloseMiddleware, Stoppable, raise_if_gone
from tests.harness import tap

LONG: Final = 20.0
_LOCK: Final = threading.Lock()


def note(what: str, environ: dict[str, Any]) -> None:
    line = {"what": what, "id": environ.get("HTTP_X_REQUEST_ID"), "at": time.monotonic()}
    with _LOCK, Path(os.environ["TEST_NOTES"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def poll(environ: dict[str, Any]) -> bytes:
    note("begun", environ)
    deadline = time.monotonic() + LONG
    try:
        while time.monotonic() < deadline:
            raise_if_gone()
            time.sleep(0.01)
    finally:
        note("ended", environ)
    return b"done"


def rows(environ: dict[str, Any]) -> Iterator[bytes]:
    note("begun", environ)
    deadline = time.monotonic() + LONG
    try:
        yield b"row\n"
        while time.monotonic() < deadline:
            time.sleep(0.01)
            # Nothing for the server to write: it would see the departure by itself.
            yield b""
    finally:
        note("ended", environ)


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    match environ["PATH_INFO"]:
        case "/poll":
            body = poll(environ)
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]
        case "/rows" | "/whole":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return rows(environ)
        case "/finite":
            start_response("200 OK", [("Content-Length", "200000")])
            return (b"x" * 20000 for _ in range(10))
        case _:
            body = json.dumps(snapshot()).encode()
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]


tap.tap_logging()
app: Any = application
if os.environ.get("CLEANCLOSE") == "1":
    app = CleanCloseMiddleware(
        application,
        outlets=tap.outlets() if tap.PATH_VARIABLE in os.environ else [],
        stop_work=Stoppable(paths=["/whole", "/finite"]),
    )
