"""The shared core: no framework, no I/O, no clock of its own.

`Surge` is an old name of `cleanclose.surge.Surge`, which is imported when somebody asks for it:
the core itself needs no detector.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cleanclose.core.counters import reset, snapshot
from cleanclose.core.deliver.exchange import Connection, Exchange
from cleanclose.core.deliver.framing import (
    CHUNKED,
    NO_BODY,
    body_length,
    is_multiplexed,
    response_length,
    wants_continue,
)
from cleanclose.core.deliver.places import Places
from cleanclose.core.deliver.proxied import PROXY_FIELDS, names_caddy
from cleanclose.core.deliver.table import (
    TRANSITIONS,
    Done,
    Forward,
    Happening,
    Keep,
    Read,
    Respond,
    State,
    Step,
)
from cleanclose.core.errors import TruncatedBodyError
from cleanclose.core.events import (
    Cap,
    Cause,
    ClientDeparted,
    DepartureSurge,
    Event,
    Facts,
    Mechanism,
    Outcome,
    Phase,
    ResponseUndelivered,
    Side,
    TruncatedUpload,
    UploadDrained,
    UpstreamReset,
    Verdict,
    Witness,
)
from cleanclose.core.floods import Flood
from cleanclose.core.judge import judge, mark, marked
from cleanclose.core.kernel import KernelFigures, Listener, ask_connection, kernel_figures
from cleanclose.core.levels import Levels
from cleanclose.core.outlets import Outlet, Reporter, StructlogOutlet
from cleanclose.core.servers import (
    TORNADO,
    UNKNOWN,
    Continue,
    Server,
    asgi_server,
    asgi_socket,
    close_asgi,
    cooperates_with,
    is_asgi_stopping,
    is_called_by_server,
    is_called_by_wsgi_server,
    is_servers_own,
    plain_socket,
    wsgi_response,
    wsgi_server,
)
from cleanclose.core.settings import Settings, SettingsOptions, SurgeThresholds
from cleanclose.core.tcp_info import Connection as TcpConnection
from cleanclose.core.tracing import trace_id
from cleanclose.core.watch import (
    COMPLETE,
    CURRENT,
    GONE,
    OPEN,
    STREAMING,
    End,
    Watch,
    client_gone,
    current,
)

if TYPE_CHECKING:
    from cleanclose.surge import Surge

__all__ = [
    "CHUNKED",
    "COMPLETE",
    "CURRENT",
    "GONE",
    "NO_BODY",
    "OPEN",
    "PROXY_FIELDS",
    "STREAMING",
    "TORNADO",
    "TRANSITIONS",
    "UNKNOWN",
    "Cap",
    "Cause",
    "ClientDeparted",
    "Connection",
    "Continue",
    "DepartureSurge",
    "Done",
    "End",
    "Event",
    "Exchange",
    "Facts",
    "Flood",
    "Forward",
    "Happening",
    "Keep",
    "KernelFigures",
    "Levels",
    "Listener",
    "Mechanism",
    "Outcome",
    "Outlet",
    "Phase",
    "Places",
    "Read",
    "Reporter",
    "Respond",
    "ResponseUndelivered",
    "Server",
    "Settings",
    "SettingsOptions",
    "Side",
    "State",
    "Step",
    "StructlogOutlet",
    "Surge",
    "SurgeThresholds",
    "TcpConnection",
    "TruncatedBodyError",
    "TruncatedUpload",
    "UploadDrained",
    "UpstreamReset",
    "Verdict",
    "Watch",
    "Witness",
    "asgi_server",
    "asgi_socket",
    "ask_connection",
    "body_length",
    "client_gone",
    "close_asgi",
    "cooperates_with",
    "current",
    "is_asgi_stopping",
    "is_called_by_server",
    "is_called_by_wsgi_server",
    "is_multiplexed",
    "is_servers_own",
    "judge",
    "kernel_figures",
    "mark",
    "marked",
    "names_caddy",
    "plain_socket",
    "reset",
    "response_length",
    "snapshot",
    "trace_id",
    "wants_continue",
    "wsgi_response",
    "wsgi_server",
]


def __getattr__(name: str) -> Any:
    if name == "Surge":
        return importlib.import_module("cleanclose.surge").Surge
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
