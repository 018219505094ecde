"""Applications that send an upload on as it comes: whose fault it is when one of the ends breaks.

What a client library raises because its caller's client has stopped sending is the client's; what
it raises because the upstream broke off stays an error.
"""

from __future__ import annotations

import logging
import socket
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.harness.asgi_noise import HOWS, Observed, module_stack, observed
from tests.harness.leavers import connected, leave_at, request
from tests.harness.proxying import ASYNC_PROXIES, PROXIES, URL
from tests.harness.quitter import quitter
from tests.harness.stacks import Stack, gunicorn
from tests.harness.upload_sink import upload_sink

pytestmark = pytest.mark.stacks

APP: Final = "noise_wsgi"


def _own(name: str) -> Stack:
    command = (sys.executable, "-m", f"tests.harness.apps.{APP}", name, "{port}")
    return Stack(name=f"proxying-{name}", interface="wsgi", command=command, loses="always")


SYNC: Final = gunicorn("proxying-sync", APP, "--worker-class=sync", threads=False)
GTHREAD: Final = gunicorn("proxying-gthread", APP, "--threads=4", threads=True)
GEVENT: Final = gunicorn("proxying-gevent", APP, "--worker-class=gevent", threads=True)
CHEROOT: Final = _own("cheroot")
WERKZEUG: Final = _own("werkzeug")
WSGIREF: Final = _own("wsgiref")
PYWSGI: Final = _own("gevent")

STACKS: Final = (SYNC, GTHREAD, GEVENT, CHEROOT, WERKZEUG, WSGIREF, PYWSGI)
ASGI: Final = ("uvicorn-h11", "uvicorn-uvloop", "hypercorn", "gunicorn", "granian")
ENDLESS: Final = (WERKZEUG, WSGIREF)
"""Servers whose input ends with the connection, not with the body: a library that reads to its end
waits for the client, and meets its upstream's reset only then."""
CLIENTS: Final = frozenset({"client_departed", "truncated_upload"})


def cut_all(seen: Observed, paths: dict[str, str]) -> None:
    """Cut an upload off in both ways, on each of the paths."""
    for name, path in paths.items():
        for how in HOWS:
            headers = (("X-Request-ID", f"{name}-{how}"),)
            head = request("POST", path, length=1000, headers=headers)
            leave_at(seen.port, head, how, body=b"abcd")


def each_is_the_clients(seen: Observed, names: set[str]) -> None:
    """Each upload was one departure, and nobody has said another word."""
    told = seen.events_by_request()
    assert told.keys() == names
    for name, events in told.items():
        assert [event["event"] in CLIENTS for event in events] == [True], (name, events)
        assert events[0]["side"] == "client"
        assert not events[0].get("accepted", False), (name, events)
    assert seen.records == []
    assert "Traceback" not in seen.server.log_text()


def wait_for(seen: Observed, names: set[str]) -> None:
    seen.until(
        lambda: seen.events_now().keys() >= names,
        f"untold: {sorted(names - seen.events_now().keys())}",
    )


@pytest.mark.parametrize(
    ("stack", "framework"),
    [*((stack, "raw") for stack in STACKS), (GTHREAD, "flask"), (GTHREAD, "django")],
    ids=str,
)
def test_a_cut_upload_is_not_the_upstreams_fault(
    stack: Stack, framework: str, tmp_path: Path
) -> None:
    # boto3 reads in a thread of its own, where a socket of gevent's cannot wait, bare or wrapped.
    libraries = [each for each in PROXIES if not (stack is PYWSGI and each == "boto3")]
    names = {f"{library}-{how}" for library in libraries for how in HOWS}
    with upload_sink() as sink:
        env = {URL: sink.url, "TEST_FRAMEWORK": framework}
        with observed(stack, tmp_path, wrapped=True, more=env) as seen:
            cut_all(seen, {library: f"/proxy?{library}" for library in libraries})
            wait_for(seen, names)
    each_is_the_clients(seen, names)


@pytest.mark.parametrize("server", ASGI)
def test_a_cut_upload_is_not_the_upstreams_fault_on_asgi(server: str, tmp_path: Path) -> None:
    names = {f"{library}-{how}" for library in ASYNC_PROXIES for how in HOWS}
    stack = module_stack(server, "proxying_asgi")
    with (
        upload_sink() as sink,
        observed(stack, tmp_path, wrapped=True, more={URL: sink.url}) as seen,
    ):
        cut_all(seen, {library: f"/proxy/{library}" for library in ASYNC_PROXIES})
        wait_for(seen, names)
    each_is_the_clients(seen, names)


@pytest.mark.negative_control
@pytest.mark.parametrize("stack", [GTHREAD, WERKZEUG], ids=str)
def test_the_control_bare_it_is_an_error_of_the_library(stack: Stack, tmp_path: Path) -> None:
    with (
        upload_sink() as sink,
        observed(stack, tmp_path, wrapped=False, more={URL: sink.url}) as seen,
    ):
        cut_all(seen, {"requests": "/proxy?requests"})
        seen.until(lambda: "requests.exceptions.ConnectionError" in seen.server.log_text(), "none")


@pytest.mark.parametrize(
    "stack",
    [
        *STACKS,
        *(module_stack(server, "proxying_asgi") for server in ASGI),
    ],
    ids=str,
)
def test_an_upstream_that_breaks_off_stays_an_error(stack: Stack, tmp_path: Path) -> None:
    libraries = PROXIES if stack.interface == "wsgi" else ASYNC_PROXIES
    between = "?" if stack.interface == "wsgi" else "/"
    with (
        quitter() as upstream,
        observed(stack, tmp_path, wrapped=True, more={URL: upstream.url}) as seen,
    ):
        for library in libraries:
            headers = (("X-Request-ID", library), ("Connection", "close"))
            head = request("POST", f"/proxy{between}{library}", length=1000, headers=headers)
            with connected(seen.port) as client:
                client.sendall(head + bytes(1000))
                if stack in ENDLESS:
                    client.shutdown(socket.SHUT_WR)
                assert client.recv(65536)[9:12] == b"500", library
        wait_for(seen, set(libraries))
    told = seen.events_by_request()
    hidden = 0
    for library in libraries:
        event, *others = told[library]
        assert (event["event"], event["side"]) == ("upstream_reset", "upstream"), event
        # Who has ended its sending may have left.
        assert [each["event"] for each in others] == ["client_departed"] * (stack in ENDLESS)
        hidden += event["restored"]
    # Starlette answers 500 before it raises. gunicorn says nothing of what comes behind a
    # response: there the event alone tells.
    expected: set[int] = set() if hidden == len(libraries) else {logging.ERROR}
    assert {record["level"] for record in seen.records} == expected


@pytest.mark.negative_control
@pytest.mark.parametrize("stack", [GTHREAD, *ENDLESS], ids=str)
def test_the_control_where_a_bare_servers_input_ends(stack: Stack, tmp_path: Path) -> None:
    head = request("POST", "/read", length=5, headers=(("Connection", "close"),))
    with (
        observed(stack, tmp_path, wrapped=False) as seen,
        connected(seen.port) as client,
        client.makefile("rb") as answer,
    ):
        client.sendall(head + b"hello, and more")
        client.shutdown(socket.SHUT_WR)
        read = answer.read().rpartition(b"\r\n\r\n")[2]
    assert read == (b"15" if stack in ENDLESS else b"5")
