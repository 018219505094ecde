"""The ids by which other systems know the same request."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["trace_id"]

# W3C Trace Context, section 3.2.2: version, trace-id, parent-id, flags; later versions may have
# more after them.
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


def trace_id(traceparent: str | None) -> str | None:
    """The trace id of a ``traceparent`` header; None if there is no valid one.

    Args:
        traceparent: The header's value.
    """
    found = _TRACEPARENT.fullmatch(traceparent.strip()) if traceparent else None
    # Section 3.2.2.3: all zeroes is no id.
    return found[1] if found and found[1].strip("0") else None
