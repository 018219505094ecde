"""The cases: which client sends which request, and which answer it should get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from cleanclose.doctor.application import http2, routes
from cleanclose.doctor.application.leaving import How, Place, leave
from cleanclose.doctor.application.results import Answer, Group
from cleanclose.testing import Seen, Upload, reader, strict

__all__ = [
    "UPLOADS",
    "Case",
    "Endpoint",
    "endpoint_cases",
    "http2_case",
    "plain_case",
    "proxy_cases",
    "server_cases",
]

MIB: Final = 1024 * 1024
_TIMEOUT: Final = 5.0
"""Seconds without an answer after which a client counts as hung."""
_SHORT: Final = 2.5
"""The same for a client that has its answer by then, and waits only for what follows it."""
_SLOW_SIZE: Final = 3 * MIB
_SLOW_PAUSE: Final = 0.015
"""Seconds to pause after each 64 KiB: 0.7 s in all, longer than the middleware ever keeps an answer
back."""
_LEFTOVER: Final = 48 * 1024
"""Small enough that the server has all of it in its buffer when it looks for the next request."""
_HTTP2_SIZE: Final = 8 * MIB
_BODILESS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

UPLOADS: Final = ("app-strict", "app-close")
"""The cases of the user's own endpoint that send a whole upload."""

Act = Callable[[int, Callable[[], object]], Answer]
"""Runs the case. Its arguments: the port, and a callable that waits until the application has the
request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One case."""

    id: str
    title: str
    group: Group
    act: Act
    expected: int | None = None
    tries: int = 1
    where: str = "server"
    chunked: bool = False
    """Whether the server must be able to pass on bodies without a length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """The endpoint of the user's application that the cases aim at.

    Args:
        path: The path, with a query if there is one.
        method: The method.
        headers: Headers that the request needs.
        body_size: The size of the upload, in bytes.
        timeout: Seconds within which the application must answer.
    """

    path: str = "/"
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = ()
    body_size: int = 8 * MIB
    timeout: float = 10.0

    @property
    def has_body(self) -> bool:
        """Whether requests with this method have a body."""
        return self.method.upper() not in _BODILESS


def _upload(case: str, path: str, client: Callable[[Upload], Seen], **how: object) -> Act:
    # The body consists of requests: they expose a server that takes parts of it for requests.
    upload = Upload(
        port=0,
        path=path,
        body_size=8 * MIB,
        headers=((routes.CASE_HEADER, case),),
        listen=0.05,
        await_end=False,
        timeout=_TIMEOUT,
    )
    upload = replace(upload, **how)  # type: ignore[arg-type]

    def act(port: int, begun: Callable[[], object]) -> Answer:
        return Answer.of(client(replace(upload, port=port)))

    return act


def _refused(
    id: str,
    title: str,
    client: Callable[[Upload], Seen] = strict,
    *,
    tries: int = 3,
    path: str = routes.REFUSE,
    expected: int = 413,
    **how: object,
) -> Case:
    return Case(
        id=id,
        title=title,
        group="early answer",
        expected=expected,
        tries=tries,
        act=_upload(id, path, client, **how),
        chunked=bool(how.get("chunked")),
    )


_EARLY: Final = (
    _refused("early-strict", "writes all, then reads"),
    _refused("early-close", "writes all, Connection: close", connection_close=True),
    _refused("early-chunked", "writes all, chunked", chunked=True),
    _refused("early-large", "writes all, 1 MiB answer", path=routes.REFUSE_LARGE, expected=401),
    _refused(
        "early-slow",
        "slow uplink",
        tries=1,
        body_size=_SLOW_SIZE,
        pause=_SLOW_PAUSE,
    ),
    _refused("early-reading", "reads while it sends", reader),
    _refused(
        "early-reading-on",
        "reads, and sends all the same, chunked",
        reader,
        tries=1,
        chunked=True,
        keep_sending=True,
        timeout=_SHORT,
        follow_up="after",
        follow_up_path=routes.READY,
    ),
    _refused(
        "early-leftover",
        "writes all, small and chunked, then a GET",
        tries=1,
        chunked=True,
        body_size=_LEFTOVER,
        piece_size=4096,
        timeout=_SHORT,
        follow_up="after",
        follow_up_path=routes.READY,
    ),
    _refused("early-expect", "Expect: 100-continue", tries=1, expect="patient"),
)

_TITLES: Final[dict[Place, str]] = {
    "headers": "in its headers",
    "body": "in its body",
    "handler": "while the handler runs",
    "response": "in the response",
    "keep-alive": "between two requests",
}


def _leaves(place: Place, how: How) -> Case:
    id = f"{how}-{place}"

    def act(port: int, begun: Callable[[], object]) -> Answer:
        return leave(port, id, place, how, begun)

    verb = "resets" if how == "reset" else "closes"
    return Case(id=id, title=f"{verb} {_TITLES[place]}", group="departure", act=act)


def server_cases() -> tuple[Case, ...]:
    """Make the cases for the doctor's own routes: they test the server."""
    places: tuple[Place, ...] = ("headers", "body", "handler", "response", "keep-alive")
    hows: tuple[How, ...] = ("reset", "close")
    departures = tuple(_leaves(place, how) for place in places for how in hows)
    upstream = Case(
        id="upstream-reset",
        title="the application's upstream resets",
        group="upstream",
        expected=500,
        act=_upload("upstream-reset", routes.UPSTREAM, reader, method="GET", body_size=0),
    )
    return (*_EARLY, *departures, upstream)


