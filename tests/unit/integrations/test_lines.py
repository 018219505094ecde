"""Lines about events: four set-ups of structlog, the standard library, ECS, Google Cloud, ids."""

from __future__ import annotations

import importlib
import io
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import structlog

from cleanclose.core import (
    ClientDeparted,
    Event,
    Facts,
    Flood,
    Levels,
    Mechanism,
    Phase,
    Side,
    StructlogOutlet,
    UploadDrained,
    UpstreamReset,
    Verdict,
    Witness,
)
from cleanclose.core.tell.lines import Ids
from cleanclose.integrations.ids import from_structlog
from cleanclose.integrations.schemas import ecs_fields, google_fields, google_severity
from cleanclose.integrations.stdlib import StdlibOutlet
from cleanclose.integrations.structlog import GoogleCloud, ecs
from tests.harness.waiting import until

FACTS = Facts(
    framework="asgi",
    server="uvicorn",
    method="POST",
    client="192.0.2.7",
    route="/upload",
    request_id="r-1",
    trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
)
DEPARTED = ClientDeparted(
    facts=FACTS,
    age_ms=12.5,
    verdict=Verdict(
        side=Side.CLIENT,
        phase=Phase.REQUEST_BODY,
        mechanism=Mechanism.RESET,
        witnesses=(Witness.RECEIVE,),
    ),
    bytes_in=5,
    expected_in=1000,
)


def failed() -> ConnectionResetError:
    try:
        raise ConnectionResetError(104, "Connection reset by peer")
    except ConnectionResetError as error:
        return error


RESTORED = UpstreamReset(
    facts=FACTS,
    age_ms=2.0,
    verdict=Verdict(side=Side.UPSTREAM, phase=Phase.HANDLER, mechanism=Mechanism.RESET),
    error="builtins.ConnectionResetError",
    restored=True,
    exception=failed(),
)


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    logger = logging.getLogger("cleanclose")
    level, handlers, propagate = logger.level, list(logger.handlers), logger.propagate
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logger.setLevel(level)
    logger.handlers[:] = handlers
    logger.propagate = propagate


