"""Tell from an answer which proxies it passed, and whether one of them made it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cleanclose.testing.wire import Response

__all__ = ["Maker", "made_by", "proxies"]

_GATEWAY_ERRORS: Final = frozenset({502, 503, 504})
_PROXY_ERRORS: Final = _GATEWAY_ERRORS | {400, 408, 413, 494, 497, 499}


@dataclass(frozen=True, kw_only=True, slots=True)
class Maker:
    """The program that made an answer.

    Args:
        name: The proxy's name; None for the application, or for the server behind the proxies.
        sure: Whether the answer itself proves it.
        evidence: The part of the answer that shows it.
    """

    name: str | None
    sure: bool
    evidence: str


_PAGES: Final = (
    ("nginx", re.compile(rb"<center>(?:nginx|openresty)(?:/[\d.]+)?</center>")),
    (
        "Apache httpd",
        re.compile(
            rb"<address>Apache(?:/[^<]*)?(?: Server)? at |proxy server received"
            rb" an invalid\s+response from an upstream"
        ),
    ),
    ("HAProxy", re.compile(rb"<h1>50[234] [^<]+</h1>\s*(?:The server|No server) ")),
    (
        "Envoy",
        re.compile(
            rb"\Aupstream (?:connect error or disconnect/reset|request timeout)"
            rb"|\Ano healthy upstream"
        ),
    ),
    ("AWS load balancer", re.compile(rb"<center>awselb/")),
    ("Cloudflare", re.compile(rb"cloudflare", re.IGNORECASE)),
    ("Varnish", re.compile(rb"<h1>Error 50[23] |Varnish cache server")),
    ("Squid", re.compile(rb"Generated .{0,100} by .{0,100} \(squid")),
    ("Google load balancer", re.compile(rb"<title>502 Server Error</title>|\Aupstream connect")),
    ("Traefik", re.compile(rb"\A(?:Bad Gateway|Gateway Timeout|Service Unavailable)\Z")),
)
"""The error pages that proxies make themselves: for each proxy a text that all its pages
contain."""


def _server(*names: str) -> Callable[[Response], str | None]:
    def look(response: Response) -> str | None:
        value = response.header("Server") or ""
        found = any(value.lower().startswith(name) for name in names)
        return f"Server: {value[:60]}" if found else None

    return look


def _has(*headers: str) -> Callable[[Response], str | None]:
    def look(response: Response) -> str | None:
        return next((name for name in headers if response.header(name) is not None), None)

    return look


def _via(word: str) -> Callable[[Response], str | None]:
    def look(response: Response) -> str | None:
        value = response.header("Via") or ""
        return f"Via: {value[:60]}" if word in value.lower() else None

    return look


_MARKS: Final = (
    ("Cloudflare", _has("CF-Ray")),
    ("Amazon CloudFront", _has("X-Amz-Cf-Id")),
    ("AWS load balancer", _server("awselb")),
    ("Fastly", _has("X-Fastly-Request-Id")),
    ("Akamai", _server("akamaighost")),
    ("Google load balancer", _via("google")),
    ("Envoy", _server("envoy", "istio-envoy")),
    ("Envoy", _has("X-Envoy-Upstream-Service-Time")),
    ("Caddy", _via("caddy")),
    ("Caddy", _server("caddy")),
    ("Varnish", _has("X-Varnish")),
    ("Squid", _via("squid")),
    ("nginx", _server("nginx", "openresty")),
    ("Apache httpd", _server("apache")),
    ("H2O", _server("h2o")),
    ("lighttpd", _server("lighttpd")),
)
"""What proxies add to the answers that they pass on. HAProxy and Traefik add nothing."""


def proxies(response: Response) -> dict[str, str]:
    """Find the proxies that left a mark in an answer, each with that mark.

    Args:
        response: The answer.
    """
    found: dict[str, str] = {}
    for name, look in _MARKS:
        evidence = look(response)
        if evidence is not None:
            found.setdefault(name, evidence)
    via = response.header("Via")
    if via and not any("Via" in evidence for evidence in found.values()):
        found["a proxy"] = f"Via: {via[:60]}"
    return found


def made_by(response: Response) -> Maker:
    """Find out which program made an answer.

    Args:
        response: The answer.
    """
    if response.status in _PROXY_ERRORS:
        for name, page in _PAGES:
            if page.search(response.body.strip()):
                return Maker(name=name, sure=True, evidence="its own error page")
    if response.status in _GATEWAY_ERRORS:
        shown = proxies(response)
        name, evidence = next(iter(shown.items()), ("a proxy", f"status {response.status}"))
        if not response.body and name == "a proxy":
            # Caddy's own error has neither a body nor a mark.
            evidence = f"status {response.status} without a body, as Caddy makes it"
        return Maker(name=name, sure=False, evidence=evidence)
    return Maker(name=None, sure=response.status < 500, evidence=f"status {response.status}")
