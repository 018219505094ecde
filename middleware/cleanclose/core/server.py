"""What is special about a server, as far as the rules need to know.

The rows are in `cleanclose.servers`, one module for each server; the code that recognises a server
passes its row in. An unknown server gets `UNKNOWN`, the careful default.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cleanclose.core.deliver.draining import Drained
    from cleanclose.core.deliver.table import Step

__all__ = ["UNKNOWN", "Continue", "Server"]


class Continue(enum.Enum):
    """When a server sends ``100 Continue`` to a client that asked for it."""

    EAGER = "eager"
    """By itself, before the application runs: the body always comes."""

    LAZY = "lazy"
    """On the application's first read, and never once a response has begun."""

    LATE = "late"
    """On the first read, even after the final response, where it would be a stray message."""


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """One row of the table.

    Args:
        name: The server's name, as events give it.
        sends_continue: When it sends ``100 Continue``.
        socket_key: The key of the WSGI environ which holds the client's socket, if any.
        gone_attributes: Dotted attributes of the object behind ASGI's ``receive``. One of them
            exists, and becomes true once the peer has left.
        gone_is_settled: Whether that attribute stays false for a peer that leaves after the
            response is complete.
        after_end: Functions that do what its ``receive`` and ``send`` do once a response is
            complete, without needing the request; None if that is not always the same.
        arrived: A dotted attribute of the object behind ASGI's ``receive``, and the value that it
            has once all of the request's body has arrived.
        lost_code: The code, without a reason, that the server gives for a websocket which was
            lost without a close frame, besides 1006 (RFC 6455, section 7.4.1).
        hides_after_end: Whether, at its usual level, it does not log an exception that an ASGI
            application raises after its complete response.
        reads_first: Whether it reads the whole body before it calls the application, so that there
            is nothing to discard.
        ends_at_length: Whether it ends a response in pieces at the last byte of its Content-Length,
            so that nothing can be read after that. A response in one piece ends when the
            application returns.
        end_waits: Whether its ``send`` of a response's end waits until there is room in the
            queue of the body's pieces.
        ends_at_upgrade: Whether an ASGI server's parser ends a request for an upgrade at its head,
            whatever its body.
        connection: Dotted attributes that lead to the client's connection, from the object behind
            ASGI's ``receive``, or behind ``send`` if ``receive`` has none. Each is a socket or an
            asyncio transport. The first one that exists counts.
        closes: The attribute of the object behind ASGI's ``receive`` that makes the server close
            the connection after the response once it is false.
        stops_reading: A method, as a dotted attribute of the object behind ASGI's ``receive``, that
            stops the server from reading the connection. It is for servers that go on parsing while
            the application ends after its response, and that answer what they cannot parse.
        stopping: How to see that an ASGI server is stopping and waits for this exchange: a dotted
            attribute of the object behind ``receive`` (or behind ``send`` if ``receive`` has none),
            which may be a method without arguments, and the value that it then has.
        gone_key: The key of the WSGI environ that holds a callable which says so, if any.
        input_socket: Where ``wsgi.input`` holds the client's socket, as an attribute with dots,
            if it has one and the environ does not.
        head_attribute: The dotted attribute in which the object behind WSGI's ``start_response``
            gathers the headers, if a second call adds to them. (PEP 3333 wants it to replace them.)
        hides: Whether the server takes such an exception of a WSGI application for its client's: it
            logs nothing, or blames the client, and sends no 500. None if that is not known.
        breaks_off: A function that tells whether an exception, not an `OSError`, is what a WSGI
            server's input raises for a body that ends too early because its client has left. None
            if there is no such exception.
        masks: Whether a WSGI server sends the head after an application's exception, in a
            ``finally``. If the client has left, that fails, and the new error hides the
            application's.
        answers: Whether it answers 500 to the other exceptions of that kind.
        reads_from: Dotted attributes under which the reader behind ``wsgi.input`` holds the
            client's socket. The first one that exists counts; its last name is the attribute's.
        ends_with_response: Whether the exchange ends with the response's last byte, so that all
            reading must come before.
        closes_last: Whether a WSGI server has sent everything when it calls the response's
            ``close()``, and then only closes the connection.
        closes_anyway: Whether a WSGI server closes the connection after each response.
        keeps_quiet: Whether it closes without a ``Connection: close`` in the head, but accepts one
            from the application. Node's fetch takes an unannounced end for a fault.
        close: A function that makes a WSGI server close the connection and leave the rest of the
            body unread. It takes the object behind ``start_response`` and the ``wsgi.input``, and
            is called before the head goes out if possible.
        when_closing: A function that makes a WSGI server call something instead of shutting down
            the connection. It takes the object behind ``start_response``.
        declares_length: Whether a WSGI server's Content-Length is that of the body that it gives to
            the application. It is not if filters may change the body and leave the header.
        left_attribute: The attribute of ``wsgi.input`` that counts the rest of the body, if the
            server itself may read that while the application does not.
        trailers: The method of ``wsgi.input`` that reads what follows the last chunk, if the server
            itself would take that for the next request.
        descriptor: The function, as ``module.name``, that returns the file descriptor of the
            client's connection, if there is no socket.
        drain: Reads and discards the rest of a body from ``wsgi.input`` there, given also that
            descriptor and what learns of it; returns the first step that is not a `Read`.
        raw_chunks: Whether a WSGI server passes a chunked body on undecoded, so that the
            application sees its end only when the client closes its half of the connection.
        replaces_head: Whether a WSGI server's ``start_response`` accepts another head in place of
            an unsent one, without looking at its ``exc_info``.
        relays: Whether a router of the server itself may stand between the client and the process.
            Such a router closes the client's connection as soon as the process has closed its own.
        threads: How many requests a WSGI server's process serves at once, given the environ and the
            object behind ``start_response``; None if that is not visible.
        worker_timeout: After how many seconds in one request a WSGI server takes its worker for
            dead, given the same two; None if it does not.
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
    drain: Callable[[Any, int, Drained], Step] | None = None
    relays: bool = False
    threads: Callable[[Mapping[str, Any], Any], int | None] | None = None
    worker_timeout: Callable[[Mapping[str, Any], Any], float | None] | None = None


UNKNOWN: Final = Server("unknown", Continue.LATE, ends_at_upgrade=True)
