"""Which responses may be early ones, and which of them need a reader while they go out."""

from __future__ import annotations

from cleanclose.core.blame.watch import Watch
from cleanclose.core.conduct import is_unanswered
from cleanclose.core.deliver.exchange import Exchange
from cleanclose.core.deliver.patience import Patience
from cleanclose.core.deliver.pieces import may_block
from cleanclose.core.events import Phase
from cleanclose.core.server import Server

__all__ = [
    "fails_early",
    "is_behind_response",
    "is_stopped",
    "is_unwanted",
    "leave_alone",
    "leaves_rest",
    "may_be_early",
    "may_read_ahead",
    "needs_reader",
    "says_close",
]


def leave_alone(watch: Watch) -> None:
    """Send an exchange's response as if there were no middleware: the application wants that.

    It has no effect once the response has begun.

    Args:
        watch: The exchange.
    """
    watch.left_alone = True
    delivery = watch.delivery
    if delivery is not None and not delivery.response_begun:
        delivery.leave_alone()


def says_close(watch: Watch, server: Server) -> bool:
    """Whether a response's head announces that the connection will be closed.

    This is for a response that begins while the body is incomplete, whether or not it will be an
    early one: the head goes to the server before anybody knows that.

    Args:
        watch: The exchange.
        server: The server.
    """
    return server.keeps_quiet and not watch.left_alone


def is_stopped(watch: Watch) -> bool:
    """Whether the work was stopped, so that there is nobody to deliver a response to.

    Args:
        watch: The exchange.
    """
    return watch.stops is not None and watch.stops.stopped


def is_unwanted(watch: Watch | None) -> bool:
    """Whether an answer would be for nobody, because work is being stopped for that reason.

    Args:
        watch: The exchange; None outside of one.
    """
    return watch is not None and watch.stops is not None and watch.stops.gone


def may_be_early(watch: Watch) -> bool:
    """Whether a response that begins now may be an early one, and needs an `Exchange`.

    Not if all of the body has arrived: nobody is uploading any more, and the connection can be used
    again as it is.

    Args:
        watch: The exchange. It is asked for what else it can see.
    """
    if watch.body_arrived or watch.body_complete or is_stopped(watch):
        return False
    watch.ask()
    return watch.departure is None or watch.phase is Phase.REQUEST_BODY


def fails_early(watch: Watch, error: BaseException) -> bool:
    """Whether somebody has still to answer for an application that failed during an upload.

    Args:
        watch: The exchange.
        error: What the application has raised.
    """
    return is_unanswered(
        error,
        begun=watch.status is not None,
        body_complete=watch.body_arrived or watch.body_complete,
        stopped=is_stopped(watch),
    )


def leaves_rest(exchange: Exchange, *, failed: bool) -> bool:
    """Whether a part of the body stays on the connection, so that no request may follow there.

    Args:
        exchange: The exchange, whose response is complete.
        failed: Whether a reading of the body has failed: the server would take what is left of it
            for the next request.
    """
    return not exchange.body_complete and (exchange.early or failed)


def may_read_ahead(exchange: Exchange) -> bool:
    """Whether somebody has still to read what came with a request's head: no drain has taken it.

    Args:
        exchange: The exchange, whose response is complete.
    """
    return exchange.may_read and exchange.patience is Patience.NONE


def is_behind_response(exchange: Exchange, error: Exception, *, all_sent: bool) -> bool:
    """Whether an error of a server's ``send`` concerns only the connection behind the response.

    A server may close the connection within that call. The lingerer knows then how it ended.

    Args:
        exchange: The exchange.
        error: The error.
        all_sent: Whether the server has got all of the response.
    """
    return all_sent and exchange.handed_over and isinstance(error, OSError)


def needs_reader(exchange: Exchange, server: Server, size: int) -> bool:
    """Whether a server's ``send`` of so many bytes may only return if somebody reads the body.

    Args:
        exchange: The exchange.
        server: The server.
        size: The response's bytes; 0 for somebody else's, whose size nobody knows.
    """
    return exchange.may_read and (server.end_waits or may_block(size))