class Output:
    """What the logger ``cleanclose`` of the standard library writes."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.stream = io.StringIO()
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(formatter)
        logger = logging.getLogger("cleanclose")
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(logging.DEBUG)

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


def json_formatter(*processors: Any) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            *processors,
            structlog.processors.JSONRenderer(),
        ],
    )


def configured_json(stream: io.StringIO, *processors: Any, **more: Any) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            *processors,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(stream),
        **more,
    )


def bridged(wrapper_class: Any = structlog.stdlib.BoundLogger) -> None:
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


class Asynchronous:
    """A logger's wrapper of somebody's own, whose methods have to be awaited."""

    def __init__(self, logger: Any, processors: Any, context: Any) -> None:
        self._inner = structlog.BoundLogger(logger, processors, context)

    def bind(self, **values: Any) -> Asynchronous:
        return self

    new = bind

    async def debug(self, event: str, **fields: Any) -> None:
        self._inner.debug(event, **fields)

    async def error(self, event: str, **fields: Any) -> None:
        self._inner.error(event, **fields)


def lines_of(setup: str, *events: Event, ids: tuple[Ids, ...] = ()) -> list[dict[str, Any]]:
    """What an outlet writes in a set-up, each line as JSON."""
    output = Output(json_formatter())
    stream = output.stream
    match setup:
        case "unconfigured":
            pass
        case "json":
            configured_json(stream)
        case "json-plain-wrapper":
            configured_json(stream, wrapper_class=structlog.BoundLogger)
        case "json-filtering":
            wrapper = structlog.make_filtering_bound_logger(logging.DEBUG)
            configured_json(stream, wrapper_class=wrapper)
        case "bridged":
            bridged()
        case "async":
            bridged(structlog.stdlib.AsyncBoundLogger)
        case "async-of-ones-own":
            configured_json(stream, wrapper_class=Asynchronous)
        case _:
            raise ValueError(setup)
    outlet = StructlogOutlet(ids=ids)
    for event in events:
        outlet(event)
    return output.read()


SETUPS = (
    "unconfigured",
    "json",
    "json-plain-wrapper",
    "json-filtering",
    "bridged",
    "async",
    "async-of-ones-own",
)


@pytest.mark.parametrize("setup", SETUPS)
def test_each_set_up_shows_each_event_once_with_the_same_keys(setup: str) -> None:
    first, second = lines_of(setup, DEPARTED, RESTORED)
    assert first == {**DEPARTED.fields(), "event": "client_departed", "level": "debug"}
    exception = second.pop("exception")
    assert exception.startswith("Traceback")
    assert exception.endswith("Connection reset by peer")
    assert second == {**RESTORED.fields(), "event": "upstream_reset", "level": "error"}


@pytest.mark.anyio
@pytest.mark.parametrize("setup", ["async", "async-of-ones-own", "json", "bridged"])
async def test_the_same_where_a_loop_runs(setup: str, anyio_backend: str) -> None:
    import anyio

    output = Output(json_formatter())
    if setup == "async-of-ones-own":
        configured_json(output.stream, wrapper_class=Asynchronous)
    elif setup == "json":
        configured_json(output.stream)
    else:
        bridged(
            structlog.stdlib.AsyncBoundLogger if setup == "async" else structlog.stdlib.BoundLogger
        )
    StructlogOutlet()(DEPARTED)
    # An asynchronous logger writes in a thread.
    await anyio.to_thread.run_sync(until, output.stream.getvalue, "no line was written")
    assert [line["event"] for line in output.read()] == ["client_departed"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("level", [1, 15, 25, 100])
@pytest.mark.parametrize("setup", ["unconfigured", "json", "json-filtering", "bridged", "async"])
def test_levels_without_a_name_lose_no_line(setup: str, level: int) -> None:
    output = Output(json_formatter())
    logging.getLogger("cleanclose").setLevel(1)
    match setup:
        case "json":
            configured_json(output.stream)
        case "json-filtering":
            configured_json(output.stream, wrapper_class=structlog.make_filtering_bound_logger(0))
        case "bridged":
            bridged()
        case "async":
            bridged(structlog.stdlib.AsyncBoundLogger)
        case _:
            pass
    StructlogOutlet(Levels(rows={"client_departed.midway": level}))(DEPARTED)
    assert [line["event"] for line in output.read()] == ["client_departed"]


def test_without_any_configuration_a_line_is_text() -> None:
    output = Output(logging.Formatter("%(levelname)s %(message)s"))
    StructlogOutlet()(DEPARTED)
    assert output.stream.getvalue().startswith("DEBUG event='client_departed' framework='asgi' ")


def test_a_fold_is_a_line_like_any_other() -> None:
    output = Output(json_formatter())
    configured_json(output.stream)
    outlet = StructlogOutlet(flood=Flood(lines=1))
    for _ in range(3):
        outlet(DEPARTED)
    outlet.flush()
    *_, line = output.read()
    assert (line["event"], line["folded_event"], line["folded"]) == (
        "events_folded",
        "client_departed",
        2,
    )


# The standard library.


class Extra(logging.Formatter):
    """JSON, as people write it: what a record has besides the usual."""

    def format(self, record: logging.LogRecord) -> str:
        usual = set(vars(logging.makeLogRecord({})))
        extra = {key: value for key, value in vars(record).items() if key not in usual}
        extra |= {"message": record.getMessage(), "levelname": record.levelname}
        if record.exc_info:
            extra["trace"] = self.formatException(record.exc_info)
        return json.dumps(extra)


def test_the_standard_library_has_the_fields_as_extra() -> None:
    output = Output(Extra())
    outlet = StdlibOutlet()
    outlet(DEPARTED)
    outlet(RESTORED)
    first, second = output.read()
    assert first == {**DEPARTED.fields(), "message": "client_departed", "levelname": "DEBUG"}
    assert second["trace"].startswith("Traceback")
    assert second["levelname"] == "ERROR"


def test_it_formats_nothing_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    Output(Extra())
    logging.getLogger("cleanclose").setLevel(logging.INFO)

    def fields(event: Event) -> dict[str, object]:
        raise AssertionError

    monkeypatch.setattr(ClientDeparted, "fields", fields)
    StdlibOutlet()(DEPARTED)
    StructlogOutlet()(DEPARTED)


def test_names_that_records_have_already_do_not_lose_the_line() -> None:
    output = Output(Extra())
    StdlibOutlet(ids=[lambda: {"name": "n", "message": "m", "args": "a"}])(DEPARTED)
    (line,) = output.read()
    assert (line["name_"], line["message_"], line["args_"]) == ("n", "m", "a")


def test_no_field_of_ours_is_one_of_those() -> None:
    taken = {*vars(logging.makeLogRecord({})), "message", "asctime"}
    for event in (DEPARTED, RESTORED):
        assert not taken & set(event.fields())


@pytest.mark.parametrize("mapping", ["no", 3])
def test_a_mapping_is_called(mapping: Any) -> None:
    with pytest.raises(TypeError, match="mapping"):
        StdlibOutlet(mapping=mapping)


# Elastic and Google Cloud.


def test_the_names_of_the_elastic_common_schema() -> None:
    output = Output(json_formatter(ecs))
    StructlogOutlet()(DEPARTED)
    StructlogOutlet()(RESTORED)
    departed, restored = output.read()
    assert departed == {
        "log.level": "debug",
        "message": "client_departed",
        "ecs.version": "8.11.0",
        "event.action": "client_departed",
        "event.category": ["web"],
        "event.duration": 12_500_000,
        "event.kind": "event",
        "http.request.method": "POST",
        "http.request.id": "r-1",
        "http.request.body.bytes": 5,
        "http.response.body.bytes": 0,
        "http.response.status_code": 499,
        "client.address": "192.0.2.7",
        "trace.id": FACTS.trace_id,
        "cleanclose.framework": "asgi",
        "cleanclose.server": "uvicorn",
        "cleanclose.route": "/upload",
        "cleanclose.side": "client",
        "cleanclose.phase": "request_body",
        "cleanclose.mechanism": "reset",
        "cleanclose.witnesses": "receive",
        "cleanclose.expected_in": 1000,
        "cleanclose.nginx": "499",
        "cleanclose.haproxy": "CD",
        "cleanclose.envoy": "DC",
    }
    assert restored["error.type"] == "builtins.ConnectionResetError"
    assert restored["error.stack_trace"].startswith("Traceback")
    assert "http.response.status_code" not in restored


def test_the_names_of_google_cloud() -> None:
    output = Output(json_formatter(GoogleCloud("my-project")))
    StructlogOutlet()(DEPARTED)
    StructlogOutlet()(RESTORED)
    departed, restored = output.read()
    assert departed["severity"] == "DEBUG"
    assert departed["message"] == "client_departed"
    assert departed["httpRequest"] == {
        "requestMethod": "POST",
        "status": 499,
        "requestSize": "5",
        "responseSize": "0",
        "remoteIp": "192.0.2.7",
        "latency": "0.012500s",
    }
    trace = f"projects/my-project/traces/{FACTS.trace_id}"
    assert departed["logging.googleapis.com/trace"] == trace
    assert restored["severity"] == "ERROR"
    assert restored["stack_trace"].startswith("Traceback")
    assert "status" not in restored["httpRequest"]


@pytest.mark.parametrize("processor", [ecs, GoogleCloud()])
def test_events_of_others_keep_their_fields(processor: Any) -> None:
    given = {"event": "order", "level": "info", "timestamp": "t", "logger": "l", "method": "card"}
    mapped = processor(None, "info", given)
    assert mapped["message"] == "order"
    assert mapped["method"] == "card"
    assert {"log.level", "severity"} & set(mapped)
    assert {"@timestamp", "time"} & set(mapped)
    assert "exc_info" in processor(None, "error", {"event": "e", "exc_info": 1})


def test_a_status_that_was_sent_is_told() -> None:
    drained = UploadDrained(facts=FACTS, age_ms=1.0, outcome=_outcome(), status=413).fields()
    assert ecs_fields("upload_drained", drained)["http.response.status_code"] == 413
    google: Any = google_fields()("upload_drained", drained)
    assert google["httpRequest"]["status"] == 413
    assert google["logging.googleapis.com/trace"] == FACTS.trace_id
    gone = {**DEPARTED.fields(), "status": 200}
    assert ecs_fields("client_departed", gone)["cleanclose.status"] == 200
    assert ecs_fields("client_departed", gone)["http.response.status_code"] == 499


def _outcome() -> Any:
    from cleanclose.core import Outcome

    return Outcome.DELIVERED


@pytest.mark.parametrize(
    ("level", "severity"),
    [("debug", "DEBUG"), ("WARNING", "WARNING"), ("critical", "CRITICAL"), ("odd", "DEFAULT")],
)
def test_severities(level: str, severity: str) -> None:
    assert google_severity(level) == severity


@pytest.mark.parametrize("name", ["ecs", "google"])
def test_the_standard_library_with_these_names(name: str) -> None:
    output = Output(Extra())
    mapping = ecs_fields if name == "ecs" else google_fields("p")
    StdlibOutlet(mapping=mapping)(DEPARTED)
    (line,) = output.read()
    assert {"event.action", "httpRequest"} & set(line)
    assert "client" not in line


# Ids.


def test_ids_of_structlogs_contextvars() -> None:
    structlog.contextvars.bind_contextvars(request_id="bound", user="u")
    (line,) = lines_of("unconfigured", DEPARTED, ids=(from_structlog(),))
    assert line["request_id"] == "bound"
    assert "user" not in line
    structlog.contextvars.bind_contextvars(user="u")
    assert from_structlog("user")() == {"user": "u"}
    with pytest.raises(ValueError, match="event"):
        from_structlog("event")


@pytest.mark.stacks
def test_ids_of_correlation_id_and_opentelemetry() -> None:
    from cleanclose.integrations.ids import from_correlation_id, from_opentelemetry

    correlation: Any = importlib.import_module("asgi_correlation_id.context")
    trace: Any = importlib.import_module("opentelemetry.trace")
    ids = (from_correlation_id(), from_opentelemetry())
    assert [dict(each()) for each in ids] == [{}, {}]
    token = correlation.correlation_id.set("c-1")
    context = trace.SpanContext(
        0x1234, 0x56, is_remote=False, trace_flags=trace.TraceFlags(1), trace_state=None
    )
    try:
        with trace.use_span(trace.NonRecordingSpan(context)):
            (line,) = lines_of("json", DEPARTED, ids=ids)
    finally:
        correlation.correlation_id.reset(token)
    assert line["request_id"] == "c-1"
    assert line["trace_id"] == f"{0x1234:032x}"
    assert line["span_id"] == f"{0x56:016x}"


def test_the_first_that_finds_an_id_wins_and_headers_come_last() -> None:
    def mine() -> Mapping[str, object]:
        return {"request_id": "mine"}

    def others() -> Mapping[str, object]:
        return {"request_id": "others", "span_id": "s"}

    (line,) = lines_of("unconfigured", DEPARTED, ids=(mine, others))
    assert (line["request_id"], line["span_id"]) == ("mine", "s")
    assert line["trace_id"] == FACTS.trace_id


def test_one_that_raises_does_not_lose_the_line() -> None:
    def broken() -> Mapping[str, object]:
        raise LookupError("no request")

    output = Output(json_formatter())
    with pytest.raises(LookupError):
        StructlogOutlet(ids=[broken])(DEPARTED)
    assert [line["event"] for line in output.read()] == ["client_departed"]


@pytest.mark.parametrize("name", ["from_correlation_id", "from_opentelemetry"])
def test_what_is_not_installed_is_said_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("asgi_correlation_id", "asgi_correlation_id.context", "opentelemetry.trace"):
        monkeypatch.setitem(sys.modules, module, None)
    made: Any = getattr(importlib.import_module("cleanclose.integrations.ids"), name)
    with pytest.raises(ImportError):
        made()


@pytest.mark.parametrize("ids", [3, [3], "ids"])
def test_ids_are_callables(ids: Any) -> None:
    with pytest.raises(TypeError, match="ids"):
        StructlogOutlet(ids=ids)
