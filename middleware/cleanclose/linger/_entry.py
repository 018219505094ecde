"""A connection that is handed over, and what the lingerer notes of it."""

from __future__ import annotations

import contextvars
import dataclasses
import math
from collections.abc import Callable

from cleanclose.core.blame.watch import CURRENT
from cleanclose.core.deliver.linger import Linger
from cleanclose.core.events import Event
from cleanclose.linger._sockets import Descriptor

__all__ = ["Entry", "Handover"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Handover:
    """A connection that is handed over.

    Args:
        linger: Its state, with the rules.
        report: Called with the event at the end, in the context of the hand-over.
        most: How many connections may linger (`cleanclose.core.Settings.max_lingering`).
        held_as: The number of the server's own descriptor: once that is closed, the connection is
            the lingerer's. None if the server has let go already.
        notified: Whether the shim calls a method of `Taken` when the server may have let go. Nobody
            looks before that, within `cleanclose.linger._lingerer.UNNOTIFIED` seconds.
    """

    linger: Linger
    report: Callable[[Event], None]
    most: int
    held_as: int | None = None
    notified: bool = False


class Entry:
    """One lingering connection."""

    __slots__ = (
        "address",
        "context",
        "descriptor",
        "due",
        "handover",
        "held_as",
        "linger",
        "registered",
        "shut",
    )

    def __init__(self, descriptor: Descriptor, handover: Handover) -> None:
        self.descriptor: Descriptor = descriptor
        self.handover: Handover = handover
        self.linger: Linger = handover.linger
        self.held_as: int | None = handover.held_as
        self.address: str | None = descriptor.address()
        self.context: contextvars.Context = contextvars.copy_context()
        # Keeping it would keep the server's buffers for this request.
        self.context.run(CURRENT.set, None)
        self.registered: bool = False
        self.shut: bool = False
        self.due: float = math.inf
