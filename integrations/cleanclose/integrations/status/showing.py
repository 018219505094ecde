"""The answer on every interface: HTML, or JSON for a client that asks for it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cleanclose.integrations.status.drawing import POLICY, render

__all__ = ["ALLOW", "Show", "Shown", "show"]

ALLOW: Final = "GET, HEAD"
"""The methods that the page has."""


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    """One answer with the page.

    Args:
        headers: The response's headers, without its length.
        body: The response's body.
    """

    headers: Sequence[tuple[str, str]]
    body: bytes


Show = Callable[[str], Shown]
"""Makes the page for a client that sends this in ``Accept``."""


def show(figures: Mapping[str, Any], accept: str) -> Shown:
    """Show figures to a client.

    Args:
        figures: What `StatusPage.figures` returns.
        accept: What the client sends in ``Accept``.
    """
    if _wants_json(accept):
        content_type, text = "application/json", json.dumps(figures)
    else:
        content_type, text = "text/html; charset=utf-8", render(figures)
    headers = (
        ("Content-Type", content_type),
        ("Cache-Control", "no-store"),
        ("Vary", "Accept"),
        ("Content-Security-Policy", POLICY),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
    )
    return Shown(headers, text.encode())


def _wants_json(accept: str) -> bool:
    """Whether a client asks for JSON, and not at least as much for HTML (RFC 9110, 12.5.1)."""
    weights: dict[str, float] = {}
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        weights[kind] = float(weight) if re.fullmatch(r"[01](\.\d{0,3})?", weight) else 0.0
    json_weight = weights.get("application/json", 0.0)
    return json_weight > 0 and json_weight > weights.get("text/html", 0.0)
