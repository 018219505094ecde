"""What is special about a server, as far as the rules ask for it.

The rows themselves are in `cleanclose.servers`, one module for each server; whoever has recognised
one hands it in. A server that nobody knows gets `UNKNOWN`, the careful default.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

__all__ = ["UNKNOWN", "Continue", "Server"]


class Continue(enum.Enum):
    """When a server sends ``100 Continue`` to a client that asked for it."""

    EAGER = "eager"
    """By itself, before the application runs: the body comes in any case."""

    LAZY = "lazy"
    """On the application's first read, and never once a response has begun."""

    LATE = "late"
    """On the first read, even behind the final response, where it would be a stray message."""


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """One row of the table.

    Args:
        name: The server's name, as events give it.
        sends_continue: When it sends ``100 Continue``.
        socket_key: The key of the WSGI environ which holds the client's socket, if any.
        gone_attributes: The attributes, with dots, of the object behind ASGI's ``receive``, of
            which one is there and is true once the peer has left.
        gone_is_settled: Whether that attribute stays false for a peer which leaves when the
            response is complete.
        after_end: What its ``receive`` and ``send`` do once a response is complete, in functions
            that need nothing of the request; None where that is not just one thing.
        arrived: The attribute, with dots, of the object behind ASGI's ``receive`` that has this
            value once all of the request's body has arrived.
        lost_code: The code, without a reason, that the server gives for a websocket which was
            lost without a close frame, besides 1006 (RFC 6455, section 7.4.1).
        hides_after_end: Whether it says nothing, at its usual level, about an exception that an
            ASGI application raises behind its complete response.
        reads_first: Whether it has read all of the body before it calls the application, so that
            there is nothing to discard.
        ends_at_length: Whether a response that comes in pieces is over for it with the last byte
            of its Content-Length, so that nothing can be read behind that; one that comes in one
            piece is over when the application returns.
        end_waits: Whether its ``send`` of a response's end waits until there is room in the
            queue of the body's pieces.
        heeds_close: Whether it closes the connection behind a response in which the application
            has set ``Connection: close``.
        ends_at_upgrade: Whether a request for an upgrade ends at its head for the parser of an ASGI
            server, whatever its body.
        connection: Where the client's connection is, as attributes with dots: of the object behind
            ASGI's ``receive``, or of the one behind ``send`` if ``receive`` has none. Each is a
            socket, or an asyncio transport. The first one that is there counts.
        closes: The attribute of the object behind ASGI's ``receive`` that, once false, makes the
            server close the connection when the response is complete.
        stops_reading: The method, as attributes with dots of the object behind ASGI's ``receive``,
            that has the server read no more of the connection: where it parses what comes while the
            application ends behind its response, and answers what it cannot parse.
        stopping: What tells that an ASGI server is stopping and waits for this exchange: an
            attribute with dots of the object behind ``receive`` (or behind ``send`` if ``receive``
            has none), which may be a method without arguments, and its value then.
        gone_key: The key of the WSGI environ which holds a callable that says so, if any.
        input_socket: Where ``wsgi.input`` holds the client's socket, as an attribute with dots,
            if it does and the environ does not.
        head_attribute: Where the object behind WSGI's ``start_response`` gathers the headers, as
            an attribute with dots, if a second call adds to them. (PEP 3333 wants it to replace
            them.)
        hides: Whether the server takes such an exception of a WSGI application for its
            client's: it says nothing of it, or lays it at the client's door, and sends no 500.
            None where that is not known.
        breaks_off: Whether an exception which is no `OSError` is what a WSGI server's input raises
            for a body that ends too early, if its client has left. None where there is no such.
        masks: Whether a WSGI server sends the head behind an application's exception, in a
            ``finally``: to a client that has left it cannot, and that error hides the other one.
        answers: Whether it answers 500 to the other exceptions of that kind.
        reads_from: Where the reader behind ``wsgi.input`` holds the client's socket, as attributes
            with dots. The first one that is there counts; the last name is the attribute's.
        ends_with_response: Whether the exchange is over with the response's last byte: what is
            to be read must have been read before.
        closes_last: Whether a WSGI server has sent everything when it calls the response's
            ``close()``: behind that it only closes the connection.
        closes_anyway: Whether a WSGI server closes the connection behind each response.
        keeps_quiet: Whether it closes without a ``Connection: close`` in the head, and takes one
            from the application: Node's fetch takes an end that was not announced for a fault.
        close: How to tell a WSGI server not to use the connection again, and not to read what is
            left of the body, from the object behind ``start_response`` and the ``wsgi.input``;
            before the head goes out if possible.
        when_closing: How to have a WSGI server call something in the place of its own shutting
            down of the connection, from the object behind ``start_response``.
        declares_length: Whether a WSGI server's Content-Length is that of the body which it gives
            to the application: not where filters may change one and leave the other.
        left_attribute: The attribute of ``wsgi.input`` that counts what is still to come of the
            body, where the server may read it by itself while the application does not.
        trailers: The method of ``wsgi.input`` that reads what follows the last chunk, where the
            server itself would take that for the next request.
        descriptor: The function, as ``module.name``, that gives the file descriptor of the
            client's connection, where there is no socket.
        raw_chunks: Whether a WSGI server hands a chunked body on as it comes, chunks and all, so
            that it ends for the application when the client has closed its half of the connection.
        replaces_head: Whether a WSGI server's ``start_response`` takes another head in place of one
            that it has not sent, and asks nothing of its ``exc_info`` then.
        relays: Whether a router of the server's own may stand between the client and the process,
            which closes the client's connection as soon as the process has closed its own.
        threads: How many requests a WSGI server's process serves at once, from the environ and the
            object behind ``start_response``; None if that cannot be seen.
        worker_timeout: After how many seconds in one request a WSGI server takes its worker for
            dead, from the same two; None if it does not.
    """

    name: str
    sends_continue: Continue
    socket_key: str | None = None
    gone_attributes: tuple[str, ...] = ()
    gone_is_settled: bool = False
    after_end: tuple[Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]] | None = None
    arrived: tuple[str, bool] | None = None
    lost_code: int = 1006
    hides_after_end: bool = False
    reads_first: bool = False
    ends_at_length: bool = False
    end_waits: bool = False
    heeds_close: bool = True
    ends_at_upgrade: bool = False
    connection: tuple[str, ...] = ()
    closes: str | None = None
    stops_reading: str | None = None
    stopping: tuple[str, bool] | None = None
    gone_key: str | None = None
    input_socket: str | None = None
    head_attribute: str | None = None
    hides: Callable[[OSError], bool] | None = None
    breaks_off: Callable[[Exception], bool] | None = None
    masks: bool = False
    answers: bool = True
    reads_from: tuple[str, ...] = ()
    ends_with_response: bool = False
    closes_last: bool = False
    closes_anyway: bool = False
    keeps_quiet: bool = False
    close: Callable[[Any, Any], None] | None = None
    when_closing: Callable[[Any, Callable[[], None]], None] | None = None
    declares_length: bool = True
    raw_chunks: bool = False
    replaces_head: bool = False
    left_attribute: str | None = None
    trailers: str | None = None
    descriptor: str | None = None
    relays: bool = False
    threads: Callable[[Mapping[str, Any], Any], int | None] | None = None
    worker_timeout: Callable[[Mapping[str, Any], Any], float | None] | None = None


UNKNOWN: Final = Server("unknown", Continue.LATE, ends_at_upgrade=True)
