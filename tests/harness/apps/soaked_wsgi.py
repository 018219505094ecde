"""The plain WSGI app for the soak: with outlets that misbehave, and a census."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cleanclose.wsgi import CleanCloseMiddleware
from tests.harness.apps import raw_wsgi, routes, soaking

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def bare(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The app."""
    if environ["PATH_INFO"] != soaking.CENSUS:
        return raw_wsgi.bare(environ, start_response)
    body = soaking.census(None, raw_wsgi.seen)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


app: Any = bare
if routes.wrapped():
    app = CleanCloseMiddleware(bare, outlets=soaking.outlets(), **routes.settings())
