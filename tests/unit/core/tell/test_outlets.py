"""Events reach the outlets; whatever an outlet does, the request never hears of it."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog
from structlog.testing import capture_logs

from cleanclose.core import (
    Cap,
    Event,
    Facts,
    Mechanism,
    Outcome,
    StructlogOutlet,
    UploadDrained,
    Witness,
    on_departure,
    on_event,
    reset,
    snapshot,
)
from cleanclose.core.blame.watch import Watch
from cleanclose.core.counters import Counters
from cleanclose.core.tell.reporter import Reporter
from cleanclose.surge import Surge

FACTS = Facts(framework="asgi", server="uvicorn", method="POST", client="127.0.0.1")


def drained(
    outcome: Outcome = Outcome.DELIVERED, cap: Cap | None = None, size: int = 10
) -> UploadDrained:
    return UploadDrained(
        facts=FACTS, age_ms=1.5, outcome=outcome, cap=cap, status=413, bytes_in=size, drained=size
    )


@pytest.fixture(autouse=True)
def structlog_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_an_event_has_plain_fields() -> None:
    event = UploadDrained(
        facts=FACTS, age_ms=1.5, outcome=Outcome.RESET, mechanism=Mechanism.RESET, drained=3
    )
    fields = event.fields()
    assert fields == {
        "framework": "asgi",
        "server": "uvicorn",
        "method": "POST",
        "client": "127.0.0.1",
        "age_ms": 1.5,
        "outcome": "reset",
        "mechanism": "reset",
        "bytes_in": 0,
        "drained": 3,
        "note": "the client left first",
    }
    assert json.loads(json.dumps(fields)) == fields


def test_counters_count_before_anything_is_filtered() -> None:
    counters = Counters()
    reporter = Reporter([], counters=counters)
    reporter.report(drained())
    reporter.report(drained(Outcome.CUT, Cap.MAX_BYTES, 5))
    reporter.report(None)
    values = counters.snapshot()
    assert values['cleanclose_early_responses_total{outcome="delivered"}'] == 1
    assert values['cleanclose_early_responses_total{outcome="cut"}'] == 1
    assert values['cleanclose_early_responses_total{outcome="unknown"}'] == 0
    assert values['cleanclose_cut_uploads_total{cap="max_bytes"}'] == 1
    assert values["cleanclose_drained_bytes_total"] == 15


def test_a_sample_that_cannot_be_taken_disturbs_nobody() -> None:
    class Changed(Watch):
        def facts(self) -> Facts:
            raise TypeError("a scope that another middleware has changed")

    counters = Counters()
    Reporter([], counters=counters, surge=Surge()).request_over(Changed(0.0))
    assert counters.snapshot()["cleanclose_outlet_errors_total"] == 1


def test_a_listener_to_events_stands_behind_the_outlets_and_cannot_disturb_them() -> None:
    order: list[str] = []

    def outlet(event: Event) -> None:
        order.append("outlet")

    def broken(event: Event) -> None:
        order.append("listener")
        raise RuntimeError("listener")

    counters = Counters()
    stop = on_event(broken)
    try:
        Reporter([outlet], counters=counters).report(drained())
    finally:
        stop()
    assert order == ["outlet", "listener"]
    assert counters.snapshot()["cleanclose_outlet_errors_total"] == 1


def test_a_snapshot_is_a_copy_and_reset_sets_everything_to_0() -> None:
    Reporter([]).report(drained())
    snapshot().clear()
    assert any(snapshot().values())
    reset()
    assert snapshot()
    assert not any(snapshot().values())


def test_an_outlet_that_raises_is_counted_and_reported_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("outlet")

    counters = Counters()
    reporter = Reporter([broken, seen.append], counters=counters)
    reporter.report(drained())
    reporter.report(drained())
    assert len(seen) == 2
    assert counters.snapshot()["cleanclose_outlet_errors_total"] == 2
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_the_default_outlet_logs_through_a_configured_structlog() -> None:
    structlog.configure()
    with capture_logs() as logs:
        StructlogOutlet()(drained())
    assert logs[0]["event"] == "upload_drained"
    assert logs[0]["log_level"] == "debug"
    assert logs[0]["drained"] == 10


def test_without_a_configuration_it_logs_through_the_standard_library(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outlet = StructlogOutlet()
    with caplog.at_level(logging.DEBUG, logger="cleanclose"):
        outlet(drained())
    assert "event='upload_drained'" in caplog.messages[0]
    assert "drained=10" in caplog.messages[0]


def test_for_want_of_room_is_a_warning() -> None:
    structlog.configure()
    with capture_logs() as logs:
        StructlogOutlet()(drained(Outcome.CUT, Cap.MAX_LINGERING))
        StructlogOutlet()(drained(Outcome.CUT, Cap.IDLE_SECONDS))
    assert [log["log_level"] for log in logs] == ["warning", "debug"]


def test_an_outlet_is_called_and_not_awaited() -> None:
    async def asynchronous(event: Event) -> None: ...

    class Asynchronous:
        async def __call__(self, event: Event) -> None: ...

    for wrong in (None, "log", asynchronous, Asynchronous()):
        with pytest.raises(TypeError, match=r"outlets\[1\]"):
            Reporter([print, wrong])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="outlets must be a collection"):
        Reporter(StructlogOutlet())  # type: ignore[arg-type]


def test_even_a_filter_that_raises_is_no_matter() -> None:
    def broken(_: object) -> bool:
        raise RuntimeError("broken")

    logger = logging.getLogger("cleanclose")
    logger.addFilter(broken)
    counters = Counters()
    try:
        Reporter(counters=counters).report(drained(Outcome.CUT, Cap.MAX_LINGERING))
    finally:
        logger.removeFilter(broken)
    assert counters.snapshot()["cleanclose_outlet_errors_total"] == 1


def test_without_a_configuration_a_record_has_the_fields_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, logger="cleanclose"):
        StructlogOutlet()(drained())
    (record,) = caplog.records
    assert vars(record)["event"] == "upload_drained"
    assert vars(record)["drained"] == 10


def test_an_asynchronous_logger_leaves_the_threads_own_loop_alone() -> None:
    written: list[str] = []

    class Asynchronous(structlog.BoundLoggerBase):
        async def debug(self, name: str, **fields: object) -> None:
            await asyncio.sleep(0)
            written.append(name)

    def work() -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            StructlogOutlet()(drained())
            assert asyncio.get_event_loop() is loop
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    structlog.configure(wrapper_class=Asynchronous)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()
    assert written == ["upload_drained"]


class Timeout(BaseException):
    """As gevent's is."""


