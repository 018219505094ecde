"""Which library an error came through: never the framework that called the application."""

from __future__ import annotations

import asyncio
import importlib
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import bottle  # type: ignore[import-untyped]
import httpx
import pytest
import requests
from flask import Flask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from werkzeug.test import Client

from cleanclose.core.blame.upstreams import library_of
from tests.harness.quitter import quitter

pytestmark = pytest.mark.stacks

PACKAGE: Final = "some_client_of_something"
CODE: Final = """
def call(sock):
    sock.sendall(b"hello")
    return sock.recv(1)


class OwnError(Exception):
    pass


def call_and_wrap(sock):
    try:
        return call(sock)
    except OSError as error:
        raise OwnError from error
"""


def with_bottle(call: Callable[[], object]) -> None:
    app: Any = bottle.Bottle()
    app.catchall = False
    app.route("/", callback=call)
    Client(app).get("/")


def with_flask(call: Callable[[], object]) -> None:
    app = Flask(__name__)
    app.testing = True

    def view() -> str:
        return str(call())

    app.add_url_rule("/", view_func=view)
    app.test_client().get("/")


def with_starlette(call: Callable[[], object]) -> None:
    def endpoint(_: Request) -> Response:
        return Response(str(call()))

    async def get() -> None:
        transport = httpx.ASGITransport(Starlette(routes=[Route("/", endpoint)]))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.get("/")

    asyncio.run(get())


FRAMEWORKS: Final = (with_bottle, with_flask, with_starlette)


def library(framework: Callable[[Callable[[], object]], None], call: Callable[[], object]) -> Any:
    """The library that is named for what a call raises inside of a framework."""
    with pytest.raises(Exception) as raised:  # noqa: PT011 - which one is the call's affair
        framework(call)
    return library_of(raised.value, lambda _: False)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_plain_socket_has_none(framework: Callable[[Callable[[], object]], None]) -> None:
    with quitter() as server:

        def call() -> object:
            with socket.create_connection(("127.0.0.1", server.port), 10) as sock:
                sock.sendall(b"hello")
                return sock.recv(1)

        assert library(framework, call) is None


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_one_that_is_in_the_table(framework: Callable[[Callable[[], object]], None]) -> None:
    with quitter() as server:
        assert library(framework, lambda: requests.get(server.url, timeout=10)) == "requests"


@pytest.mark.parametrize("function", ["call", "call_and_wrap"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_one_that_is_in_no_table(
    framework: Callable[[Callable[[], object]], None],
    function: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / f"{PACKAGE}.py").write_text(CODE)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    module = importlib.import_module(PACKAGE)
    with quitter() as server:

        def call() -> object:
            with socket.create_connection(("127.0.0.1", server.port), 10) as sock:
                return getattr(module, function)(sock)

        assert library(framework, call) == PACKAGE


def test_the_clients_own_error_names_nothing() -> None:
    with quitter() as server, pytest.raises(requests.ConnectionError) as raised:
        requests.get(server.url, timeout=10)
    assert library_of(raised.value, lambda _: True) is None