def plain_case(endpoint: Endpoint) -> Case:
    """Make the case that sends the user's request with a small body: does it get an answer at all?

    Args:
        endpoint: What the user aims at.
    """
    act = _upload(
        "app-plain",
        endpoint.path,
        reader,
        method=endpoint.method,
        headers=_headers(endpoint, "app-plain"),
        body_size=64 if endpoint.has_body else 0,
        timeout=endpoint.timeout,
    )
    return Case(
        id="app-plain", title="an ordinary request", group="plain", act=act, where="application"
    )


def _headers(endpoint: Endpoint, case: str) -> tuple[tuple[str, str], ...]:
    given = {name.lower() for name, _ in endpoint.headers}
    kind = (
        (("Content-Type", "application/octet-stream"),)
        if endpoint.has_body and "content-type" not in given
        else ()
    )
    return (*endpoint.headers, *kind, (routes.CASE_HEADER, case))


def endpoint_cases(endpoint: Endpoint) -> tuple[Case, ...]:
    """Make the cases for the user's own endpoint.

    Args:
        endpoint: What the user aims at.
    """
    made = [_departs(endpoint, "handler", "reset"), _departs(endpoint, "response", "reset")]
    if endpoint.has_body:
        made[:0] = [
            _uploads(endpoint, "app-strict", "upload, writes all, then reads"),
            _uploads(endpoint, "app-close", "upload, Connection: close", connection_close=True),
            _departs(endpoint, "body", "reset"),
            _departs(endpoint, "body", "close"),
        ]
    return tuple(made)


def _uploads(endpoint: Endpoint, id: str, title: str, **how: object) -> Case:
    act = _upload(
        id,
        endpoint.path,
        strict,
        method=endpoint.method,
        headers=_headers(endpoint, id),
        body_size=endpoint.body_size,
        timeout=endpoint.timeout,
        **how,
    )
    return Case(id=id, title=title, group="application", act=act, where="application", tries=2)


def _departs(endpoint: Endpoint, place: Place, how: How) -> Case:
    id = f"app-{how}-{place}"

    def act(port: int, begun: Callable[[], object]) -> Answer:
        return leave(
            port,
            id,
            place,
            how,
            begun,
            path=endpoint.path,
            method=endpoint.method,
            headers=tuple(each for each in _headers(endpoint, id) if each[0] != routes.CASE_HEADER),
        )

    verb = "resets" if how == "reset" else "closes"
    title = f"{verb} {_TITLES[place]}"
    return Case(id=id, title=title, group="application", act=act, where="application")


def http2_case() -> Case:
    """Make the case of a refused upload over HTTP/2, from a client that wants to send all of it."""
    id = "http2-strict"

    def act(port: int, begun: Callable[[], object]) -> Answer:
        return http2.upload(port, id, size=_HTTP2_SIZE, timeout=_TIMEOUT)

    title = "HTTP/2, writes all, then reads"
    return Case(id=id, title=title, group="http2", act=act, expected=413, tries=3)


def proxy_cases(proxy: str) -> tuple[Case, ...]:
    """Make the case that goes through a proxy.

    Args:
        proxy: Its name.
    """
    id = f"proxy-{proxy}"
    return (
        Case(
            id=id,
            title=f"behind {proxy}, writes all, then reads",
            group="proxy",
            expected=413,
            tries=5,
            where=proxy,
            act=_upload(id, routes.REFUSE, strict),
        ),
    )
