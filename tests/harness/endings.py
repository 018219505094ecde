"""How a request ends behind the middleware when its application meets a broken upstream."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import socket
from collections.abc import Awaitable, Callable, Generator, Iterable, MutableMapping
from typing import Any, BinaryIO, Final
from wsgiref.util import setup_testing_defaults

from cleanclose.asgi import CleanCloseMiddleware as AsgiMiddleware
from cleanclose.core import Event
from cleanclose.core.events import ClientDeparted, Side, UpstreamReset
from cleanclose.core.levels import Levels
from cleanclose.wsgi import CleanCloseMiddleware as WsgiMiddleware
from tests.harness.leavers import leave

__all__ = ["Ending", "asgi_ending", "assert_untold", "assert_upstream", "wsgi_ending"]

_BODY: Final = b"an order"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ending:
    """What came of one request.

    Args:
        inside: What the application raised.
        outside: What the server got of it.
        events: The events.
        client_left: Whether the client had left before.
    """

    inside: BaseException
    outside: BaseException | None
    events: list[Event]
    client_left: bool


@contextlib.contextmanager
def _body(*, client_left: bool) -> Generator[BinaryIO]:
    """What a server gives as ``wsgi.input``: a file over the client's socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=10)
        sock, _ = listener.accept()
    with client, sock, sock.makefile("rb") as file:
        sock.settimeout(10)
        if client_left:
            client.sendall(_BODY[:3])
            leave(client, "rst")
        else:
            client.sendall(_BODY)
        yield file


def wsgi_ending(fail: Callable[[], object], *, client_left: bool = False) -> Ending:
    """Let a WSGI application fail.

    Args:
        fail: What the application does: it raises.
        client_left: Whether its client resets the connection before; the application finds that
            out from its body, and goes on.
    """
    raised: list[BaseException] = []
    events: list[Event] = []

    def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read(len(_BODY))
        except OSError:
            assert client_left
        try:
            fail()
        except Exception as error:
            raised.append(error)
            raise
        raise AssertionError("nothing was raised")

    wrapped = WsgiMiddleware(app, outlets=[events.append])
    outside: BaseException | None = None
    with _body(client_left=client_left) as body:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "POST",
            "CONTENT_LENGTH": str(len(_BODY)),
            "wsgi.input": body,
        }
        setup_testing_defaults(environ)
        try:
            result = wrapped(environ, lambda *_: lambda _: None)
            list(result)
            close = getattr(result, "close", None)
            if close is not None:
                close()
        except Exception as error:  # noqa: BLE001 - it is what the test asks for
            outside = error
    assert raised, outside
    return Ending(inside=raised[0], outside=outside, events=events, client_left=client_left)


def asgi_ending(fail: Callable[[], Awaitable[object]], *, client_left: bool = False) -> Ending:
    """Let an ASGI application fail; see `wsgi_ending`."""
    raised: list[BaseException] = []
    events: list[Event] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        assert (message["type"] == "http.disconnect") is client_left
        try:
            await fail()
        except Exception as error:
            raised.append(error)
            raise
        raise AssertionError("nothing was raised")

    async def receive() -> MutableMapping[str, Any]:
        if client_left:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": _BODY}

    async def send(message: MutableMapping[str, Any]) -> None:
        raise AssertionError("the application sends nothing")

    scope = {
        "type": "http",
        "method": "POST",
        "http_version": "1.1",
        "path": "/",
        "headers": [(b"content-length", str(len(_BODY)).encode())],
    }
    wrapped = AsgiMiddleware(app, outlets=[events.append])
    outside: BaseException | None = None
    try:
        asyncio.run(wrapped(scope, receive, send))
    except Exception as error:  # noqa: BLE001 - it is what the test asks for
        outside = error
    assert raised, outside
    return Ending(inside=raised[0], outside=outside, events=events, client_left=client_left)


def assert_upstream(
    ending: Ending, error: type[BaseException], library: str | None, cause: str | None = None
) -> UpstreamReset:
    """The error came through as it was, and one event says whose it is.

    Args:
        ending: What came of the request.
        error: The class that the library is to raise.
        library: What the event has to name.
        cause: The likely cause that it has to tell.

    Returns:
        The event.
    """
    assert type(ending.inside) is error, repr(ending.inside)
    told = [event for event in ending.events if isinstance(event, UpstreamReset)]
    assert len(told) == 1, ending.events
    event = told[0]
    assert event.restored or ending.outside is ending.inside
    assert event.exception is ending.inside
    assert event.verdict.side is Side.UPSTREAM
    assert Levels().of(event) == logging.ERROR
    assert (event.library, event.likely_cause) == (library, cause)
    _assert_departures(ending)
    return event


def assert_untold(ending: Ending, error: type[BaseException]) -> None:
    """The error came through as it was, and nobody is blamed for it."""
    assert type(ending.inside) is error, repr(ending.inside)
    assert ending.outside is ending.inside
    assert not [event for event in ending.events if isinstance(event, UpstreamReset)]
    _assert_departures(ending)


def _assert_departures(ending: Ending) -> None:
    left = [event for event in ending.events if isinstance(event, ClientDeparted)]
    assert len(left) == ending.client_left, ending.events
