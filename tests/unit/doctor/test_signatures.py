"""Who has made an answer, by what proxies really send."""

from __future__ import annotations

import pytest

from cleanclose.doctor.address.signatures import made_by, proxies
from cleanclose.doctor.wire import Response, read_transcript


def response(head: str, body: str = "") -> Response:
    text = f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    found = read_transcript(text.encode(), "POST").first
    assert found is not None
    return found


NGINX = (
    "<html>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n<hr>"
    "<center>nginx/1.22.1</center>"
)
HAPROXY = (
    "<html><body><h1>502 Bad Gateway</h1>\nThe server returned an invalid or incomplete response."
    "\n</body></html>\n"
)


@pytest.mark.parametrize(
    ("head", "body", "name", "sure"),
    [
        ("502 Bad Gateway\r\nServer: nginx/1.22.1", NGINX, "nginx", True),
        ("502 Bad Gateway", HAPROXY, "HAProxy", True),
        ("502 Bad Gateway", "Bad Gateway", "Traefik", True),
        (
            "503 Service Unavailable\r\nServer: envoy",
            "upstream connect error or disconnect/reset before headers. reset reason: reset",
            "Envoy",
            True,
        ),
        ("502 Bad Gateway\r\nServer: Caddy", "", "Caddy", False),
        ("502 Bad Gateway", "", "a proxy", False),
        ("503 Service Unavailable", '{"error": "busy"}', "a proxy", False),
        ("413 Content Too Large\r\nServer: nginx", NGINX.replace("502", "413"), "nginx", True),
        ("413 Content Too Large\r\nServer: nginx", '{"error": "too large"}', None, True),
        ("401 Unauthorized", "", None, True),
        ("500 Internal Server Error", "Internal Server Error", None, False),
        # A page about a proxy is none of its errors.
        ("200 OK", NGINX, None, True),
    ],
)
def test_who_has_made_an_answer(head: str, body: str, name: str | None, sure: bool) -> None:
    maker = made_by(response(head, body))
    assert (maker.name, maker.sure) == (name, sure)


@pytest.mark.parametrize(
    ("headers", "names"),
    [
        ("Server: nginx", ["nginx"]),
        ("Via: 1.1 Caddy", ["Caddy"]),
        ("Via: 1.1 host (squid/5.7)", ["Squid"]),
        ("Via: 1.1 somebody", ["a proxy"]),
        ("CF-Ray: 1-FRA\r\nServer: cloudflare", ["Cloudflare"]),
        ("X-Envoy-Upstream-Service-Time: 3\r\nServer: istio-envoy", ["Envoy"]),
        ("Server: uvicorn", []),
    ],
)
def test_which_proxies_an_answer_shows(headers: str, names: list[str]) -> None:
    assert list(proxies(response(f"200 OK\r\n{headers}"))) == names
