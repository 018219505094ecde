"""The kinds of lines about broken connections: who caused it, how sure that is, why, what to do.

The table is closed: a rule can only choose one of its rows, so that no text in a log can make up a
verdict. Sides are named from the log's point of view: in a proxy's log, the application behind it
is the upstream.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Final

from cleanclose.core.events import Side

__all__ = ["KINDS", "Kind", "Sure"]


class Sure(enum.StrEnum):
    """How sure a verdict is."""

    CERTAIN = "certain"
    """The program that wrote the line knew which connection it was, and says so."""
    LIKELY = "likely"
    """The line has a traceback's frames, or words that in all known cases only one side causes."""
    GUESS = "guess"
    """The line fits more than one cause; this one is the most frequent."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One kind of line.

    Args:
        name: Its name in the JSON output; never changes its meaning.
        side: Who ended the connection, seen from the process that wrote the line.
        sure: How sure that is.
        title: A few words for the table.
        why: One sentence: the part of the line that shows it.
        advice: One sentence: what to change, if anything.
    """

    name: str
    side: Side
    sure: Sure
    title: str
    why: str
    advice: str


_LEAVE = "Nothing is broken: count these, and look only when there are more than usual."
_LOOK_BEHIND = (
    "Look at the application's own log at that time; where uploads are refused early, run "
    "`cleanclose doctor` against it."
)
_LOOK_UPSTREAM = (
    "Look at what the application is connected to: its idle timeout, restarts and limits; let "
    "the pool test a connection before it is used."
)


def _client(name: str, sure: Sure, title: str, why: str, advice: str = _LEAVE) -> Kind:
    return Kind(name=name, side=Side.CLIENT, sure=sure, title=title, why=why, advice=advice)


def _upstream(name: str, sure: Sure, title: str, why: str, advice: str = _LOOK_UPSTREAM) -> Kind:
    return Kind(name=name, side=Side.UPSTREAM, sure=sure, title=title, why=why, advice=advice)


def _server(name: str, sure: Sure, title: str, why: str, advice: str) -> Kind:
    return Kind(name=name, side=Side.SERVER, sure=sure, title=title, why=why, advice=advice)


def _unknown(name: str, title: str, why: str, advice: str) -> Kind:
    return Kind(name=name, side=Side.UNKNOWN, sure=Sure.GUESS, title=title, why=why, advice=advice)


