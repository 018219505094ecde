"""Names that `cleanclose.core` once had, and where they are now.

They work as before, except for type checkers. Each is looked up on first use.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["OLD_NAMES", "look_up"]

OLD_NAMES: Final[Mapping[str, str]] = {
    "CHUNKED": "cleanclose.core.deliver.framing.CHUNKED",
    "COMPLETE": "cleanclose.core.blame.watch.COMPLETE",
    "CURRENT": "cleanclose.core.blame.watch.CURRENT",
    "Connection": "cleanclose.core.deliver.patience.Connection",
    "Continue": "cleanclose.core.server.Continue",
    "Done": "cleanclose.core.deliver.table.Done",
    "End": "cleanclose.core.blame.watch.End",
    "Exchange": "cleanclose.core.deliver.exchange.Exchange",
    "Forward": "cleanclose.core.deliver.table.Forward",
    "GONE": "cleanclose.core.blame.watch.GONE",
    "Happening": "cleanclose.core.deliver.table.Happening",
    "Keep": "cleanclose.core.deliver.table.Keep",
    "NO_BODY": "cleanclose.core.deliver.framing.NO_BODY",
    "OPEN": "cleanclose.core.blame.watch.OPEN",
    "PROXY_FIELDS": "cleanclose.core.deliver.proxied.PROXY_FIELDS",
    "Places": "cleanclose.core.deliver.places.Places",
    "Read": "cleanclose.core.deliver.table.Read",
    "Reporter": "cleanclose.core.tell.reporter.Reporter",
    "Respond": "cleanclose.core.deliver.table.Respond",
    "STREAMING": "cleanclose.core.blame.watch.STREAMING",
    "Server": "cleanclose.core.server.Server",
    "State": "cleanclose.core.deliver.table.State",
    "Step": "cleanclose.core.deliver.table.Step",
    "Surge": "cleanclose.surge.Surge",
    "TORNADO": "cleanclose.servers.tornado.TORNADO",
    "TRANSITIONS": "cleanclose.core.deliver.table.TRANSITIONS",
    "TcpConnection": "cleanclose.core.tcp_info.Connection",
    "UNKNOWN": "cleanclose.core.server.UNKNOWN",
    "asgi_server": "cleanclose.servers.asgi_server",
    "asgi_socket": "cleanclose.servers._lookup.asgi_socket",
    "ask_connection": "cleanclose.core.kernel.ask_connection",
    "body_length": "cleanclose.core.deliver.framing.body_length",
    "close_asgi": "cleanclose.servers._lookup.close_asgi",
    "cooperates_with": "cleanclose.servers.cooperates_with",
    "is_asgi_stopping": "cleanclose.servers._lookup.is_asgi_stopping",
    "is_called_by_server": "cleanclose.servers._callers.is_called_by_server",
    "is_called_by_wsgi_server": "cleanclose.servers.is_called_by_wsgi_server",
    "is_multiplexed": "cleanclose.core.deliver.framing.is_multiplexed",
    "is_servers_own": "cleanclose.servers.is_servers_own",
    "judge": "cleanclose.core.blame.judge.judge",
    "mark": "cleanclose.core.blame.judge.mark",
    "marked": "cleanclose.core.blame.judge.marked",
    "names_caddy": "cleanclose.core.deliver.proxied.names_caddy",
    "plain_socket": "cleanclose.servers._lookup.plain_socket",
    "response_length": "cleanclose.core.deliver.framing.response_length",
    "trace_id": "cleanclose.core.tracing.trace_id",
    "wants_continue": "cleanclose.core.deliver.framing.wants_continue",
    "wsgi_response": "cleanclose.servers.wsgi_response",
    "wsgi_server": "cleanclose.servers.wsgi_server",
}
"""Each old name, with the module and the name that it stands for."""


def look_up(name: str) -> Any:
    """Look up the object that an old name stands for.

    Raises:
        AttributeError: There is no such old name.
    """
    if name not in OLD_NAMES:
        raise AttributeError(f"module 'cleanclose.core' has no attribute {name!r}")
    module, _, inner = OLD_NAMES[name].rpartition(".")
    return getattr(importlib.import_module(module), inner)
