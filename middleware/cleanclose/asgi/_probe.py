"""Asks the object behind a server's ``receive`` whether the peer has left."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any, Final, cast

from cleanclose.asgi._messages import Message, Receive, Send
from cleanclose.core import Witness
from cleanclose.servers import asgi_server, gone_sign, waiting_messages

__all__ = ["PROBES", "Probe", "probe_of"]


@dataclasses.dataclass(frozen=True, slots=True)
class Probe:
    """How to ask a server's ``receive`` whether the peer has left.

    Args:
        gone: The function that tells, given the callable.
        witness: What it is as a witness.
        is_queue: Whether it is a queue with the server's messages, and ``gone`` returns one.
        settled: Whether the answer stays "no" once the response is complete, so that it may be
            asked later as well.
        emptied: The row's `cleanclose.core.server.Server.after_end`.
    """

    gone: Callable[[object], object]
    witness: Witness
    is_queue: bool = False
    settled: bool = False
    emptied: tuple[Receive, Send] | None = None


PROBES: Final[dict[object, Probe | None]] = {}
"""By the function behind ``receive``. A memo, and no state."""
SETTLED: Final[dict[type, tuple[Callable[[Any], object], tuple[Receive, Send] | None]]] = {}
"""Those of them that stay "no" behind the response, as every request asks them, by the class of
the object behind ``receive``: what tells it of that object, and `Probe.emptied`."""
_MOST_PROBES: Final = 64


def probe_of(receive: Receive) -> Probe | None:
    """How to ask; None if there is nothing to ask."""
    # Not a method: there is no object behind it to ask.
    function: object = getattr(receive, "__func__", None)
    try:
        return PROBES[function]
    except KeyError:
        pass
    if len(PROBES) >= _MOST_PROBES:
        # Somebody makes a class for each request.
        PROBES.clear()
        SETTLED.clear()
    probe = PROBES[function] = None if function is None else _find_probe(receive)
    if probe is not None and probe.settled:
        owner: object = getattr(receive, "__self__", None)
        sign = gone_sign(owner, asgi_server(receive))
        if sign is not None:
            SETTLED[type(owner)] = (sign, probe.emptied)
    return probe


def _find_probe(receive: Receive) -> Probe | None:
    owner: object = getattr(receive, "__self__", None)
    if isinstance(owner, asyncio.Queue):
        return Probe(_last_word, Witness.RECEIVE, is_queue=True)
    server = asgi_server(receive)
    sign = gone_sign(owner, server)
    if sign is None:
        return None

    def gone(receive: Any) -> object:
        return sign(receive.__self__)

    return Probe(gone, Witness.SERVER, settled=server.gone_is_settled, emptied=server.after_end)


def _last_word(receive: object) -> Message | None:
    """The message in a server's queue that says that the peer has left, if there is one."""
    waiting = waiting_messages(receive)
    if waiting and waiting[-1]["type"].endswith(".disconnect"):
        return cast("Message", waiting[-1])
    return None
