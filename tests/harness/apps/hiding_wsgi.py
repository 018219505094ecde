"""The plain WSGI app, in a process in which one attribute of the server's is hidden from us."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import Any, Final

from tests.harness.hiding import hide_one

hide_one()

from cleanclose.wsgi import CleanCloseMiddleware  # noqa: E402 - what it keeps must be the hidden

_TEXT: Final = [("Content-Type", "text/plain")]


def served(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """``/read`` and ``/read-all`` read everything, ``/refuse`` nothing.

    ``/read-all`` finds the end by itself, and ``/raise`` fails behind its head.
    """
    match environ["PATH_INFO"]:
        case "/read" if "CONTENT_LENGTH" in environ:
            # Some servers do not say where it ends.
            body = b"%d\n" % len(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        case "/read" | "/read-all":
            body = b"%d\n" % len(environ["wsgi.input"].read())
        case "/refuse":
            start_response("413 Content Too Large", [*_TEXT, ("Content-Length", "4")])
            return [b"413\n"]
        case "/raise":
            start_response("200 OK", [*_TEXT, ("Content-Length", "3")])
            raise ConnectionResetError(errno.ECONNRESET, "an upstream's")
        case _:
            body = b"ok\n"
    start_response("200 OK", [*_TEXT, ("Content-Length", str(len(body)))])
    return [body]


app: Any = CleanCloseMiddleware(served) if os.environ.get("CLEANCLOSE") == "1" else served
