"""Where a body ends, by its headers: what is not certain is no body of ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanclose.core.deliver.framing import (
    CHUNKED,
    NO_BODY,
    asks_for_websocket,
    awaited_length,
    body_length,
    is_multiplexed,
    response_length,
    wants_continue,
)


def length(
    content_length: str | None = None,
    transfer_encoding: str | None = None,
    *,
    method: str = "POST",
    http_version: str = "1.1",
    upgrade: str | None = None,
    ends_at_upgrade: bool = False,
) -> int:
    return body_length(
        method=method,
        http_version=http_version,
        content_length=content_length,
        transfer_encoding=transfer_encoding,
        upgrade=upgrade,
        ends_at_upgrade=ends_at_upgrade,
    )


@pytest.mark.parametrize(
    ("content_length", "transfer_encoding", "expected"),
    [
        (None, None, NO_BODY),
        ("0", None, NO_BODY),
        ("12", None, 12),
        (" 12 ", None, 12),
        ("12, 12", None, 12),
        ("12, 13", None, NO_BODY),
        ("-1", None, NO_BODY),
        ("+1", None, NO_BODY),
        ("1_0", None, NO_BODY),
        ("0x10", None, NO_BODY),
        ("1.5", None, NO_BODY),
        ("", None, NO_BODY),
        ("٣", None, NO_BODY),
        # More digits than int() takes.
        ("9" * 5000, None, NO_BODY),
        (None, "chunked", CHUNKED),
        (None, "gzip, Chunked", CHUNKED),
        (None, "chunked, gzip", NO_BODY),
        (None, "xchunked", NO_BODY),
        # RFC 9112 section 6.3: Transfer-Encoding overrides Content-Length.
        ("5", "chunked", CHUNKED),
    ],
)
def test_body_length(
    content_length: str | None, transfer_encoding: str | None, expected: int
) -> None:
    assert length(content_length, transfer_encoding) == expected


@pytest.mark.parametrize("version", ["2", "2.0", "3"])
@pytest.mark.parametrize(
    ("content_length", "expected"),
    [
        ("5", 5),
        (" 5 ", 5),
        # A body that has ended with its head is no body.
        ("0", NO_BODY),
        # RFC 9113 section 8.1: the stream's end is the body's, whatever it says of its length.
        (None, CHUNKED),
        ("", CHUNKED),
        ("-5", CHUNKED),
        ("5, 5", CHUNKED),
        ("9" * 5000, CHUNKED),
    ],
)
def test_where_requests_share_a_connection_a_body_ends_with_its_stream(
    version: str, content_length: str | None, expected: int
) -> None:
    assert length(content_length, http_version=version) == expected


def test_there_framing_and_upgrade_mean_nothing() -> None:
    assert length(None, "gzip", http_version="2") == CHUNKED
    assert length("5", "chunked", http_version="2") == 5
    assert length("5", upgrade="websocket", http_version="2") == 5


@pytest.mark.parametrize("version", ["", "0.9", "x"])
def test_what_is_no_known_version_is_left_alone(version: str) -> None:
    assert length("5", http_version=version) == NO_BODY


@pytest.mark.parametrize(
    ("version", "expected"),
    [("1.0", False), ("1.1", False), ("2", True), ("2.0", True), ("3", True), ("", False)],
)
def test_is_multiplexed(version: str, expected: bool) -> None:
    assert is_multiplexed(version) is expected


@pytest.mark.parametrize("version", ["1.0", "1.1", "2", "3"])
@pytest.mark.parametrize("method", ["HEAD", "CONNECT"])
def test_methods_that_are_left_alone(method: str, version: str) -> None:
    assert length("5", method=method, http_version=version) == NO_BODY


def test_an_upgrade_is_left_alone() -> None:
    assert length("5", upgrade="websocket") == NO_BODY
    assert length("5", upgrade="websocket, h2c") == NO_BODY


def test_an_upgrade_to_http_2_comes_behind_the_body() -> None:
    assert length("5", upgrade="h2c") == 5
    assert length(None, "chunked", upgrade=" H2C") == CHUNKED
    assert length("5", upgrade="h2c", ends_at_upgrade=True) == NO_BODY
    assert length("5", ends_at_upgrade=True) == 5


@given(st.text(), st.sampled_from(["1.1", "2", "3"]))
def test_no_header_value_breaks_it(value: str, version: str) -> None:
    assert length(value, http_version=version) >= CHUNKED
    assert length(None, value, http_version=version) in (NO_BODY, CHUNKED)


@given(st.text())
def test_no_length_is_made_up(value: str) -> None:
    assert length(value) >= NO_BODY


@pytest.mark.parametrize(
    ("value", "expected"), [(None, None), ("3", 3), (" 3 ", 3), ("0", 0), ("x", None)]
)
def test_response_length(value: str | None, expected: int | None) -> None:
    assert response_length(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("100-continue", True), (" 100-Continue ", True), (None, False), ("200-ok", False)],
)
def test_wants_continue(value: str | None, expected: bool) -> None:
    assert wants_continue(value) is expected


@pytest.mark.parametrize(
    ("method", "status", "content_length", "expected"),
    [
        ("HEAD", 200, "5", 0),
        ("GET", 204, None, 0),
        ("GET", 304, "5", 0),
        ("GET", 200, "5", 5),
        ("GET", 200, None, None),
    ],
)
def test_how_much_of_a_response_its_client_waits_for(
    method: str, status: int, content_length: str | None, expected: int | None
) -> None:
    assert awaited_length(method, status, content_length) == expected


@pytest.mark.parametrize(
    ("upgrade", "asks"),
    [
        ("websocket", True),
        ("WebSocket", True),
        ("h2c, websocket", True),
        ("h2c", False),
        ("", False),
        ("not-a-websocket", False),
    ],
)
def test_who_asks_for_a_websocket(upgrade: str, asks: bool) -> None:
    assert asks_for_websocket(upgrade) is asks
