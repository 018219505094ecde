"""What proxies write about connections: nginx, HAProxy, Envoy, Caddy, Traefik.

A proxy names which of its two connections broke. Where its words fit both, so does the verdict.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

__all__ = ["Match", "of_fields", "of_line"]


class Match(NamedTuple):
    """What a line is.

    Args:
        format: The log's format.
        kind: A name in `KINDS`; None if the line is not about a broken connection.
        detail: What tells lines of a kind apart: a flag, a library, nginx's own words.
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
    # The request's own words, which the client chose, come behind `, client:`.
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
    if said.startswith(("client prematurely closed", "client closed", "client ")) and (
        "closed" in said.split(",")[0]
    ):
        return "proxy_client"
    if said.startswith("client timed out"):
        return "proxy_client_timeout"
    if said.startswith("no live upstreams"):
        return "proxy_upstream_connect"
    if "upstream" in doing:
        return _nginx_upstream(said, doing, level)
    return _nginx_client(said, doing)


def _nginx_upstream(said: str, doing: str, level: str) -> str:
    if doing.startswith(("connecting", "SSL handshaking")):
        return "proxy_upstream_connect"
    if doing.startswith("sending request"):
        # Its client's connection is read meanwhile, and logged at `info`.
        return "proxy_unclear" if level in ("info", "debug") else "proxy_upstream_upload"
    writes = said.startswith(("send", "write", "SSL_write"))
    if writes or level in ("info", "debug"):
        # It hands on to its client what it reads, under the same words.
        return "proxy_unclear"
    return "proxy_upstream"


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
"""By the first letter of the termination state (HAProxy's manual, 8.5); the second is where."""


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
"""By response flag, in the order in which they count: an upstream's word comes before all."""


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

_TRAEFIK: Final = re.compile(r"'?(499|50[0-4]) ([A-Z][A-Za-z ]+)'? caused by: (.+?)\"?(?: \w+=|$)")


def _traefik_kind(status: str, cause: str) -> str | None:
    if status == "499":
        return "proxy_client"
    if "connection refused" in cause or "dial tcp" in cause:
        return "proxy_upstream_connect"
    if "timeout" in cause or "deadline" in cause:
        return "proxy_upstream_timeout"
    return _go_kind(cause)


_GO_READ: Final = re.compile(r"(read|write|readfrom) tcp \S+->\S+: (?:\w+: )*(?:.*)$")


def _go_kind(cause: str) -> str | None:
    """Go's HTTP client sends its client's body itself: the words fit either connection.

    `readfrom` holds an inner error: what reading the client's body, or writing, said.
    """
    if cause in ("EOF", "http: server closed idle connection") or cause.endswith(": EOF"):
        return "proxy_upstream"
    if "server sent GOAWAY" in cause or "transport connection broken: http: ContentLength" in cause:
        return "proxy_unclear"
    if "reset by peer" in cause or "broken pipe" in cause or "closed" in cause:
        if "readfrom" in cause:
            is_write = re.search(r"readfrom tcp \S+: write tcp", cause)
            return "proxy_upstream_upload" if is_write else "proxy_unclear"
        return "proxy_upstream_upload" if "write" in cause else "proxy_upstream"
    if "unexpected EOF" in cause or "context canceled" in cause:
        return "proxy_unclear"
    return None


def _traefik(line: str) -> Match | None:
    found = _TRAEFIK.search(line)
    if found is None:
        return None
    return Match("traefik", _traefik_kind(found[1], found[3]), f"{found[1]} {found[3][:60]}")


def _caddy(fields: Mapping[str, Any]) -> Match | None:
    logger = str(fields.get("logger", ""))
    if not logger.startswith("http."):
        return None
    said = str(fields.get("msg", ""))
    error = str(fields.get("error", ""))
    status = fields.get("status")
    if logger.startswith("http.log.access"):
        return Match("caddy", "proxy_client" if status == 499 else None, str(status))
    if said == "aborting with incomplete response":
        return Match("caddy", _caddy_incomplete(error), error.partition(":")[0])
    if logger.startswith("http.log.error"):
        if status == 499 or said == "context canceled":
            return Match("caddy", "proxy_client", "499")
        if status == 502 and ("dial tcp" in said or "connection refused" in said):
            return Match("caddy", "proxy_upstream_connect", "502")
        if status == 504:
            return Match("caddy", "proxy_upstream_timeout", "504")
        if status == 502:
            return Match("caddy", _go_kind(said), "502")
    return Match("caddy", None)


def _caddy_incomplete(error: str) -> str:
    # It copies from its upstream (reading) to its client (writing).
    if error.startswith("writing: "):
        return "proxy_client"
    if error.startswith("reading: ") and "context canceled" not in error:
        return "proxy_upstream"
    return "proxy_unclear"


def _traefik_fields(fields: Mapping[str, Any]) -> Match | None:
    if "DownstreamStatus" in fields:
        status = str(fields["DownstreamStatus"])
        return Match("traefik", "proxy_client" if status == "499" else None, status)
    found = _traefik(str(fields.get("message", fields.get("msg", ""))) + " ")
    if found is not None:
        return found
    error = str(fields.get("error", ""))
    return _traefik(error + " ") if error else None


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
    """What a proxy's line is; None if no proxy's format fits it.

    Args:
        line: A line of text, with whatever stands before it.
    """
    return next((found for rule in _LINES if (found := rule(line)) is not None), None)


def of_fields(fields: Mapping[str, Any]) -> Match | None:
    """What a proxy's JSON line is; None if no proxy's fields are in it.

    Args:
        fields: The line's object.
    """
    return next((found for rule in _FIELDS if (found := rule(fields)) is not None), None)
