"""The rooms: all are found, and what they use of others is in the table."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

import pytest

import cleanclose.core.servers as old_place
from cleanclose import servers
from cleanclose.core.private import Private, say_gone
from cleanclose.core.server import Server
from cleanclose.servers import PRIVATE, ROOMS

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
