"""The structlog processor: in chains as applications have them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from cleanclose.core import Levels, Mechanism, Phase, Side, Verdict, Witness, reset, snapshot
from cleanclose.core.blame.judge import mark
from cleanclose.integrations.structlog import QuietLogs

LIVE = True
"""What ``exc_info`` is for the exception that is being handled."""
QUIETED = "cleanclose_quieted_records_total"
GONE = Verdict(
    side=Side.CLIENT,
    phase=Phase.RESPONSE_BODY,
    mechanism=Mechanism.BROKEN_PIPE,
    witnesses=(Witness.SEND,),
)


@pytest.fixture(autouse=True)
def counters() -> Iterator[None]:
    reset()
    yield
    structlog.reset_defaults()


def clients() -> BrokenPipeError:
    error = BrokenPipeError(32, "Broken pipe")
    mark(error, GONE)
    return error


def others() -> BrokenPipeError:
    return BrokenPipeError(32, "Broken pipe")


class Lines:
    """A logger with JSON lines, as structlog's own documentation has it."""

    def __init__(self, processor: QuietLogs) -> None:
        self._stream = io.StringIO()
        self.log: Any = structlog.wrap_logger(
            structlog.WriteLogger(self._stream),
            processors=[
                structlog.processors.add_log_level,
                processor,
                structlog.processors.dict_tracebacks,
                structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        )

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


@pytest.mark.parametrize("how", ["true", "error", "tuple", "field", "exception"])
def test_a_clients_traceback_becomes_a_line(how: str) -> None:
    lines = Lines(QuietLogs())
    try:
        raise clients()
    except OSError as error:
        match how:
            case "true":
                lines.log.error("failed", exc_info=LIVE, order=7)
            case "error":
                lines.log.error("failed", exc_info=error, order=7)
            case "tuple":
                lines.log.error("failed", exc_info=(type(error), error, None), order=7)
            case "field":
                lines.log.error("failed", error=error, exc_info=LIVE, order=7)
            case _:
                lines.log.exception("failed", order=7)
    (line,) = lines.read()
    line.pop("error", None)
    assert line == {
        "event": "failed",
        "order": 7,
        "level": "debug",
        "original_level": "error",
        "cleanclose_side": "client",
        "cleanclose_phase": "response_body",
        "cleanclose_mechanism": "broken_pipe",
        "cleanclose_witnesses": "send",
    }
    assert snapshot()[QUIETED] == 1


def test_anothers_stays_as_it_was() -> None:
    lines = Lines(QuietLogs(min_level=logging.INFO))
    lines.log.error("failed", exc_info=others())
    lines.log.error("failed", exc_info=clients(), cause=others())
    lines.log.error("failed", exc_info=ExceptionGroup("", [clients(), others()]))
    lines.log.error("failed")
    lines.log.critical("failed", exc_info=clients())
    lines.log.info("failed", exc_info=clients())
    found = lines.read()
    assert [line["level"] for line in found] == [*["error"] * 4, "critical", "info"]
    assert ["exception" in line for line in found] == [True, True, True, False, True, True]
    assert not any("original_level" in line for line in found)
    assert snapshot()[QUIETED] == 0


@pytest.mark.parametrize("exc_info", [True, (None, None, None), None, "text"])
def test_no_exception_at_all_changes_nothing(exc_info: object) -> None:
    given = {"event": "failed", "exc_info": exc_info}
    assert QuietLogs()(None, "error", dict(given)) == given
    assert snapshot()[QUIETED] == 0


@pytest.mark.parametrize(
    ("min_level", "levels", "lines_wanted"),
    [
        (None, None, 1),
        (logging.DEBUG, None, 1),
        (logging.INFO, None, 0),
        (logging.INFO, Levels(graded=True), 1),
        (logging.WARNING, Levels(graded=True), 0),
    ],
)
def test_it_is_dropped_below_the_level_that_is_given(
    min_level: int | None, levels: Levels | None, lines_wanted: int
) -> None:
    lines = Lines(QuietLogs(levels, min_level=min_level))
    lines.log.error("failed", exc_info=clients())
    assert len(lines.read()) == lines_wanted
    assert snapshot()[QUIETED] == 1


def test_without_a_level_in_the_event_the_method_counts() -> None:
    stream = io.StringIO()
    log: Any = structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=[QuietLogs(), structlog.processors.JSONRenderer()],
    )
    log.warning("failed", exc_info=clients())
    assert json.loads(stream.getvalue())["original_level"] == "warning"


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_a_logger_of_the_standard_library_is_asked(level: int) -> None:
    logger = logging.getLogger("test.structlog.stdlib")
    logger.setLevel(level)
    logger.propagate = False
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    log: Any = structlog.wrap_logger(
        logger,
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            QuietLogs(),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    log.error("failed", exc_info=clients())
    log.error("failed", exc_info=others())
    logger.removeHandler(handler)
    found = [json.loads(line)["level"] for line in stream.getvalue().splitlines()]
    assert found == (["debug", "error"] if level == logging.DEBUG else ["error"])


@pytest.mark.parametrize("place", ["processors", "foreign_pre_chain"])
def test_inside_of_a_formatter_nothing_is_dropped(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = QuietLogs(min_level=logging.INFO)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            *([quiet] if place == "foreign_pre_chain" else []),
        ],
        processors=[
            *([quiet] if place == "processors" else []),
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
    )
    logger = logging.getLogger("test.structlog.formatter")
    logger.propagate = False
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    logger.error("failed", exc_info=clients())
    logger.error("failed", exc_info=others())
    logger.removeHandler(handler)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["level"], second["level"]) == ("debug", "error")
    assert "exception" not in first
    assert "exception" in second
    assert "Logging error" not in capsys.readouterr().err


@pytest.mark.parametrize("min_level", [-1, True, "INFO", 10.0])
def test_a_wrong_level_is_refused(min_level: Any) -> None:
    with pytest.raises(ValueError, match=r"^min_level must be"):
        QuietLogs(min_level=min_level)
