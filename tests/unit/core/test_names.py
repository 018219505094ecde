"""The tables of classes: each name is the class's own, wherever its library is installed."""

from __future__ import annotations

import contextlib
import importlib

import pytest

from cleanclose.core.blame.upstreams import (
    LIKELY_CAUSES,
    LOST,
    library_of,
    likely_cause_of,
    lost_upstream,
)
from tests.harness.paths import ROOT

with contextlib.suppress(ImportError):
    # Once per process it binds a socket, to see whether there is IPv6: not within a unit test.
    importlib.import_module("urllib3")

NAMES = sorted({*LOST, *LIKELY_CAUSES})


@pytest.mark.parametrize("name", NAMES)
def test_the_class_has_this_name(name: str) -> None:
    module, _, qualname = name.rpartition(".")
    pytest.importorskip(module.partition(".")[0], reason="not installed")
    found = getattr(importlib.import_module(module), qualname)
    # An alias would never be found: an exception's class is looked up by its own names.
    assert f"{found.__module__}.{found.__qualname__}" == name
    assert issubclass(found, Exception)


def test_every_likely_cause_is_of_a_class_that_says_lost() -> None:
    assert set(LIKELY_CAUSES) <= set(LOST)


class UnspeakableError(Exception):
    """Its arguments and its text are no help."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("name", NAMES)
def test_no_rule_breaks_the_request(name: str) -> None:
    module, _, qualname = name.rpartition(".")
    namespace = {"__module__": module, "__qualname__": qualname}
    impostor: type[Exception] = type(qualname, (UnspeakableError,), namespace)
    arguments: tuple[tuple[object, ...], ...] = ((), ({},), (None, object()))
    for args in arguments:
        error = impostor(*args)
        assert lost_upstream(error, lambda _: False) in (None, error)
        assert likely_cause_of(error, lambda _: False) is None or name in LIKELY_CAUSES
        assert library_of(error, lambda _: False) in (None, name.partition(".")[0])


def test_the_documentation_names_every_library() -> None:
    page = (ROOT / "docs" / "upstreams.md").read_text("utf-8")
    table = page.partition("| library |")[2].partition("\n\n")[0]
    for name in LOST:
        library = "http.client" if name.startswith("http.") else name.partition(".")[0]
        assert library in table, f"{name} is not in docs/upstreams.md"
