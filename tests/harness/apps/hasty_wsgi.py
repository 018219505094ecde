"""The plain WSGI app with a delivery as it must not be: the control for what is no request.

It answers at once, and then reads the body through ``wsgi.input`` until that has been silent for a
while, as though what comes afterwards were the next request.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from tests.harness.apps import raw_wsgi, routes

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SILENCE: Final = 0.3


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The app."""
    result = raw_wsgi.bare(environ, start_response)
    return _read_behind(environ, result) if environ["PATH_INFO"] == routes.REFUSE else result


def _read_behind(environ: WSGIEnvironment, result: Iterable[bytes]) -> Iterator[bytes]:
    yield from result
    sock = environ["gunicorn.socket"]
    sock.settimeout(SILENCE)
    # A time-out, and what each version of gunicorn raises when it is read again behind one.
    with contextlib.suppress(Exception):
        while environ["wsgi.input"].read(100):
            pass
    sock.settimeout(None)