class GreenletExit(BaseException):
    """As greenlet's is."""


@pytest.mark.parametrize(
    "kind",
    [
        SystemExit,
        KeyboardInterrupt,
        GeneratorExit,
        asyncio.CancelledError,
        GreenletExit,
        Timeout,
        StopIteration,
    ],
)
def test_an_outlet_that_raises_no_exception_is_as_any_other(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def outlet(event: Event) -> None:
        raise kind

    def departed() -> None:
        raise kind

    counters = Counters()
    seen: list[Event] = []
    Reporter([outlet, seen.append], counters=counters).report(drained())
    assert len(seen) == 1
    assert counters.snapshot()["cleanclose_outlet_errors_total"] == 1
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "An outlet failed"
    ]
    reset()
    stop = on_departure(departed)
    watch = Watch(0.0)
    watch.is_websocket = True
    try:
        watch.peer_gone(Witness.RECEIVE, 1.0)
    finally:
        stop()
    assert snapshot()["cleanclose_outlet_errors_total"] == 1


def test_an_outlet_that_exits_by_a_call_is_as_any_other() -> None:
    counters = Counters()
    Reporter([lambda _: sys.exit(1)], counters=counters).report(drained())
    assert counters.snapshot()["cleanclose_outlet_errors_total"] == 1


@pytest.mark.parametrize("kind", [SystemExit, RuntimeError])
def test_a_log_handler_that_raises_while_an_outlet_is_reported(kind: type[BaseException]) -> None:
    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise kind

    def outlet(event: Event) -> None:
        raise RuntimeError

    broken = Broken()
    logging.getLogger("cleanclose").addFilter(broken)
    try:
        Reporter([outlet], counters=Counters()).report(drained())
    finally:
        logging.getLogger("cleanclose").removeFilter(broken)


def test_ids_that_raise_no_exception_cost_themselves_and_not_the_line() -> None:
    def ids() -> dict[str, object]:
        raise SystemExit

    with capture_logs() as lines:
        structlog.configure(processors=structlog.get_config()["processors"])
        Reporter([StructlogOutlet(ids=[ids])], counters=Counters()).report(drained())
    assert [line["event"] for line in lines] == ["upload_drained"]
