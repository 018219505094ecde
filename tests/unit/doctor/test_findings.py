"""Each rule of the doctor: what it holds against a result, and what it does not."""

from __future__ import annotations

import dataclasses

import pytest

from cleanclose.doctor.application.findings import find
from cleanclose.doctor.application.results import Answer, Line, Request, Result

CLEAN = Result(
    case="early-strict",
    title="writes all, then reads",
    group="early answer",
    side="bare",
    where="server",
    expected=413,
    answers=(Answer(kind="answered", status=413),),
)
LEFT = dataclasses.replace(
    CLEAN, case="reset-body", group="departure", expected=None, answers=(Answer(kind="left"),)
)
UPSTREAM = dataclasses.replace(
    CLEAN,
    case="upstream-reset",
    group="upstream",
    expected=500,
    answers=(Answer(kind="answered", status=500),),
)
PROXY = dataclasses.replace(CLEAN, case="proxy-nginx", group="proxy", where="nginx")
REQUEST = Request(path="/", read=10, read_to_end=True, expected=20, status=200)
ERROR = Line(
    logger="uvicorn.error", level="ERROR", number=40, text="failed", error="E", visible=True
)


def ids(result: Result, *usual: Line) -> list[str]:
    found = find([result], side="bare", server="some", usual=usual)
    for finding in found:
        # One plain sentence each, and one of advice.
        assert finding.sentence.endswith(".")
        assert finding.advice.endswith(".")
        assert "{" not in finding.sentence + finding.advice
    return [finding.id for finding in found]


def changed(result: Result, **fields: object) -> Result:
    return dataclasses.replace(result, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (CLEAN, []),
        (changed(CLEAN, answers=(Answer(kind="lost"),)), ["early-answer-lost"]),
        (changed(CLEAN, answers=(Answer(kind="hung"),)), ["connection-hung"]),
        (changed(CLEAN, smuggled=2), ["body-taken-for-request"]),
        (
            changed(CLEAN, answers=(Answer(kind="answered", status=413, faults=("stray_bytes",)),)),
            ["unexpected-bytes"],
        ),
        (
            changed(
                CLEAN, answers=(Answer(kind="answered", status=413, faults=("unasked_continue",)),)
            ),
            [],
        ),
        (LEFT, []),
        (changed(LEFT, lines=(ERROR,)), ["departure-logged-as-error"]),
        (changed(LEFT, lines=(dataclasses.replace(ERROR, visible=False),)), []),
        (changed(LEFT, lines=(dataclasses.replace(ERROR, number=20),)), []),
        (changed(LEFT, lines=(dataclasses.replace(ERROR, logger="tornado.access"),)), []),
        (changed(LEFT, lines=(dataclasses.replace(ERROR, logger="cleanclose"),)), []),
        (changed(LEFT, tracebacks=1), ["departure-logged-as-error"]),
        (changed(LEFT, requests=(REQUEST,)), ["short-upload-accepted"]),
        (changed(LEFT, requests=(dataclasses.replace(REQUEST, status=400),)), []),
        (changed(LEFT, requests=(dataclasses.replace(REQUEST, read=20),)), []),
        (changed(LEFT, requests=(dataclasses.replace(REQUEST, read_to_end=False),)), []),
        (UPSTREAM, ["upstream-failure-hidden"]),
        (changed(UPSTREAM, lines=(ERROR,)), []),
        (changed(UPSTREAM, tracebacks=1), []),
        (changed(UPSTREAM, answers=(Answer(kind="lost"),)), ["upstream-failure-hidden"]),
        (PROXY, []),
        (changed(PROXY, answers=(Answer(kind="answered", status=502),)), ["bad-gateway"]),
        (changed(PROXY, answers=(Answer(kind="lost"),)), ["bad-gateway"]),
        (
            changed(CLEAN, group="http2", answers=(Answer(kind="lost"),)),
            ["http2-answer-lost"],
        ),
    ],
)
def test_each_rule(result: Result, expected: list[str]) -> None:
    assert ids(result) == expected


def test_what_an_application_logs_anyway_is_not_held_against_it() -> None:
    result = changed(LEFT, group="application", where="application", lines=(ERROR,))
    assert ids(result) == ["departure-logged-as-error"]
    assert ids(result, ERROR) == []


def test_the_kernels_words_go_with_the_finding() -> None:
    lost = changed(CLEAN, answers=(Answer(kind="lost"),), resets=("TCP_ABORT_ON_CLOSE",) * 2)
    (finding,) = find([lost], side="bare", server="some", usual=())
    assert finding.kernel == ("TCP_ABORT_ON_CLOSE",)
    assert "Put the middleware" in finding.advice
    (finding,) = find([lost], side="wrapped", server="some", usual=())
    assert "Put the middleware" not in finding.advice
