"""Asking what stands behind a server's ``receive`` whether the peer has left."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, cast

from cleanclose.asgi._messages import Message, Receive, Send
from cleanclose.core import Witness
from cleanclose.servers import asgi_server, find, gone_sign

__all__ = ["PROBES", "Probe", "probe_of"]


@dataclasses.dataclass(frozen=True, slots=True)
class Probe:
    """How an object behind ``receive`` is asked whether the peer has left.

    Args:
        gone: What tells it.
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
_MOST_PROBES: Final = 64


def probe_of(receive: Receive) -> Probe | None:
    """How to ask; None where there is nothing that could be asked."""
    # No method: there is no object behind it that could be asked.
    function: object = getattr(receive, "__func__", None)
    try:
        return PROBES[function]
    except KeyError:
        pass
    if len(PROBES) >= _MOST_PROBES:
        # Somebody makes a class for each request.
        PROBES.clear()
    probe = PROBES[function] = None if function is None else _find_probe(receive)
    return probe


def _find_probe(receive: Receive) -> Probe | None:
    owner: object = getattr(receive, "__self__", None)
    if isinstance(owner, asyncio.Queue):
        return Probe(_last_word, Witness.RECEIVE, is_queue=True)
    sign = gone_sign(receive)
    if sign is None:
        return None
    server = asgi_server(receive)
    return Probe(sign, Witness.SERVER, settled=server.gone_is_settled, emptied=server.after_end)


def _last_word(owner: object) -> Message | None:
    """The message in a server's queue which says that the peer has left, if it is there.

    It is only looked at, not taken: the application may wait for it. In every Python so far
    (and as the documented `asyncio.Queue._get` has it) a queue is a deque by this name.
    """
    waiting = find(owner, "_queue")
    if isinstance(waiting, deque) and waiting:
        message = cast("Sequence[Message]", waiting)[-1]
        if message["type"].endswith(".disconnect"):
            return message
    return None
