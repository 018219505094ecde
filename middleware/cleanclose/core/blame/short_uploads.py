"""A body that ends before its declared length, on a server that hands the part over as the whole.

PEP 3333 lets a reading that finds the end return less than it was asked for, and has no word for
an end that comes too early. Three kinds of applications read such a body:

- One that counts for itself asks for no more than is left, and finds that less came. It answers
  400, or does whatever it does without us: it gets the end as it comes.
- One that leaves the counting to the server asks for more than is left, until nothing comes. The
  reading that finds the end raises: nothing else would notice.
- A framework that counts on behalf of its views and takes any end for the right one, but has a
  word of its own for a reading that raises. It raises, too.

Under a framework that makes a 500 and a traceback of whatever is raised, a reading that raises
tells nobody but the log that the client has left. There everybody gets the end as it comes.

Who counts, or seems to, and answers a success all the same has not noticed. Its answer does not
go out: the client gets a 400 in its place.
"""

from __future__ import annotations

from typing import Final

from cleanclose.core.blame.judge import CARRIERS
from cleanclose.core.blame.provenance import Place, calls_into, is_called_by

__all__ = ["is_cut_short", "is_raised", "is_refused"]

_COUNT_FOR_OTHERS: Final = frozenset({"django.core.handlers.wsgi"})
"""Modules that read for views and never look after the end: Django's LimitedStream. What it
reads in vain is an UnreadablePostError for its views."""

_CATCH_ALL: Final = frozenset({"bottle", "cherrypy", "falcon", "wsgidav"})
"""Packages that answer 500 to any exception of what they call, and print or log its traceback:
Bottle._handle, cherrypy's Request.run, falcon's App._python_error_handler, WsgiDAV's ErrorPrinter.
"""

_FIRST_ERROR: Final = 400


def is_raised(
    *, asked: int | None, left: int | None, reader: str, begun: bool, failing: bool, reset: bool
) -> bool:
    """Whether the reading that finds the end too early raises.

    Args:
        asked: For how many bytes it asked; None or a negative number for all there are.
        left: How many bytes of the body were still to come; None if its chunks would have told:
            who takes them apart finds that by itself.
        reader: The module that has called it.
        begun: Whether the response has begun with a success: it can only break off then.
        failing: Whether another exception is being handled, as in a ``finally``: it is the one
            to be seen.
        reset: Whether the client is known to have reset its connection: then the reading would
            have raised, if nobody had asked the kernel before.
    """
    if failing:
        return False
    if reset or left is None:
        return reset or begun
    counts = asked is not None and 0 <= asked <= left
    return begun or reader in _COUNT_FOR_OTHERS or not (counts or _is_caught())


def _is_caught() -> bool:
    """Whether what a reading raises here would become somebody's 500.

    Not if a client library reads: it would send half of the body on, and wait for an answer.
    """
    return bool(calls_into(_CATCH_ALL)) and not calls_into(CARRIERS)


def is_refused(status: int) -> bool:
    """Whether an answer to a body whose end came unnoticed must not go out.

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
"""What frameworks read with that says to the application, in words of its own, that its client has
left. Whatever it answers then, it has accepted nothing."""


def is_cut_short(*, body_complete: bool) -> bool:
    """Whether an application gets the word of the departure in the middle of its request's body.

    Asked while an ASGI application's ``receive`` brings that word. Not if whoever reads, in this
    thread, says to the application that its client has left. Falcon's stream, for one, ends like
    any other then.

    Args:
        body_complete: Whether the application has received all of the body.
    """
    return not (body_complete or any(is_called_by(place) for place in _SAYING))
