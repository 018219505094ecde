"""The page on WSGI, by Werkzeug's request and response."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.wrappers import Request, Response

from cleanclose.integrations.status.showing import ALLOW, Show

__all__ = ["respond"]


def respond(
    show: Show, environ: dict[str, Any], start_response: Callable[..., Any]
) -> Iterable[bytes]:
    """Answer one request for the page.

    Args:
        show: Makes the page for a client that sends this in ``Accept``.
        environ: The request.
        start_response: The server's.
    """
    request = Request(environ)
    if request.method in ALLOW.split(", "):
        shown = show(request.headers.get("Accept", ""))
        # For HEAD it leaves the body out.
        response = Response(shown.body, headers=dict(shown.headers))
    else:
        response = Response(status=405, headers={"Allow": ALLOW})
    return response(environ, start_response)
