"""The rooms: all are found, and what they use of others is in the table."""

from __future__ import annotations

import errno
import importlib
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cleanclose.core.servers as old_place
from cleanclose import servers
from cleanclose.core.deliver.framing import body_length
from cleanclose.core.private import Private, say_gone
from cleanclose.core.server import Server
from cleanclose.servers import PRIVATE, ROOMS
from cleanclose.servers.eventlet import ROOM as EVENTLET

PUBLIC = frozenset({"raw", "__self__", "is_set", "alive", "closed", "transport_stream", "socket"})
"""Documented, or of the attribute before it."""


def test_each_module_is_a_room() -> None:
    (folder,) = servers.__path__
    names = {path.stem for path in Path(folder).glob("[!_]*.py")}
    found = [importlib.import_module(f"cleanclose.servers.{name}").ROOM for name in names]
    assert {id(room) for room in ROOMS} == {id(room) for room in found}
    assert len({room.package for room in ROOMS}) == len(ROOMS)


def rows() -> list[Server]:
    return [row for room in ROOMS for row in (room.asgi, room.wsgi) if row is not None]


@pytest.mark.parametrize("row", rows(), ids=[f"{row.name}-{n}" for n, row in enumerate(rows())])
def test_what_a_row_asks_for_is_in_the_table(row: Server) -> None:
    paths = [
        *row.gone_attributes,
        *row.connection,
        *row.reads_from,
        *(path for path in (row.closes, row.input_socket, row.head_attribute) if path),
        *(path for path in (row.left_attribute, row.trailers) if path),
        *([row.stopping[0]] if row.stopping else []),
    ]
    known = {private.attribute for private in PRIVATE} | PUBLIC
    for path in paths:
        assert not set(path.split(".")) - known, path


def test_what_is_gone_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    row = Private("somebody.Else", "_its", "Nothing is lost.")
    say_gone(row)
    say_gone(row)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "owner='somebody.Else' attribute='_its'" in record.getMessage()


def test_the_old_module_still_has_its_names() -> None:
    for name in ("UNKNOWN", "TORNADO", "Server", "Continue", "asgi_server", "wsgi_server"):
        assert getattr(old_place, name) is not None
    assert getattr(old_place, "asgi_server") is servers.asgi_server  # noqa: B009 - it has no types


def test_what_eventlet_could_not_write_does_not_end_in_a_traceback() -> None:
    """Its finish() flushes once more, and passes over what a lost connection raises, not EBADF."""
    done: list[str] = []

    class Handler:
        def __init__(self, number: int) -> None:
            self.number = number

        def finish(self) -> None:
            done.append("finish")
            raise OSError(self.number, "said by the kernel")

    when_closing = EVENTLET.wsgi.when_closing if EVENTLET.wsgi else None
    assert when_closing is not None
    handler = Handler(errno.EBADF)
    when_closing(handler, lambda: done.append("let go"))
    handler.finish()
    assert done == ["let go", "finish"]
    handler = Handler(errno.EIO)
    when_closing(handler, lambda: None)
    with pytest.raises(OSError, match="said by the kernel"):
        handler.finish()


def test_a_server_whose_length_may_not_be_the_bodys_is_known_by_its_key() -> None:
    # Every POST asks for that key alone, before it is known which server it is.
    assert all(
        room.environ_key is not None
        for room in ROOMS
        if room.wsgi is not None and not room.wsgi.declares_length
    )
    plain = {"SERVER_PROTOCOL": "HTTP/1.1", "REQUEST_METHOD": "POST"}
    assert servers.plain_length(plain, "5") == 5
    assert servers.plain_length({**plain, "mod_wsgi.version": (5, 0)}, "5") is None


def test_other_than_plain_lengths_are_looked_at_closer() -> None:
    plain = {"SERVER_PROTOCOL": "HTTP/1.1", "REQUEST_METHOD": "POST"}
    assert servers.plain_length({**plain, "HTTP_TRANSFER_ENCODING": "chunked"}, "5") is None
    assert servers.plain_length({**plain, "HTTP_UPGRADE": "h2c"}, "5") is None
    assert servers.plain_length(plain, 5) is None
    assert servers.plain_length(plain, None) is None


@pytest.mark.parametrize("length", ["+5", "1_0", "²", "5, 5", "9" * 20, "9" * 5000, " 5"])
def test_an_unusual_length_is_looked_at_closer(length: str) -> None:
    plain = {"SERVER_PROTOCOL": "HTTP/1.1", "REQUEST_METHOD": "POST"}
    assert servers.plain_length(plain, length) is None


def quick_look(method: str, version: str, content_length: str) -> int | None:
    environ = {"SERVER_PROTOCOL": f"HTTP/{version}", "REQUEST_METHOD": method}
    return servers.plain_length(environ, content_length)


@pytest.mark.parametrize(
    ("method", "version", "content_length", "expected"),
    [
        ("GET", "1.1", "0", 0),
        ("PUT", "1.1", "9" * 19, int("9" * 19)),
        ("POST", "1.0", "5", None),
        ("POST", "2", "5", None),
        ("HEAD", "1.1", "5", None),
        ("CONNECT", "1.1", "5", None),
        ("POST", "1.1", "", None),
    ],
)
def test_the_quick_look_knows_plain_requests_only(
    method: str, version: str, content_length: str, expected: int | None
) -> None:
    assert quick_look(method, version, content_length) == expected


# PEP 3333: nothing else stands in an environ.
latin_1 = st.characters(max_codepoint=0xFF)


@given(
    st.sampled_from(["GET", "POST", "HEAD", "CONNECT"]),
    st.sampled_from(["1.0", "1.1"]),
    st.one_of(st.integers(0, 10**21).map(str), st.text(latin_1, max_size=3)),
)
def test_the_quick_look_agrees_with_the_long_one(method: str, version: str, value: str) -> None:
    quick = quick_look(method, version, value)
    if quick is not None:
        assert quick == body_length(
            method=method,
            http_version=version,
            content_length=value,
            transfer_encoding=None,
            upgrade=None,
        )
