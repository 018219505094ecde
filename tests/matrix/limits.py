"""What does not arrive with the middleware either, and why: limits that are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.matrix.run import Result

__all__ = ["LIMITS", "Limit", "limit_of"]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Uploads which may be lost whatever a middleware does."""

    why: str
    """One sentence for the page."""
    servers: frozenset[str] | None = None
    """Those that it holds for; None for all, as with the next two."""
    clients: frozenset[str] | None = None
    cases: frozenset[str] | None = None
    ways: frozenset[str] | None = None
    next_only: bool = False
    """Whether it only holds for the request behind an answer that did arrive."""

    def holds_for(self, result: Result) -> bool:
        """Whether this upload is one of them."""
        pairs = (
            (self.servers, result.server),
            (self.clients, result.client),
            (self.cases, result.case),
            (self.ways, result.way),
        )
        # Some clients ask again on a new connection, and tell of the reset.
        lost = (result.kind, result.next) in {
            ("delivered", "failed"),
            ("delivered", "new connection"),
        }
        if self.next_only and not lost:
            return False
        return all(names is None or name in names for names, name in pairs)


LIMITS: Final = (
    Limit(
        why="Java 17's HttpClient waits for ever for a 100 if the final answer comes first, "
        "bare and wrapped; its own time-out does not end that.",
        clients=frozenset({"Java HttpClient", "Java HttpClient h2c"}),
        cases=frozenset({"expect-8"}),
    ),
    Limit(
        why="uvicorn with httptools takes the body of a request with Upgrade: h2c for requests, "
        "bare and wrapped: use h11, TLS, or HTTP_1_1 in the client.",
        clients=frozenset({"Java HttpClient h2c"}),
        servers=frozenset(
            {
                "uvicorn-httptools",
                "uvicorn-uvloop",
                "asgi-uvicorn",
                "asgi-uvicorn-gunicorn",
                "starlette",
            }
        ),
    ),
    Limit(
        why="Caddy says 100 Continue by itself and passes the server's on: one more than was asked "
        "for, bare and wrapped.",
        ways=frozenset({"Caddy"}),
        cases=frozenset({"expect-8"}),
    ),
    Limit(
        why="Caddy, Traefik, Envoy and Squid cut a client that still sends when they have passed "
        "on an answer, and a process with one thread waits half a second at most: give it more.",
        servers=frozenset({"gunicorn-sync", "werkzeug-unthreaded", "wsgiref"}),
        ways=frozenset({"Caddy", "Traefik", "Envoy", "Squid"}),
        cases=frozenset({"slow-8", "expect-8"}),
    ),
    Limit(
        why="granian answers on WSGI when nothing has been read, so that a client which does not "
        "wait for its 100 is cut, bare and wrapped.",
        servers=frozenset({"granian-wsgi"}),
        cases=frozenset({"expect-8"}),
    ),
    Limit(
        why="gevent closes behind a request that asked for it, without saying so, bare and "
        "wrapped: http.client forgets that it has asked.",
        servers=frozenset({"gevent", "gevent-patched"}),
        clients=frozenset({"http.client"}),
        cases=frozenset({"close-8", "large-close-64"}),
        next_only=True,
    ),
    Limit(
        why="Werkzeug's development server sends 100 Continue twice, bare and wrapped.",
        servers=frozenset({"werkzeug", "werkzeug-unthreaded"}),
        cases=frozenset({"expect-8"}),
    ),
    Limit(
        why="uWSGI and wsgiref close behind each response without saying so in HTTP/1.1, bare and "
        "wrapped: a client that takes the connection for open loses its next request.",
        servers=frozenset({"uwsgi", "uwsgi-router", "wsgiref-http11"}),
        next_only=True,
    ),
)
"""Each of them is told on ``docs/matrix.md`` with its reason."""


def limit_of(result: Result) -> Limit | None:
    """The limit that an upload falls under, if any."""
    return next((limit for limit in LIMITS if limit.holds_for(result)), None)
