"""How to ask the object behind an ASGI server's ``receive`` whether the peer has left."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from cleanclose.core.blame.calls import Shows
from cleanclose.core.events import Witness
from cleanclose.servers._lookup import asgi_server, gone_sign, waiting_messages

__all__ = ["SETTLED", "Sign", "sign_of"]

AfterEnd = tuple[Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]]


@dataclasses.dataclass(frozen=True, slots=True)
class Sign:
    """The sign by which a server's ``receive`` shows that the peer has left.

    Args:
        shows: Of which kind it is.
        gone: The function that tells, given the callable: the message itself if it shows those.
        witness: What it is as a witness.
    """

    shows: Shows
    gone: Callable[[Any], Any]
    witness: Witness


_NO_SIGN: Final = Sign(Shows.NOTHING, lambda _: None, Witness.SERVER)
_SIGNS: Final[dict[object, Sign]] = {}
"""By the function behind ``receive``. A memo, and no state."""
SETTLED: Final[dict[type, tuple[Callable[[Any], object], AfterEnd | None]]] = {}
"""Those that are settled, as every request asks them, by the class of the object behind
``receive``: what tells it of that object, and the row's
`cleanclose.core.server.Server.after_end`."""
_MOST_SIGNS: Final = 64


def sign_of(receive: object) -> Sign:
    """How to ask a server whether the peer has left.

    Args:
        receive: The callable as the server gave it.
    """
    # Not a method: there is no object behind it to ask.
    function: object = getattr(receive, "__func__", None)
    try:
        return _SIGNS[function]
    except KeyError:
        pass
    if len(_SIGNS) >= _MOST_SIGNS:
        # Somebody makes a class for each request.
        _SIGNS.clear()
        SETTLED.clear()
    sign = _SIGNS[function] = _NO_SIGN if function is None else _find_sign(receive)
    return sign


def _find_sign(receive: object) -> Sign:
    owner: object = getattr(receive, "__self__", None)
    if isinstance(owner, asyncio.Queue):
        return Sign(Shows.MESSAGES, _last_word, Witness.RECEIVE)
    server = asgi_server(receive)
    tells = gone_sign(owner, server)
    if tells is None:
        return _NO_SIGN
    if server.gone_is_settled:
        SETTLED[type(owner)] = (tells, server.after_end)
    shows = Shows.SETTLED if server.gone_is_settled else Shows.STATE
    return Sign(shows, lambda receive: tells(receive.__self__), Witness.SERVER)


def _last_word(receive: object) -> Mapping[str, Any] | None:
    """The message in a server's queue that says that the peer has left, if there is one."""
    waiting = waiting_messages(receive)
    return waiting[-1] if waiting and waiting[-1]["type"].endswith(".disconnect") else None
