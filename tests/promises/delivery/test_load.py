"""Many refused uploads at once: everybody gets an answer, and no body is kept in memory."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pytest

from cleanclose.doctor import Upload, strict
from tests.harness.apps import routes
from tests.harness.processes import peak_rss_bytes, reset_peak_rss, rss_bytes
from tests.harness.scenarios import MIB, TRIES
from tests.harness.serving import Serve, Tally
from tests.harness.stacks import SERVERS, Stack, stack
from tests.harness.verdicts import assert_clean

if TYPE_CHECKING:
    from cleanclose.core import SettingsOptions

FULL: Final = TRIES >= 100

# The bar is 300 uploads with the default settings, of which 100 may read at once. The quick
# run keeps the proportion, so that uploads have to wait for their turn there too.
UPLOADS: Final = int(os.environ.get("CLEANCLOSE_UPLOADS", "300" if FULL else "24"))
SETTINGS: Final[SettingsOptions] = {} if FULL else {"max_draining": 8}
SIZE: Final = 16 * MIB
ALLOWED_GROWTH: Final = 64 * MIB
"""What the server may take beside the bare one: buffers for each connection, but no bodies."""

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

LOADED = [candidate for candidate in SERVERS if candidate.interface in ("asgi", "tornado")]


def load(serve: Serve, stack: Stack, *, wrapped: bool, close: bool) -> tuple[int, int]:
    """How many of the uploads got their answer, and how far the server's memory rose."""
    server = serve(stack, wrapped=wrapped, settings=SETTINGS if wrapped else None)
    # The first uploads make the interpreter and its allocator as large as they need to be.
    for _ in range(3):
        strict(Upload(port=server.port, path=routes.REFUSE, body_size=MIB, listen=0.0))
    before = rss_bytes(server.pid)
    reset_peak_rss(server.pid)
    upload = Upload(
        port=server.port,
        path=routes.REFUSE,
        body_size=SIZE,
        connection_close=close,
        piece_size=256 * 1024,
        # With 64 pieces each upload takes more than a second, so that all of them overlap.
        pause=0.02,
        listen=0.1,
        timeout=300.0,
    )
    with ThreadPoolExecutor(UPLOADS) as pool:
        outcomes = list(pool.map(strict, [upload] * UPLOADS))
    growth = peak_rss_bytes(server.pid) - before
    delivered = [outcome for outcome in outcomes if outcome.status == 413]
    assert_clean(delivered)
    if wrapped and len(delivered) < UPLOADS:
        lost = next(outcome for outcome in outcomes if outcome.status != 413)
        pytest.fail(f"lost {UPLOADS - len(delivered)} of {UPLOADS}, one of them: {lost}")
    return len(delivered), growth


@pytest.mark.parametrize("close", [False, True], ids=["keep-alive", "close"])
@pytest.mark.parametrize("stack", LOADED, ids=str)
def test_every_upload_is_answered(serve: Serve, tally: Tally, stack: Stack, close: bool) -> None:
    growth: dict[bool, int] = {}
    for wrapped in (False, True):
        delivered, growth[wrapped] = load(serve, stack, wrapped=wrapped, close=close)
        tally(
            f"{stack} {UPLOADS} at once{' close' if close else ''}",
            "strict",
            wrapped=wrapped,
            delivered=delivered,
            tries=UPLOADS,
            note=f"+{growth[wrapped] / MIB:.0f} MiB",
        )
    assert growth[True] < growth[False] + ALLOWED_GROWTH


def test_bystanders_are_served_while_uploads_are_refused(serve: Serve) -> None:
    """Lingering takes a thread each, and may not take all of them."""
    server = serve(stack("gunicorn-gthread"))
    stalling = Upload(
        port=server.port,
        path=routes.REFUSE,
        body_size=8 * MIB,
        abort_after=MIB,
        abort_how="stall",
        timeout=60.0,
    )
    with ThreadPoolExecutor(8) as pool:
        stalled = [pool.submit(strict, stalling) for _ in range(8)]
        bystanders = [
            strict(Upload(port=server.port, method="GET", path=routes.INDEX, listen=0.0))
            for _ in range(10)
        ]
        outcomes = [future.result() for future in stalled]
    assert [outcome.status for outcome in bystanders] == [200] * 10
    assert all(outcome.closed_by in ("fin", "reset") for outcome in outcomes)
