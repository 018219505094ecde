"""What proxies write about connections: nginx, HAProxy, Envoy, Caddy, Traefik.

A proxy says which of its two connections broke. Where its words fit both, the verdict stays open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

__all__ = ["Match", "of_fields", "of_line"]


class Match(NamedTuple):
    """What a proxy's line is about.

    Args:
        format: The log's format.
        kind: A name in `KINDS`; None if the line is not about a broken connection.
        detail: What distinguishes lines of one kind: a flag, a library, nginx's own words.
    """

    format: str
    kind: str | None
    detail: str = ""


# nginx ---------------------------------------------------------------------------------------

_NGINX: Final = re.compile(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[(\w+)\] \d+#\d+: (?:\*\d+ )?(.*)")
_NGINX_DOING: Final = re.compile(
    r"while ((?:\w+ )*?(?:upstream|client|request|headers|body|handshak\w+|keepalive|lingering"
    r"|PROXY protocol|close)[\w ]*)"
)
_NGINX_RESET: Final = re.compile(
    r"(\w+)\(\) (?:failed|reported that client|sent)|prematurely closed|timed out|closed connection"
    r"|closed keepalive connection|no live upstreams"
)


def _nginx(line: str) -> Match | None:
    found = _NGINX.search(line)
    if found is None:
        return None
    # The request's own words, which the client chose, follow `, client:`.
    said = found[2].partition(", client: ")[0]
    return Match("nginx-error", _nginx_kind(said, found[1]), _nginx_detail(said))


def _nginx_detail(said: str) -> str:
    doing = _NGINX_DOING.search(said)
    return f"while {doing[1].strip()}" if doing else said[:60]


def _nginx_kind(said: str, level: str) -> str | None:
    if _NGINX_RESET.search(said) is None and "peer closed" not in said:
        return None
    doing = said.rpartition(" while ")[2] if " while " in said else ""
    if said.startswith("upstream prematurely closed"):
        return "proxy_upstream"
    if said.startswith("upstream timed out"):
        connecting = doing.startswith(("connecting", "SSL handshaking"))
        return "proxy_upstream_connect" if connecting else "proxy_upstream_timeout"
    if "client prematurely closed" in said:
        return "proxy_client"
    if re.match(r"client \S+ closed keepalive connection", said):
        # In good order, unless an error follows it.
        return "proxy_client" if _BROKEN.search(said) else None
    if said.startswith("client timed out"):
        return "proxy_client_timeout"
    if said.startswith("no live upstreams"):
        return "proxy_upstream_connect"
    if "upstream" in doing:
        return _nginx_upstream(said, doing, level)
    return _nginx_client(said, doing)


def _nginx_upstream(said: str, doing: str, level: str) -> str:
    # nginx uses these words for both of its connections. It logs a client's reset at `info`,
    # and an upstream's at `error` (ngx_connection_error).
    if level in ("info", "debug"):
        return "proxy_client" if _BROKEN.search(said) else "proxy_unclear"
    if doing.startswith(("connecting", "SSL handshaking")):
        return "proxy_upstream_connect"
    return "proxy_upstream_upload" if doing.startswith("sending request") else "proxy_upstream"


_NGINX_CLIENTS: Final = (
    *("waiting for request", "reading client", "sending to client", "sending response to client"),
    *("keepalive", "SSL handshaking", "processing HTTP/2", "in lingering close", "reading PROXY"),
    *("closing request", "logging request", "checking"),
)
_BROKEN: Final = re.compile(
    r"\((?:104|32|103|107): |peer closed connection|prematurely closed|unexpected eof"
)


def _nginx_client(said: str, doing: str) -> str | None:
    if not doing.startswith(_NGINX_CLIENTS):
        return "proxy_unclear" if _BROKEN.search(said) else None
    if "timed out" in said:
        return "proxy_client_timeout"
    return "proxy_client" if _BROKEN.search(said) else None


# HAProxy -------------------------------------------------------------------------------------

_HAPROXY: Final = re.compile(
    r" -?\d+(?:/-?\d+)+/\+?-?\d+ (?:-?\d+ )?\+?\d+ (?:\S+ \S+ )?"
    r"([CSPRLUDIKcs-][A-Z-][A-Za-z-]{0,2}) \d+/\d+/\d+/\d+/\+?\d+ "
)
_HAPROXY_KINDS: Final[Mapping[str, str]] = {
    "C": "proxy_client",
    "c": "proxy_client_timeout",
    "S": "proxy_upstream",
    "s": "proxy_upstream_timeout",
    "P": "proxy_itself",
    "R": "proxy_itself",
    "I": "proxy_itself",
    "D": "proxy_itself",
    "U": "proxy_itself",
    "K": "proxy_itself",
}
"""By the first letter of the termination state (HAProxy's manual, 8.5); the second says in which
phase."""


def _haproxy(line: str) -> Match | None:
    found = _HAPROXY.search(line)
    if found is None:
        return None
    state = found[1][:2]
    kind = _HAPROXY_KINDS.get(state[0])
    if state in ("SC", "sC"):
        kind = "proxy_upstream_connect"
    elif state == "SL" or state[0] == "-":
        kind = None
    elif state == "SH" and found.group(0).split()[1:2] == ["-1"]:
        kind = "proxy_upstream"
    return Match("haproxy", kind, state)


# Envoy ---------------------------------------------------------------------------------------

_ENVOY: Final = re.compile(
    r'\[\d{4}-\d\d-\d\dT[\d:.]+Z\] "[^"]*" \d{1,3} ([A-Z][A-Z0-9,]*|-) (\S+) '
)
_ENVOY_KINDS: Final[Mapping[str, str]] = {
    "UC": "proxy_upstream",
    "UR": "proxy_upstream",
    "UPE": "proxy_upstream",
    "UF": "proxy_upstream_connect",
    "URX": "proxy_upstream_connect",
    "UH": "proxy_upstream_connect",
    "UT": "proxy_upstream_timeout",
    "UMSDR": "proxy_upstream_timeout",
    "LR": "proxy_itself",
    "SI": "proxy_itself",
    "UO": "proxy_itself",
    "DT": "proxy_itself",
    "OM": "proxy_itself",
    "DC": "proxy_client",
    "DR": "proxy_client",
}
"""By response flag, in order of precedence: an upstream's flags come first."""


def _envoy(line: str) -> Match | None:
    found = _ENVOY.search(line)
    if found is None:
        return None
    return Match("envoy", _envoy_kind(found[1]), found[1])


def _envoy_kind(flags: str) -> str | None:
    given = flags.split(",")
    return next((kind for flag, kind in _ENVOY_KINDS.items() if flag in given), None)


# Access logs in the common format ------------------------------------------------------------

_COMMON: Final = re.compile(
    r'\S+ \S+ \S+ \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "(?:[^"\\]|\\.)*" (\d{3}) '
)


def _common(line: str) -> Match | None:
    found = _COMMON.search(line)
    if found is None:
        return None
    return Match("access", "proxy_client" if found[1] == "499" else None, found[1])


# Caddy and Traefik ---------------------------------------------------------------------------

_TRAEFIK: Final = re.compile(
    r"(499|50[0-4]) [A-Z][A-Za-z ]+?'? (?:caused by: |error=)\"?(.+?)\"?(?: \w+=|$)"
)
_TRAEFIK_MESSAGE: Final = re.compile(r"(499|50[0-4]) [A-Z][A-Za-z ]+$")
_COPIES: Final = re.compile(r"ReverseProxy read error during body copy: (.+?)\"?$")
_ABORTED: Final = re.compile(r"Request has been aborted \[.*\]: net/http: abort Handler")


def _traefik(line: str) -> Match | None:
    found = _TRAEFIK.search(line)
    if found is not None:
        return Match("traefik", _go_kind(found[1], found[2]), f"{found[1]} {_short(found[2])}")
    found = _COPIES.search(line)
    if found is not None:
        return Match("traefik", _go_kind("200", found[1]), _short(found[1]))
    if _ABORTED.search(line) is not None:
        return Match("traefik", "proxy_unclear", "aborted")
    return None


def _traefik_fields(fields: Mapping[str, Any]) -> Match | None:
    if "DownstreamStatus" in fields:
        status = str(fields["DownstreamStatus"])
        return Match("traefik", "proxy_client" if status == "499" else None, status)
    said = str(fields.get("message", fields.get("msg", "")))
    error = str(fields.get("error", ""))
    found = _TRAEFIK_MESSAGE.match(said)
    if found is not None and error:
        return Match("traefik", _go_kind(found[1], error), f"{found[1]} {_short(error)}")
    return _traefik(said)


_GO_ADDRESSES: Final = re.compile(r" tcp \S+?->\S+?:(?= )")


def _short(cause: str) -> str:
    """Remove the ports from a cause, because they differ each time."""
    return _GO_ADDRESSES.sub("", cause)[:60]


def _go_kind(status: str, cause: str) -> str | None:
    """Find what made Go's transport, or its copying of a response, give up.

    The transport sends its client's body by `readfrom`: an error that it wraps there is the
    upstream's; any other comes from reading the client's body.
    """
    if status == "499":
        return "proxy_client"
    if cause == "context canceled":
        return "proxy_client_likely"
    if "use of closed network connection" in cause:
        # The transport closes its own connection when it gives up a request's body.
        return "proxy_unclear"
    if "dial tcp" in cause or "connection refused" in cause:
        return "proxy_upstream_connect"
    if "timeout" in cause or "deadline" in cause or status == "504":
        return "proxy_upstream_timeout"
    if cause.startswith("readfrom "):
        return _of_sending(cause)
    if "reset by peer" in cause or "broken pipe" in cause:
        return "proxy_upstream_upload" if cause.startswith("write ") else "proxy_upstream"
    if cause.endswith("EOF") or "server closed" in cause:
        return "proxy_upstream" if cause == "EOF" or "server closed" in cause else "proxy_unclear"
    return None


def _of_sending(cause: str) -> str:
    if ": write tcp " in cause:
        return "proxy_upstream_upload"
    return "proxy_client_likely" if cause.endswith(": unexpected EOF") else "proxy_unclear"


def _caddy(fields: Mapping[str, Any]) -> Match | None:
    logger = str(fields.get("logger", ""))
    if not logger.startswith("http."):
        return None
    said, error = (str(fields.get(key, "")) for key in ("msg", "error"))
    status = str(fields.get("status", ""))
    kind: str | None = None
    detail = status
    if logger.startswith("http.log.access"):
        kind = "proxy_client" if status == "499" else None
    elif logger.startswith("http.log.error"):
        # Its handlers' own errors have other statuses.
        kind = _go_kind(status, said) if status in ("499", "502", "504") else None
        detail = f"{status} {_short(said)}"
    elif said == "aborting with incomplete response":
        kind, detail = _caddy_incomplete(error), _short(error)
    elif said == "upstream roundtrip" and error == "context canceled":
        # No other line reports this one: the rest appear in http.log.error as well.
        kind, detail = "proxy_client_likely", error
    return Match("caddy", kind, detail)


def _caddy_incomplete(error: str) -> str:
    # It copies from its upstream (reading) to its client (writing).
    if error.startswith(("writing: ", "write tcp ")) and "closed network" not in error:
        return "proxy_client"
    kind = _go_kind("200", error.removeprefix("reading: ").removeprefix("writing: "))
    return kind or "proxy_unclear"


def _envoy_fields(fields: Mapping[str, Any]) -> Match | None:
    if "response_flags" not in fields:
        return None
    flags = str(fields["response_flags"])
    return Match("envoy", _envoy_kind(flags), flags)


def _nginx_fields(fields: Mapping[str, Any]) -> Match | None:
    if not {"status", "request"} <= fields.keys() or not {"remote_addr", "request_time"} & (
        fields.keys()
    ):
        return None
    status = str(fields["status"])
    return Match("access", "proxy_client" if status == "499" else None, status)


_LINES: Final[tuple[Callable[[str], Match | None], ...]] = (
    _nginx,
    _envoy,
    _common,
    _haproxy,
    _traefik,
)
_FIELDS: Final[tuple[Callable[[Mapping[str, Any]], Match | None], ...]] = (
    _caddy,
    _envoy_fields,
    _traefik_fields,
    _nginx_fields,
)


def of_line(line: str) -> Match | None:
    """Say what a proxy's line is about; None if it fits no proxy's format.

    Args:
        line: A line of text, with any prefix.
    """
    return next((found for rule in _LINES if (found := rule(line)) is not None), None)


def of_fields(fields: Mapping[str, Any]) -> Match | None:
    """Say what a proxy's JSON line is about; None if it has no proxy's fields.

    Args:
        fields: The line's object.
    """
    return next((found for rule in _FIELDS if (found := rule(fields)) is not None), None)
