"""Sentry: the verdict and the event decide what is dropped, and never a text."""

from __future__ import annotations

import dataclasses
import logging
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from cleanclose.core import (
    Flood,
    Levels,
    LineOutlet,
    Mechanism,
    Phase,
    Side,
    StructlogOutlet,
    Verdict,
    Witness,
)
from cleanclose.core.blame.judge import mark
from cleanclose.integrations import sentry
from cleanclose.integrations.sentry import BeforeSend, SentryOutlet, before_send
from cleanclose.integrations.stdlib import StdlibOutlet
from tests.harness.made import departed, facts, upstream


def hint_of_departure() -> dict[str, Any]:
    error = BrokenPipeError(32, "Broken pipe")
    mark(
        error,
        Verdict(
            side=Side.CLIENT,
            phase=Phase.RESPONSE_BODY,
            mechanism=Mechanism.BROKEN_PIPE,
            witnesses=(Witness.SEND,),
        ),
    )
    return {"exc_info": (type(error), error, None)}


def test_the_verdict_decides_and_not_the_class() -> None:
    error = BrokenPipeError(32, "Broken pipe")
    event: dict[str, Any] = {}
    assert before_send(event, {"exc_info": (type(error), error, None)}) is event
    assert before_send(event, {"exc_info": error}) is event
    assert before_send(event, {"exc_info": (None, None, None)}) is event
    assert before_send(event, {}) is event
    assert before_send(event, hint_of_departure()) is None


def test_a_level_of_error_keeps_departures() -> None:
    levels = Levels(rows={"client_departed.midway": logging.ERROR})
    assert BeforeSend(levels=levels)({}, hint_of_departure()) is not None


def test_another_error_in_the_same_line_is_not_hidden_with_it() -> None:
    hint = hint_of_departure()
    args = (ConnectionResetError("the database's"),)
    record = logging.LogRecord("shop", logging.ERROR, "", 0, "%s", args, hint["exc_info"])
    assert before_send({"level": "error"}, {**hint, "log_record": record}) is not None
    record.args = (hint["exc_info"][1],)
    assert before_send({"level": "error"}, {**hint, "log_record": record}) is None


def test_what_is_called_critical_stays_so() -> None:
    assert before_send({"level": "fatal"}, hint_of_departure()) is not None


def test_ones_own_before_send_has_what_is_left() -> None:
    seen: list[object] = []

    def own(event: Any, hint: Any) -> None:
        seen.append(event)

    chained = BeforeSend(own)
    assert chained({"a": 1}, {}) is None
    assert chained({"a": 2}, hint_of_departure()) is None
    assert seen == [{"a": 1}]
    with pytest.raises(TypeError, match="then"):
        BeforeSend("no")  # type: ignore[arg-type]


class Asked(logging.Handler):
    """Asks `before_send` about each record, as Sentry's logging integration does."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if before_send({"level": "error"}, {"log_record": record}) is not None:
            self.kept.append(record.getMessage())


@pytest.fixture
def asked() -> Iterator[Asked]:
    handler = Asked()
    logger = logging.getLogger("cleanclose")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.mark.parametrize("lines", [StructlogOutlet, StdlibOutlet])
def test_the_line_about_a_reset_is_kept_where_nobody_else_tells(
    lines: type[LineOutlet], asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other tests of this process have outlets that the collector has not found yet.
    nobody: weakref.WeakSet[SentryOutlet] = weakref.WeakSet()
    monkeypatch.setattr(sentry, "_OUTLETS", nobody)
    outlet = lines(flood=Flood(lines=1))
    outlet(upstream())
    assert len(asked.kept) == 1
    capturing = SentryOutlet()
    for _ in range(3):
        outlet(upstream("library.Error"))
    outlet.flush()
    assert len(asked.kept) == 1
    del capturing
    outlet(upstream("library.OtherError"))
    assert len(asked.kept) == 2


def test_no_text_of_a_clients_hides_a_line(asked: Asked) -> None:
    capturing = SentryOutlet()
    made = facts(method="POST", request_id="upstream_reset", route="/upstream_reset")
    event = dataclasses.replace(departed(), facts=made)
    StructlogOutlet(Levels(rows={"client_departed.midway": logging.ERROR}))(event)
    logging.getLogger("cleanclose").error("not ours: upstream_reset")
    assert len(asked.kept) == 2
    del capturing
