"""Clients of other people's servers, which break the connection off: real libraries and sockets."""

from __future__ import annotations

import asyncio
import http.client
import smtplib
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
import httpx
import pytest
import requests
import tornado.httpclient
import tornado.iostream
import tornado.simple_httpclient
import tornado.tcpclient
import urllib3

from cleanclose.core.events import Mechanism
from tests.harness.endings import asgi_ending, assert_untold, assert_upstream, wsgi_ending
from tests.harness.leavers import How
from tests.harness.quitter import CUT_CHUNKED, CUT_LENGTH, quitter

pytestmark = pytest.mark.stacks

SAYS: Final = {"nothing": b"", "length": CUT_LENGTH, "chunks": CUT_CHUNKED}
HOWS: Final[tuple[How, ...]] = ("rst", "fin")
there_or_gone: Final = pytest.mark.parametrize("client_left", [False, True], ids=["there", "gone"])


def with_requests(url: str) -> object:
    return requests.get(url, timeout=10).content


def with_urllib3(url: str) -> object:
    return urllib3.PoolManager(retries=False).request("GET", url, timeout=10).data


def with_httpx(url: str) -> object:
    return httpx.get(url, timeout=10, trust_env=False).content


BLOCKING: dict[str, Callable[[str], object]] = {
    "requests": with_requests,
    "urllib3": with_urllib3,
    "httpx": with_httpx,
}


async def with_aiohttp(url: str) -> object:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return await response.read()


async def with_httpx_async(url: str) -> object:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(url)).content


async def with_tornado(url: str, seconds: float = 10) -> object:
    client = tornado.httpclient.AsyncHTTPClient(force_instance=True)
    try:
        return (await client.fetch(url, request_timeout=seconds)).body
    finally:
        client.close()


WAITING: dict[str, Callable[[str], Awaitable[object]]] = {
    "aiohttp": with_aiohttp,
    "httpx": with_httpx_async,
    "tornado": with_tornado,
}


@there_or_gone
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("says", SAYS)
@pytest.mark.parametrize("library", BLOCKING)
def test_blocking_clients(library: str, says: str, how: How, client_left: bool) -> None:
    with quitter(SAYS[says], how) as server:
        ending = wsgi_ending(lambda: BLOCKING[library](server.url), client_left=client_left)
    assert_upstream(ending, type(ending.inside), library)
    assert type(ending.inside).__module__.partition(".")[0] == library


@there_or_gone
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("says", SAYS)
@pytest.mark.parametrize("library", ["aiohttp", "httpx"])
def test_waiting_clients(library: str, says: str, how: How, client_left: bool) -> None:
    with quitter(SAYS[says], how) as server:
        ending = asgi_ending(lambda: WAITING[library](server.url), client_left=client_left)
    assert_upstream(ending, type(ending.inside), library)
    assert type(ending.inside).__module__.partition(".")[0] == library


@there_or_gone
@pytest.mark.parametrize("says", SAYS)
def test_tornados_client_and_an_end(says: str, client_left: bool) -> None:
    with quitter(SAYS[says], "fin") as server:
        ending = asgi_ending(lambda: with_tornado(server.url), client_left=client_left)
    assert_upstream(ending, type(ending.inside), "tornado")


@there_or_gone
def test_tornados_client_and_a_reset(client_left: bool) -> None:
    with quitter(b"", "rst") as server:
        ending = asgi_ending(lambda: with_tornado(server.url), client_left=client_left)
    event = assert_upstream(ending, ConnectionResetError, "tornado")
    assert event.verdict.mechanism is Mechanism.RESET


def test_tornados_client_does_not_tell_of_a_reset_in_mid_response() -> None:
    # It logs an uncaught exception of its own and lets the request time out.
    with quitter(CUT_LENGTH, "rst") as server:
        ending = asgi_ending(lambda: with_tornado(server.url, seconds=0.5))
    assert_untold(ending, tornado.simple_httpclient.HTTPTimeoutError)


@there_or_gone
@pytest.mark.parametrize("how", HOWS)
def test_pythons_own_http_client(how: How, client_left: bool) -> None:
    def call(port: int) -> object:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/")
        return connection.getresponse()

    with quitter(b"", how) as server:
        ending = wsgi_ending(lambda: call(server.port), client_left=client_left)
    expected = http.client.RemoteDisconnected if how == "fin" else ConnectionResetError
    assert_upstream(ending, expected, None)


def test_pythons_own_http_client_in_mid_response() -> None:
    def call(url: str) -> object:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.read()

    with quitter(CUT_LENGTH, "fin") as server:
        ending = wsgi_ending(lambda: call(server.url))
    assert_upstream(ending, http.client.IncompleteRead, None)


def test_pythons_own_mail_client() -> None:
    def call(port: int) -> object:
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            return client.noop()

    with quitter(b"220 here\r\n", "fin", first=True) as server:
        ending = wsgi_ending(lambda: call(server.port))
    assert_upstream(ending, smtplib.SMTPServerDisconnected, None)


@there_or_gone
def test_a_plain_socket(client_left: bool) -> None:
    def call(port: int) -> object:
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            sock.sendall(b"hello")
            return sock.recv(1)

    with quitter(b"", "rst") as server:
        ending = wsgi_ending(lambda: call(server.port), client_left=client_left)
    event = assert_upstream(ending, ConnectionResetError, None)
    assert event.verdict.mechanism is Mechanism.RESET


@there_or_gone
def test_asyncios_own_streams(client_left: bool) -> None:
    async def call(port: int) -> object:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"hello")
            return await reader.read()
        finally:
            writer.close()

    with quitter(b"", "rst") as server:
        ending = asgi_ending(lambda: call(server.port), client_left=client_left)
    assert_upstream(ending, ConnectionResetError, None)


@there_or_gone
def test_tornados_stream(client_left: bool) -> None:
    async def call(port: int) -> object:
        stream = await tornado.tcpclient.TCPClient().connect("127.0.0.1", port)
        await stream.write(b"hello")
        return await stream.read_bytes(1)

    with quitter(b"", "rst") as server:
        ending = asgi_ending(lambda: call(server.port), client_left=client_left)
    assert_upstream(ending, tornado.iostream.StreamClosedError, "tornado")


@there_or_gone
def test_a_pipe_to_a_program(client_left: bool) -> None:
    def call() -> object:
        with subprocess.Popen(
            [sys.executable, "-c", "pass"], stdin=subprocess.PIPE, bufsize=0
        ) as program:
            program.wait()
            assert program.stdin is not None
            return program.stdin.write(b"hello")

    ending = wsgi_ending(call, client_left=client_left)
    event = assert_upstream(ending, BrokenPipeError, None)
    assert event.verdict.mechanism is Mechanism.BROKEN_PIPE


@pytest.mark.parametrize("library", BLOCKING)
def test_refused_is_not_lost(library: str) -> None:
    with quitter() as server:
        url = server.url
    ending = wsgi_ending(lambda: BLOCKING[library](url))
    assert_untold(ending, type(ending.inside))


@pytest.mark.parametrize("library", WAITING)
def test_refused_is_not_lost_while_waiting(library: str) -> None:
    with quitter() as server:
        url = server.url
    ending = asgi_ending(lambda: WAITING[library](url))
    assert_untold(ending, type(ending.inside))


@pytest.mark.parametrize("library", BLOCKING)
def test_malformed_is_not_lost(library: str) -> None:
    with quitter(b"nonsense\r\n\r\n", "fin") as server:
        ending = wsgi_ending(lambda: BLOCKING[library](server.url))
    assert_untold(ending, type(ending.inside))
