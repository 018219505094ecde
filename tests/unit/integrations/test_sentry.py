"""Sentry on real servers: nothing for clients that left, one event for each upstream's reset."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from cleanclose.core import Levels, Mechanism, Phase, Side, Verdict, Witness
from cleanclose.core.judge import mark
from cleanclose.integrations import sentry
from cleanclose.integrations.sentry import BeforeSend, SentryOutlet, before_send

if TYPE_CHECKING:
    pass


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


@pytest.mark.parametrize("message", ['{"event": "upstream_reset"}', {"event": "upstream_reset"}])
def test_the_line_about_a_reset_is_kept_where_nobody_else_tells(
    message: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other tests of this process have outlets that the collector has not found yet.
    nobody: weakref.WeakSet[SentryOutlet] = weakref.WeakSet()
    monkeypatch.setattr(sentry, "_OUTLETS", nobody)
    record = logging.LogRecord("cleanclose", logging.ERROR, "", 0, message, (), None)
    hint = {"log_record": record}
    assert before_send({}, hint) is not None
    outlet = SentryOutlet()
    assert before_send({}, hint) is None
    del outlet
    assert before_send({}, hint) is not None
