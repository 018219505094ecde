"""What the apps for the tests about outlets have in common: what they report to, by environment.

``TEST_OUTLETS`` names the outlets, with commas; ``TEST_SENTRY`` the file that Sentry's events go
to, and ``TEST_SENTRY_BARE=1`` leaves our ``before_send`` out.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import structlog

from cleanclose.core import Event, Outlet, StructlogOutlet, snapshot
from cleanclose.integrations.queue import QueuedOutlet

__all__ = [
    "PIECE",
    "counters",
    "outlets",
    "prepare_logging",
    "prepare_sentry",
    "reset_upstream",
]

PIECE: Final = b"x" * 65536
SLEEP: Final = 600.0
"""Seconds: far more than any test waits."""
_LINGER_0: Final = struct.pack("ii", 1, 0)


def sleeps(event: Event) -> None:
    time.sleep(SLEEP)


def exits(event: Event) -> None:
    sys.exit(1)


def notes(event: Event) -> None:
    sys.stderr.write(f"an outlet's note: {event.name}\n")
    sys.stderr.flush()


def raises(event: Event) -> None:
    raise RuntimeError("this outlet is broken")


def outlets() -> list[Outlet] | None:
    """The outlets that the environment names; None for the default."""
    names = os.environ.get("TEST_OUTLETS")
    return None if names is None else [_outlet(name) for name in names.split(",") if name]


def _outlet(name: str) -> Outlet:
    match name:
        case "structlog":
            return StructlogOutlet()
        case "sleeps":
            return sleeps
        case "queued-sleeps":
            return QueuedOutlet(sleeps, size=3)
        case "exits":
            return exits
        case "queued-notes":
            return QueuedOutlet(notes)
        case "raises":
            return raises
        case "sentry":
            from cleanclose.integrations.sentry import SentryOutlet

            return SentryOutlet()
        case _:
            raise ValueError(name)


def counters() -> bytes:
    return json.dumps(snapshot()).encode()


def reset_upstream() -> None:
    """A real connection of the application's own, which its other end resets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        served, _ = listener.accept()
        served.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        served.close()
        with client:
            client.recv(1)


def prepare_logging() -> None:
    """Set structlog and logging up as ``TEST_LOGS`` says."""
    logging.getLogger("cleanclose").setLevel(logging.DEBUG)
    match os.environ.get("TEST_LOGS"):
        case "json":
            structlog.configure(
                processors=[
                    structlog.contextvars.merge_contextvars,
                    structlog.processors.add_log_level,
                    structlog.processors.format_exc_info,
                    structlog.processors.JSONRenderer(),
                ],
                logger_factory=structlog.WriteLoggerFactory(sys.stderr),
            )
        case "async":
            _bridge(structlog.stdlib.AsyncBoundLogger)
        case "bridged":
            _bridge(structlog.stdlib.BoundLogger)
        case "unconfigured":
            _handle()
        case _:
            pass


def _bridge(wrapper_class: Any) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=wrapper_class,
        cache_logger_on_first_use=True,
    )
    _handle()


def _handle() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logger = logging.getLogger("cleanclose")
    logger.addHandler(handler)
    logger.propagate = False


def prepare_sentry(*integrations: Any) -> None:
    """Start Sentry, with its events in a file, if the environment asks for it."""
    if "TEST_SENTRY" not in os.environ:
        return
    path = Path(os.environ["TEST_SENTRY"])
    import sentry_sdk
    from sentry_sdk.envelope import Envelope
    from sentry_sdk.transport import Transport

    from cleanclose.integrations.sentry import BeforeSend

    lock = threading.Lock()

    class ToFile(Transport):
        def capture_envelope(self, envelope: Envelope) -> None:
            event: Any = envelope.get_event()
            if event is None:
                return
            values = event.get("exception", {}).get("values", [{}])
            line = {
                # Of a group, and of what an exception was raised from, there are several.
                "types": [value.get("type") for value in values],
                "logger": event.get("logger"),
                "tags": event.get("tags"),
                "logentry": event.get("logentry"),
                "mechanism": values[-1].get("mechanism", {}).get("type"),
            }
            with lock, path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, default=str) + "\n")

    def mark(event: Any, hint: Any) -> Any:
        event.setdefault("tags", {})["own"] = "yes"
        return event

    bare = os.environ.get("TEST_SENTRY_BARE") == "1"
    with_own = os.environ.get("TEST_SENTRY_INTEGRATIONS", "1") == "1"
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        transport=ToFile,
        before_send=mark if bare else BeforeSend(mark),
        integrations=list(integrations) if with_own else [],
        auto_enabling_integrations=False,
    )
