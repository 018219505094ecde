"""Servers that are started once and used by many tests, and the table at the end of a run."""

from __future__ import annotations

import gc
import os
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import hypothesis
import pytest

from cleanclose.core import Outlet, reset
from cleanclose.core.tell.reporter import Reporter
from tests.harness import isolation, selection
from tests.harness.nursery import Nursery
from tests.harness.processes import find_program

if TYPE_CHECKING:
    from tests.harness.scheduling import InParts

from tests.harness.serving import LOG_TAIL, TALLY, Serve, ServerPool, Tally

_ALL_STACKS: Final = re.compile(r"^pytestmark = \[?\s*pytest\.mark\.stacks\b", re.MULTILINE)


@pytest.fixture(autouse=True)
def outlets_raise(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outlet that fails fails the test, but where its failing is the subject."""

    def failed(reporter: Reporter, outlet: Outlet, error: Exception) -> None:
        raise error

    if request.path.name != "test_outlets.py":
        monkeypatch.setattr(Reporter, "_failed", failed)


@pytest.fixture(autouse=True)
def counters_from_zero() -> None:
    """What the tests before have counted in this process is not this one's."""
    reset()


@pytest.fixture(scope="session")
def server_pool(require_program: Callable[[str], str]) -> Iterator[ServerPool]:
    """The servers of this test process."""
    pool = ServerPool(require_program)
    yield pool
    pool.close()


@pytest.fixture
def serve(server_pool: ServerPool) -> Iterator[Serve]:
    """Start servers, or take running ones; afterwards, see that they are well."""
    serve = Serve(server_pool)
    yield serve
    serve.check()


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Put figures into the table at the end of the run."""
    return Tally(request.node.user_properties)


@pytest.fixture(scope="session")
def require_program() -> Callable[[str], str]:
    """Skip, or with ``CLEANCLOSE_REQUIRE_PROGRAMS=1`` fail, where a program is missing."""

    def require(name: str) -> str:
        program = find_program(name)
        if program is not None:
            return program
        reason = f"there is no {name} on this machine"
        if os.environ.get("CLEANCLOSE_REQUIRE_PROGRAMS") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)

    return require


def pytest_configure(config: pytest.Config) -> None:
    """Nothing that the tests start depends on how they were started."""
    isolation.shed_what_was_inherited()
    if not hasattr(config, "workerinput"):
        config.add_cleanup(Nursery().close)
    # How long an example takes says something about the machine, and nothing about the code.
    hypothesis.settings.register_profile("tests", deadline=None)
    hypothesis.settings.load_profile("tests")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file that is all ``stacks`` where these are deselected and not installed."""
    if collection_path.suffix != ".py" or "not stacks" not in config.option.markexpr:
        return None
    return _ALL_STACKS.search(collection_path.read_text("utf-8")) is not None or None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> InParts | None:
    """Give the parts of a large file to several workers."""
    if config.option.dist != "loadfile":
        return None
    # Only the process that schedules needs it.
    from tests.harness.scheduling import InParts

    return InParts(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what only a full run needs, and put the tests into a good order.

    The files with slow tests come first, then those with many tests, units last: at the end,
    everybody would wait for one of them. In a file, the tests of one server come one after the
    other, so that it is started once.
    """
    selection.mark_what_only_a_full_run_needs(items)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    sizes = Counter(item.path for item in items)
    places: dict[Path, int] = {}
    for item in items:
        places.setdefault(item.path, len(places))

    def place(item: pytest.Item) -> tuple[bool, bool, int, int, str]:
        is_unit = item.nodeid.startswith("tests/unit/")
        path = item.path
        return (path not in slow, is_unit, -sizes[path], places[path], _row_of(item))

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected stays: looking through it again and again takes a fifth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        # Otherwise it would be most of what each `gc.collect` of a test takes.
        gc.freeze()
        gc.enable()


def _row_of(item: pytest.Item) -> str:
    spec: object = getattr(item, "callspec", None)
    params: dict[str, object] = getattr(spec, "params", {})
    return str(params.get("row") or params.get("stack") or params.get("server") or "")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failing test shows what its servers wrote meanwhile."""
    report = yield
    arguments: Mapping[str, object] = getattr(item, "funcargs", {})
    serve = arguments.get("serve")
    if report.failed and isinstance(serve, Serve):
        for name, log in serve.logs():
            if log:
                report.sections.append((f"log of {name}", log[-LOG_TAIL:]))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Delivered responses, without and with the middleware, side by side."""
    rows: dict[str, dict[str, dict[bool, str]]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) != "call":
                continue
            for name, value in report.user_properties:
                if name == TALLY:
                    row, client, wrapped, figures = value
                    cell = f"{figures['delivered']}/{figures['tries']}"
                    cell += f" ({figures['note']})" if figures["note"] else ""
                    rows.setdefault(row, {}).setdefault(client, {})[wrapped] = cell
    if not rows:
        return
    terminalreporter.section("responses delivered (bare -> wrapped, - is not tried)")
    width = max(map(len, rows))
    for row, clients in sorted(rows.items()):
        cells = (
            f"{client} {sides.get(False, '-')} -> {sides.get(True, '-')}"
            for client, sides in sorted(clients.items())
        )
        terminalreporter.write_line(f"{row:<{width}}  {'   '.join(cells)}")
