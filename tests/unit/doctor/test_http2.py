"""The client for HTTP/2: what of a header block says the status."""

from __future__ import annotations

import pytest

from cleanclose.doctor.application.http2 import status_of


@pytest.mark.parametrize(
    ("block", "status"),
    [
        # The examples of RFC 7541, C.5.1 and C.6.1, as far as the first field goes.
        ("4803333032", 302),
        ("488264025885aec3771a4b", 302),
        ("4803333037", 307),
        ("4883640eff", 307),
        # The static table's own.
        ("88", 200),
        ("8d", 404),
        # Never indexed, and with a name of its own.
        ("1803343133", 413),
        ("00073a73746174757303343031", 401),
        # A change of the table's size in front of it.
        ("3fe11f88", 200),
        ("2088", 200),
        ("", 0),
    ],
)
def test_the_status_of_a_header_block(block: str, status: int) -> None:
    assert status_of(bytes.fromhex(block)) == status
