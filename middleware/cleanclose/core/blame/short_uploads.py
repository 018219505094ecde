"""A body that ends before its declared length, on a server that passes the part on as the whole.

PEP 3333 lets a read return fewer bytes than it was asked for when it meets the end, and does not
provide for an end that comes too early. Three kinds of code read such a body:

- An application that counts for itself asks for no more than is left, and sees that less came. It
  answers 400, or does whatever it would do without us: it gets the end unchanged.
- An application that relies on the server asks for more than is left until nothing comes. The read
  that meets the end raises, because nothing else would show that the body is short.
- A framework that counts on behalf of its views takes any end for the right one, but has an
  exception of its own for a read that raises. There the read raises, too.

Some frameworks turn every exception into a 500 and a traceback. There a read that raises would only
fill the log, so every reader gets the end unchanged.

An application that counts, or seems to, and still answers with success has not noticed the early
end. The middleware replaces its answer with a 400.
"""

from __future__ import annotations

from typing import Final

from cleanclose.core.blame.judge import CARRIERS
from cleanclose.core.blame.provenance import Place, calls_into, is_called_by

__all__ = ["is_cut_short", "is_raised", "is_refused"]

_COUNT_FOR_OTHERS: Final = frozenset({"django.core.handlers.wsgi"})
"""Modules that read for views and never check the end: Django's LimitedStream. If its read
raises, the view gets an UnreadablePostError."""

_CATCH_ALL: Final = frozenset({"bottle", "cherrypy", "falcon", "wsgidav"})
"""Packages that answer 500 to any exception of the code that they call, and print or log its
traceback: Bottle._handle, cherrypy's Request.run, falcon's App._python_error_handler, WsgiDAV's
ErrorPrinter.
"""

_FIRST_ERROR: Final = 400


def is_raised(
    *, asked: int | None, left: int | None, reader: str, begun: bool, failing: bool, reset: bool
) -> bool:
    """Whether a read that meets the end too early should raise.

    Args:
        asked: How many bytes it asked for; None or a negative number for all there are.
        left: How many bytes of the body were still to come; None for a chunked body, whose decoder
            notices the early end by itself.
        reader: The module that reads.
        begun: Whether a response with a success status has begun: it can then only break off.
        failing: Whether another exception is being handled, as in a ``finally``: that one must
            stay visible.
        reset: Whether the client is known to have reset its connection: the read would have
            raised then, if nobody had asked the kernel before.
    """
    if failing:
        return False
    if reset or left is None:
        return reset or begun
    counts = asked is not None and 0 <= asked <= left
    return begun or reader in _COUNT_FOR_OTHERS or not (counts or _is_caught())


def _is_caught() -> bool:
    """Whether an exception from a read here would become a framework's 500.

    This does not hold for a client library that reads: without the exception it would send half of
    the body on, and wait for an answer.
    """
    return bool(calls_into(_CATCH_ALL)) and not calls_into(CARRIERS)


def is_refused(status: int) -> bool:
    """Whether to withhold an answer to a body whose early end the application did not notice.

    Args:
        status: The answer's status.
    """
    return status < _FIRST_ERROR


_SAYING: Final = (
    # It raises RequestAborted for its views, or cancels them.
    Place(
        "django.core.handlers.asgi",
        frozenset({"ASGIHandler.listen_for_disconnect", "ASGIHandler.read_body"}),
    ),
    # InternalServerException, for a handler that reads.
    Place("litestar.connection.request", frozenset({"Request.stream"})),
    # ClientDisconnect; True.
    Place("starlette.requests", frozenset({"Request.stream", "Request.is_disconnected"})),
)
"""Readers of frameworks that raise an exception of their own when the client has left. Whatever the
application answers after that, it has not accepted the body."""


def is_cut_short(*, body_complete: bool) -> bool:
    """Whether an application learns of the departure in the middle of its request's body.

    Call it while an ASGI application's ``receive`` returns that message. The answer is no if this
    thread's reader reports to the application that its client has left. Some readers do not report
    it: Falcon's stream, for example, then ends like any other.

    Args:
        body_complete: Whether the application has received all of the body.
    """
    return not (body_complete or any(is_called_by(place) for place in _SAYING))
