"""The ids by which an application's own log lines name a request.

Events have the ``X-Request-ID`` and the trace id of the request's headers. The functions here find
the ids that the application, or something inside it, has derived from those or uses instead. Each
function is for the argument ``ids`` of `cleanclose.core.StructlogOutlet` and
`cleanclose.integrations.stdlib.StdlibOutlet`. Each function imports what it needs only when you
call it.

They see what is visible where the event is sent: in the request's own task or thread, outside the
application. They cannot see what was set in a task or thread inside it, for example below
Starlette's ``BaseHTTPMiddleware``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cleanclose.core import Ids

__all__ = ["from_correlation_id", "from_opentelemetry", "from_structlog"]

_NAMES: Final = ("request_id", "correlation_id", "trace_id", "span_id")
_NOT_NAMES: Final = frozenset({"event", "exc_info", "level"})


def from_structlog(*names: str) -> Ids:
    """Ids that were bound with `structlog.contextvars.bind_contextvars`.

    A structlog configured with the processor ``merge_contextvars`` finds them by itself.

    Args:
        *names: The names to look for. Default: ``request_id``, ``correlation_id``, ``trace_id``
            and ``span_id``.

    Raises:
        ValueError: One of the names means something else in a log line.
    """
    for name in names:
        if name in _NOT_NAMES:
            raise ValueError(f"names must not have {name!r}, which is no id")
    contextvars: Any = importlib.import_module("structlog.contextvars")
    wanted = names or _NAMES

    def ids() -> Mapping[str, object]:
        bound: dict[str, object] = contextvars.get_contextvars()
        return {name: bound[name] for name in wanted if bound.get(name) is not None}

    return ids


def from_correlation_id(name: str = "request_id") -> Ids:
    """The id of asgi-correlation-id, or of anything else that sets its context variable.

    Args:
        name: Its name in the line. Default: the name of the header's id, which it replaces.

    Raises:
        ImportError: asgi-correlation-id is not installed.
    """
    context: Any = importlib.import_module("asgi_correlation_id.context")

    def ids() -> Mapping[str, object]:
        found: str | None = context.correlation_id.get()
        return {} if found is None else {name: found}

    return ids


def from_opentelemetry() -> Ids:
    """The ``trace_id`` and the ``span_id`` of OpenTelemetry's current span, if it is valid.

    Both in lower-case hexadecimal digits (W3C Trace Context, 3.2.2.3 and 3.2.2.4).

    Raises:
        ImportError: opentelemetry-api is not installed.
    """
    trace: Any = importlib.import_module("opentelemetry.trace")

    def ids() -> Mapping[str, object]:
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return {}
        return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}

    return ids
