"""The shared core: no framework, no I/O, no clock of its own."""

from cleanclose.core.counters import reset, snapshot
from cleanclose.core.events import (
    Cap,
    Event,
    Facts,
    Mechanism,
    Outcome,
    UploadDrained,
)
from cleanclose.core.exchange import (
    TRANSITIONS,
    Done,
    Exchange,
    Forward,
    Happening,
    Hold,
    Keep,
    Read,
    Respond,
    State,
    Step,
)
from cleanclose.core.framing import CHUNKED, NO_BODY, body_length, response_length, wants_continue
from cleanclose.core.outlets import Outlet, Reporter, StructlogOutlet
from cleanclose.core.places import Place, Places
from cleanclose.core.servers import (
    TORNADO,
    UNKNOWN,
    Continue,
    Server,
    asgi_server,
    wsgi_server,
)
from cleanclose.core.settings import Settings, SettingsOptions

__all__ = [
    "CHUNKED",
    "NO_BODY",
    "TORNADO",
    "TRANSITIONS",
    "UNKNOWN",
    "Cap",
    "Continue",
    "Done",
    "Event",
    "Exchange",
    "Facts",
    "Forward",
    "Happening",
    "Hold",
    "Keep",
    "Mechanism",
    "Outcome",
    "Outlet",
    "Place",
    "Places",
    "Read",
    "Reporter",
    "Respond",
    "Server",
    "Settings",
    "SettingsOptions",
    "State",
    "Step",
    "StructlogOutlet",
    "UploadDrained",
    "asgi_server",
    "body_length",
    "reset",
    "response_length",
    "snapshot",
    "wants_continue",
    "wsgi_server",
]
