"""What shows that a proxy stands in between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanclose.core.deliver.proxied import (
    PROXY_FIELDS,
    awaits_continue,
    is_proxied,
    names_caddy,
)


def test_names_are_in_lower_case() -> None:
    assert {name.lower() for name in PROXY_FIELDS} == PROXY_FIELDS


@pytest.mark.parametrize(
    "name",
    [
        "Via",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Real-IP",
    ],
)
def test_what_proxies_write(name: str) -> None:
    assert name.lower() in PROXY_FIELDS


@pytest.mark.parametrize("name", ["host", "x-request-id", "x-forwarded-user", "connection"])
def test_what_anybody_writes(name: str) -> None:
    assert name not in PROXY_FIELDS


@pytest.mark.parametrize(
    ("via", "expected"),
    [
        ("1.1 Caddy", True),
        ("2.0 Caddy", True),
        ("1.1 caddy (of ours)", True),
        ("1.1 front, 1.1 Caddy", True),
        ("1.1 front,2.0 Caddy,1.1 back", True),
        ("  1.1   Caddy  ", True),
        (None, False),
        ("", False),
        (",", False),
        ("Caddy", False),
        ("1.1 Caddyshack", False),
        ("1.1 example.com (not Caddy)", False),
        ("1.1 proxy (squid/5.7)", False),
    ],
)
def test_caddy(via: str | None, expected: bool) -> None:
    assert names_caddy(via) is expected


@given(st.text())
def test_no_value_breaks_it(via: str) -> None:
    assert names_caddy(via) in (True, False)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Host", "X-Forwarded-For"], True),
        (["host", "VIA"], True),
        (["Host", "Content-Length"], False),
        ([], False),
    ],
)
def test_one_of_its_fields_shows_a_proxy(names: list[str], expected: bool) -> None:
    assert is_proxied(names) is expected


@pytest.mark.parametrize(
    ("expect", "via", "expected"),
    [
        ("100-continue", None, True),
        (" 100-Continue ", "1.1 varnish", True),
        # It has answered the client itself.
        ("100-continue", "1.1 Caddy", False),
        (None, None, False),
        ("something-else", None, False),
    ],
)
def test_who_waits_for_a_100(expect: str | None, via: str | None, expected: bool) -> None:
    assert awaits_continue(expect, via) is expected
