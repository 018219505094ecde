"""Events, and refused uploads, as the core makes them: for tests of what happens afterwards."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from cleanclose.core import (
    ClientDeparted,
    Facts,
    Mechanism,
    Outcome,
    Phase,
    Settings,
    Side,
    UploadDrained,
    UpstreamReset,
    Verdict,
    Witness,
)

__all__ = ["EXAMPLES", "FACTS", "departed", "drained", "facts", "refused", "upstream", "verdict"]

EXAMPLES: Final = int(os.environ.get("CLEANCLOSE_EXAMPLES", "100"))
"""How many ways each state machine is led through; `make test-all` takes more."""
Lingering = TypeVar("Lingering")
FACTS: Final = Facts(framework="asgi", server="uvicorn", method="GET", client="192.0.2.1")


def facts(**changes: Any) -> Facts:
    """What is known of a request, with changes."""
    return dataclasses.replace(FACTS, **changes)


def verdict(
    side: Side = Side.CLIENT,
    phase: Phase = Phase.HANDLER,
    mechanism: Mechanism = Mechanism.RESET,
    *witnesses: Witness,
) -> Verdict:
    """Whose fault it was; by default a client's that was seen to reset its connection."""
    return Verdict(
        side=side, phase=phase, mechanism=mechanism, witnesses=witnesses or (Witness.RECEIVE,)
    )


def departed(
    phase: Phase = Phase.HANDLER,
    *,
    side: Side = Side.CLIENT,
    witness: Witness = Witness.RECEIVE,
    method: str = "GET",
    route: str | None = "/a",
    client: str = "192.0.2.1",
    age_ms: float = 1.0,
    **more: Any,
) -> ClientDeparted:
    """A client has left; its request's id names its address."""
    return ClientDeparted(
        facts=facts(method=method, route=route, client=client, request_id=f"id of {client}"),
        age_ms=age_ms,
        verdict=verdict(side, phase, Mechanism.RESET, witness),
        **more,
    )


def drained(outcome: Outcome = Outcome.DELIVERED, **more: Any) -> UploadDrained:
    """An early response, and what became of it."""
    return UploadDrained(facts=FACTS, age_ms=1.0, outcome=outcome, **more)


def upstream(error: str = "builtins.ConnectionResetError", **more: Any) -> UpstreamReset:
    """An upstream has reset its connection."""
    return UpstreamReset(
        facts=FACTS, age_ms=1.0, verdict=verdict(Side.UPSTREAM), error=error, **more
    )


def refused(kind: Callable[..., Lingering], settings: Settings, **changes: Any) -> Lingering:
    """A connection, as it is handed to the lingerer now: its upload was refused unread.

    Args:
        kind: `cleanclose.core.deliver.linger.Linger`, or a class of a test's own above it.
        settings: The limits.
        **changes: What is to be otherwise.
    """
    now = time.monotonic()
    known: dict[str, Any] = {
        "facts": facts(framework="wsgi", method="POST"),
        "status": 413,
        "proxied": False,
        "awaits_continue": False,
        "received": 0,
        "drained": 0,
        "left": None,
        "started": now,
        "now": now,
    }
    return kind(settings, **known, **changes)