_ROWS: Final = (
    # Our own events: the middleware saw the connection.
    _client(
        "event_client",
        Sure.CERTAIN,
        "event: the client departed",
        "The middleware saw it on the exchange's own connection.",
    ),
    _upstream(
        "event_upstream",
        Sure.CERTAIN,
        "event: an upstream reset",
        "The middleware saw that the error came from no client's connection.",
    ),
    _server(
        "event_server",
        Sure.CERTAIN,
        "event: this process ended it",
        "The middleware saw that the process was stopping, or that a limit of its own was reached.",
        "Give the process longer to stop, or raise the limit that the event names.",
    ),
    _unknown(
        "event_unknown",
        "event: nobody known",
        "The middleware found no witness on the connection.",
        "Read the error beside the event: it is the application's own until proven otherwise.",
    ),
    _client(
        "event_response_reset",
        Sure.CERTAIN,
        "event: an early answer was reset",
        "The middleware saw the client reset the connection while the rest of its upload was read.",
        "If these are many, see whether a proxy in front stops uploads when an answer comes.",
    ),
    _server(
        "event_response_cut",
        Sure.CERTAIN,
        "event: an early answer was cut",
        "The middleware reached the limit that the event names before the upload had ended.",
        "Raise that limit (docs/settings.md) if clients should be allowed larger or slower bodies.",
    ),
    # Python: what a traceback's frames show.
    _client(
        "python_client_read",
        Sure.LIKELY,
        "a client left during its upload",
        "The traceback ends in the server's code that reads a request, and holds no other error.",
        "Nothing is broken; cleanclose makes a debug event of it instead of a traceback.",
    ),
    _client(
        "python_client_write",
        Sure.LIKELY,
        "a client left before its response was complete",
        "The traceback ends in the server's code that writes a response, and holds no other error.",
        "Nothing is broken; cleanclose makes a debug event of it instead of a traceback.",
    ),
    _client(
        "python_client_word",
        Sure.LIKELY,
        "a framework's own exception for a client that left",
        "This framework raises this exception only for its client, from its own code.",
        "Nothing is broken; cleanclose makes a debug event of it instead of a traceback.",
    ),
    _upstream(
        "python_upstream",
        Sure.LIKELY,
        "a connection of the application's own broke",
        "A client library lost its connection: its class, or its frames, are in the traceback.",
    ),
    _unknown(
        "python_mixed",
        "a client's departure together with another error",
        "The traceback holds an error besides the client's, which may be the cause or be hidden.",
        "Read the other error first: it is the application's.",
    ),
    _unknown(
        "python_unproven",
        "a reset, and no frame shows whose",
        "The exception's class fits a client and an upstream; no frame shows which socket it was.",
        "Install cleanclose there: it compares sockets, which a log line cannot.",
    ),
    _unknown(
        "bare_words",
        "words about a reset, without a traceback",
        "The line speaks of a reset, and nothing says whose connection it was.",
        "Log the exception with its traceback, or install cleanclose there.",
    ),
    _unknown(
        "asyncio_writes_in_vain",
        "asyncio wrote to a lost connection",
        "asyncio logs this for any lost transport that is still written to, also an upstream's.",
        "Install cleanclose there: it knows whose transport it was.",
    ),
    _unknown(
        "gunicorn_ignored",
        "gunicorn ignored an error as a client's",
        "gunicorn logs this for any such error that reaches its worker, also for an upstream's.",
        "Take these seriously: an upstream's reset may be hidden there; cleanclose restores it.",
    ),
    _server(
        "worker_timeout",
        Sure.CERTAIN,
        "the master killed a worker",
        "gunicorn's master kills a worker that is silent for `timeout`; its connections break.",
        "Find the slow handler, or raise gunicorn's `timeout`.",
    ),
    _client(
        "server_says_client",
        Sure.CERTAIN,
        "the server's own line about a client that left",
        "The server writes this line about the connection of a request, and about nothing else.",
    ),
    # Proxies.
    _client(
        "proxy_client",
        Sure.CERTAIN,
        "the proxy's client left",
        "The proxy names its client's connection (nginx `client`, 499; HAProxy C; Envoy DC).",
        "Nothing is broken here; if the times are alike, look for a timeout of a balancer in "
        "front.",
    ),
    _client(
        "proxy_client_likely",
        Sure.LIKELY,
        "the proxy's client probably left",
        "A proxy in Go cancels a request, or ends its body, mostly when its client is gone.",
        "Nothing is broken here, unless the proxy was stopped or reloaded at that time.",
    ),
    _client(
        "proxy_client_timeout",
        Sure.CERTAIN,
        "the proxy's client was too slow",
        "The proxy ended it because its timeout passed without data from the client.",
        "Raise the proxy's client timeout if slow uploads should be allowed.",
    ),
    _upstream(
        "proxy_upstream",
        Sure.CERTAIN,
        "the application behind the proxy broke it",
        "The proxy names its connection to the server behind it (nginx `upstream`, HAProxy S, "
        "Envoy U).",
        _LOOK_BEHIND,
    ),
    _upstream(
        "proxy_upstream_upload",
        Sure.CERTAIN,
        "the application closed while the proxy sent an upload",
        "The proxy was still sending the request to the server behind it when that server closed.",
        "The application answered early and closed: its answer is lost as a 502; `cleanclose "
        "doctor` shows it, the middleware cures it.",
    ),
    _upstream(
        "proxy_upstream_timeout",
        Sure.CERTAIN,
        "the application behind the proxy was too slow",
        "The proxy ended it because its timeout passed without data from the server behind it.",
        "Find the slow handler, or raise the proxy's timeout (nginx `proxy_read_timeout`).",
    ),
    _upstream(
        "proxy_upstream_connect",
        Sure.CERTAIN,
        "the proxy could not connect to the application",
        "The connection was refused or reset before the proxy could send a request.",
        "Check whether the application was restarting, and its accept queue (`cleanclose kernel`).",
    ),
    _server(
        "proxy_itself",
        Sure.CERTAIN,
        "the proxy ended it by itself",
        "The proxy names a rule, a limit or a stop of its own (HAProxy P, R, K, D; Envoy).",
        "Look at the proxy's configuration for the rule or limit that its flag names.",
    ),
    _unknown(
        "proxy_unclear",
        "the proxy lost a connection and does not say which",
        "The proxy's words fit both of its connections.",
        "Compare with the application's log at that time.",
    ),
)

KINDS: Final = {kind.name: kind for kind in _ROWS}
"""All kinds, by name."""
