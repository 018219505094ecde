"""Names that users need are where they look for them; those that they once used still work."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType

import pytest

import cleanclose.asgi
import cleanclose.core
import cleanclose.doctor.clients
import cleanclose.doctor.wire
import cleanclose.integrations.stdlib
import cleanclose.integrations.structlog
import cleanclose.quiet
import cleanclose.surge
import cleanclose.testing
import cleanclose.tornado
import cleanclose.wsgi
from cleanclose.core._old_names import OLD_NAMES

ASGI, WSGI, TORNADO = cleanclose.asgi, cleanclose.wsgi, cleanclose.tornado

ALIASES: list[tuple[ModuleType, str, object]] = [
    *((shim, "skip", shim.leave_alone) for shim in (ASGI, WSGI, TORNADO)),
    *((shim, "client_gone", cleanclose.core.client_gone) for shim in (ASGI, WSGI, TORNADO)),
    (WSGI, "TruncatedBodyError", cleanclose.core.TruncatedBodyError),
    (cleanclose.integrations.stdlib, "LOGGERS", cleanclose.quiet.LOGGERS),
    (cleanclose.integrations.stdlib, "DepartureFilter", cleanclose.quiet.QuietLogs),
    (cleanclose.integrations.stdlib, "asyncio_handler", cleanclose.quiet.install_quiet_asyncio),
    (cleanclose.integrations.stdlib, "install_quiet_logs", cleanclose.quiet.install_quiet_logs),
    (cleanclose.integrations.stdlib, "uninstall_quiet_logs", cleanclose.quiet.uninstall_quiet_logs),
    (
        cleanclose.integrations.structlog,
        "QuietDepartures",
        cleanclose.integrations.structlog.QuietLogs,
    ),
    (cleanclose.core, "SurgeThresholds", cleanclose.surge.SurgeThresholds),
    (cleanclose.doctor.clients, "Outcome", cleanclose.testing.Seen),
    *(
        (module, name, getattr(cleanclose.testing, name))
        for module, names in (
            (cleanclose.doctor, ("Upload", "strict", "reader", "curl", "http_client", "Fault")),
            (cleanclose.doctor.clients, ("Upload", "strict", "body_pieces", "body_digest")),
            (cleanclose.doctor.wire, ("Fault", "Response", "WireReader", "read_transcript")),
        )
        for name in names
    ),
]


@pytest.mark.parametrize("module", [ASGI, WSGI, TORNADO, cleanclose.core, cleanclose.testing])
def test_every_exported_name_is_there_and_says_what_it_is(module: ModuleType) -> None:
    for name in module.__all__:
        found = getattr(module, name)
        if inspect.isclass(found) or inspect.isfunction(found):
            assert found.__doc__, name


@pytest.mark.parametrize("name", OLD_NAMES)
def test_an_old_name_of_the_core_is_what_it_was(name: str) -> None:
    module, _, inner = OLD_NAMES[name].rpartition(".")
    found = getattr(importlib.import_module(module), inner)
    assert getattr(cleanclose.core, name) is found
    assert name not in cleanclose.core.__all__


def test_a_name_that_never_was_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Exchanges'"):
        getattr(cleanclose.core, "Exchanges")  # noqa: B009 - type checkers know as well


@pytest.mark.parametrize(
    ("module", "name", "expected"), ALIASES, ids=[f"{m.__name__}.{n}" for m, n, _ in ALIASES]
)
def test_one_thing_has_one_object_by_whatever_name(
    module: ModuleType, name: str, expected: object
) -> None:
    assert getattr(module, name) is expected
    assert name in module.__all__
