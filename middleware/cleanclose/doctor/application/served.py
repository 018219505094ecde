"""What the user's server serves: their application, with the doctor's routes, bare or wrapped.

The environment says what to import and where to write (`served_names`, and the journal's).
Servers import ``app`` from here as they would the user's own.
"""

from __future__ import annotations

import os
from typing import Any, Final

from cleanclose.core import Event
from cleanclose.core.tell.lines import StructlogOutlet
from cleanclose.doctor.application.journal import JOURNAL, Journal, watch_logging
from cleanclose.doctor.application.own import put_inside
from cleanclose.doctor.application.served_names import TARGET, WRAPPED
from cleanclose.doctor.application.target import Target, find

__all__ = ["app"]


class _EventNotes:
    """An outlet that writes each event to the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __call__(self, event: Event, /) -> None:
        self._journal.write("event", name=event.name, fields=event.fields())


def _make() -> Any:
    journal = Journal(os.environ[JOURNAL])
    watch_logging(journal)
    target = find(os.environ[TARGET])
    wrapped = os.environ.get(WRAPPED) == "1"
    return _PROBES[target.interface](target, journal, wrapped)


def _asgi(target: Target, journal: Journal, wrapped: bool) -> Any:
    from cleanclose.doctor.application.asgi_probe import AsgiProbe

    if target.has_middleware and put_inside(
        target.app, lambda inner: AsgiProbe(inner, journal, target.framework)
    ):
        return target.app
    probe = AsgiProbe(target.app, journal, target.framework)
    if not wrapped:
        return probe
    from cleanclose.asgi import CleanCloseMiddleware

    return CleanCloseMiddleware(probe, outlets=[StructlogOutlet(), _EventNotes(journal)])


def _wsgi(target: Target, journal: Journal, wrapped: bool) -> Any:
    from cleanclose.doctor.application.wsgi_probe import WsgiProbe

    if target.has_middleware and put_inside(
        target.app, lambda inner: WsgiProbe(inner, journal, target.framework)
    ):
        return target.app
    probe = WsgiProbe(target.app, journal, target.framework)
    if not wrapped:
        return probe
    from cleanclose.wsgi import CleanCloseMiddleware

    return CleanCloseMiddleware(probe, outlets=[StructlogOutlet(), _EventNotes(journal)])


def _tornado(target: Target, journal: Journal, wrapped: bool) -> Any:
    from cleanclose.doctor.application.tornado_probe import add_routes

    add_routes(target.app, journal)
    if wrapped and not target.has_middleware:
        from cleanclose.tornado import install

        install(target.app, outlets=[StructlogOutlet(), _EventNotes(journal)])
    return target.app


_PROBES: Final = {"asgi": _asgi, "wsgi": _wsgi, "tornado": _tornado}

app: Any = _make()
