"""The clients, as far as they need no server."""

from __future__ import annotations

import hashlib

import pytest

from cleanclose.testing import Upload, http_client
from cleanclose.testing.uploads import SMUGGLED_PATH, body_digest, body_pieces


def test_bodies_are_requests_that_nobody_sent() -> None:
    body = b"".join(bytes(piece) for piece in body_pieces(1000, 100))
    assert len(body) == 1000
    assert body.startswith(f"GET {SMUGGLED_PATH} HTTP/1.1\r\n".encode())
    assert body == b"".join(bytes(piece) for piece in body_pieces(1000, 7))
    assert hashlib.sha256(body).hexdigest() == body_digest(1000)


def test_bodies_are_never_held_whole() -> None:
    size = sum(len(piece) for piece in body_pieces(1 << 30, 1 << 20))
    assert size == 1 << 30


def test_http_client_cannot_do_what_it_cannot_do() -> None:
    for upload in (
        Upload(port=1, raw_body=b"x"),
        Upload(port=1, body_size=9, abort_after=1),
        Upload(port=1, follow_up="pipelined"),
    ):
        with pytest.raises(ValueError, match=r"http\.client"):
            http_client(upload)
