"""How a shim hands a connection over whose early response is about to go out."""

from __future__ import annotations

from collections.abc import Callable

from cleanclose.core.deliver.exchange import Exchange
from cleanclose.core.deliver.patience import LOOKS_BEHIND
from cleanclose.core.setup import Setup
from cleanclose.linger._entry import Handover
from cleanclose.linger._lingerer import LINGERER, Taken

__all__ = ["hand_over", "look_soon"]


def hand_over(
    exchange: Exchange,
    setup: Setup,
    number: int | None,
    now: float,
    *,
    unread: int = 0,
    reads: bool = False,
    notified: bool = False,
) -> Taken | None:
    """Hand a connection to the lingerer, which has a duplicate of it from then on.

    Args:
        exchange: The exchange, whose event the lingerer will report.
        setup: Its limits and its reporter.
        number: The server's descriptor of the connection; None if it has none any more.
        now: The time.
        unread: Bytes that the server has taken from the connection, and that nobody will get.
        reads: Whether the server certainly reads no more (`cleanclose.core.deliver.linger.Linger`).
        notified: Whether the shim will notify what this returns.

    Returns:
        The object to notify when the response is out; None if no descriptor was left. The exchange
        knows then.
    """
    linger = exchange.linger(now, unread=unread)
    linger.reads = reads
    handover = Handover(
        linger=linger,
        report=setup.reporter.report,
        most=setup.settings.max_lingering,
        held_as=number,
        notified=notified,
    )
    taken = None if number is None else LINGERER.take(number, handover)
    if taken is None:
        exchange.no_descriptor()
    return taken


def look_soon(
    taken: Taken, next_turn: Callable[[Callable[[], None]], object], turns: int = LOOKS_BEHIND
) -> None:
    """Look whether a server has let go that sends, and closes, in the next turns of an event loop.

    Args:
        taken: The connection.
        next_turn: Calls a function in the loop's next turn.
        turns: How many turns to look. After the last one the lingerer looks by itself.
    """

    def look() -> None:
        if turns > 1 and taken.is_held():
            look_soon(taken, next_turn, turns - 1)
        else:
            taken.look()

    next_turn(look)
