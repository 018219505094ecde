"""The ids by which other systems know the same request."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypedDict

__all__ = ["Ids", "ids_of", "trace_id"]

# W3C Trace Context, section 3.2.2: version, trace-id, parent-id, flags; later versions may have
# more behind them.
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


def trace_id(traceparent: str | None) -> str | None:
    """The trace id of a ``traceparent`` header; None if there is no valid one.

    Args:
        traceparent: The header's value.
    """
    found = _TRACEPARENT.fullmatch(traceparent.strip()) if traceparent else None
    # Section 3.2.2.3: all zeroes is no id.
    return found[1] if found and found[1].strip("0") else None


class Ids(TypedDict):
    """Fields of `cleanclose.core.Facts`."""

    request_id: str | None
    trace_id: str | None
    idempotency_key: str | None


def ids_of(header: Callable[[str], str | None]) -> Ids:
    """The ids that a request's headers give it.

    Args:
        header: Returns a header's value, given its name in lower case; None if there is none.
    """
    return {
        "request_id": header("x-request-id"),
        "trace_id": trace_id(header("traceparent")),
        "idempotency_key": header("idempotency-key"),
    }
