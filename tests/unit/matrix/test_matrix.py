"""The matrix: how it judges and counts, and one tiny run on real servers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.harness.apps import routes
from tests.harness.stacks import Stack
from tests.matrix import cases, drivers, limits, report, servers
from tests.matrix.__main__ import uploads
from tests.matrix.cases import Case
from tests.matrix.limits import Limit
from tests.matrix.run import DIRECT, PROXIES, Matrix, Plan, Result, judge

pytestmark = pytest.mark.stacks

CASE = next(case for case in cases.ALL if case.name == "length-8")


def told(status: int, body: bytes) -> dict[str, Any]:
    return {
        "status": status,
        "length": len(body),
        "digest": hashlib.sha256(body).hexdigest(),
    }


REFUSED = told(413, routes.REFUSAL)
OK = told(200, routes.OK_BODY)


@pytest.mark.parametrize(
    ("answer", "kind", "following"),
    [
        ({"first": REFUSED}, "delivered", None),
        ({"first": REFUSED, "next": OK, "reused": True}, "delivered", "same connection"),
        ({"first": REFUSED, "next": OK, "reused": False}, "delivered", "new connection"),
        ({"first": REFUSED, "next": told(404, b"")}, "delivered", "failed"),
        ({"first": REFUSED, "next": {"error": "gone"}}, "delivered", "failed"),
        ({"first": told(502, b"")}, "wrong", None),
        ({"first": told(413, routes.REFUSAL[:-1])}, "lost", None),
        ({"first": {"error": "BrokenPipeError"}}, "lost", None),
        ({"first": REFUSED, "faults": ["unexpected_response"]}, "wrong", None),
        ({"hung": "no answer within 8 s"}, "hung", None),
        ({"unsupported": "fetch refuses to send Expect"}, "unsupported", None),
    ],
)
def test_judge(answer: dict[str, Any], kind: str, following: str | None) -> None:
    verdict = judge(CASE, answer)
    assert (verdict["kind"], verdict.get("next")) == (kind, following)


def result(**values: Any) -> Result:
    given: dict[str, Any] = {
        "server": "a",
        "wrapped": True,
        "way": "direct",
        "client": "c",
        "case": "length-8",
    }
    given |= {"kind": "delivered", **values}
    return Result(**given)


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "lost"},
        {"kind": "wrong"},
        {"kind": "hung"},
        {"resets": 1},
        {"next": "failed"},
        {"faults": "unasked_continue"},
    ],
)
def test_what_a_wrapped_server_must_not_do(bad: dict[str, Any]) -> None:
    assert report.failures([result(**bad)]) == [result(**bad)]
    assert not report.failures([result(**bad, wrapped=False)])


@pytest.mark.parametrize("good", [{}, {"kind": "unsupported"}, {"kind": "not here"}])
def test_what_is_no_failure(good: dict[str, Any]) -> None:
    assert not report.failures([result(**good)])


def test_a_known_limit_is_marked_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Limit(why="It cannot be helped.", clients=frozenset({"c"}))
    monkeypatch.setattr(limits, "LIMITS", (known,))
    lost = result(kind="lost")
    assert not report.failures([lost])
    assert report.failures([result(kind="lost", client="d")])
    matrix = Matrix(plan=plan(), results=[lost])
    text = report.as_markdown(report.grids(matrix), report.notes(matrix, 1))
    assert "0/1\\*" in text
    assert "It cannot be helped." in text


def plan(*names: str, clients: Sequence[str] = ("c",)) -> Plan:
    chosen = [drivers.Client(name=name, driver="python") for name in clients]
    stacks = [stack for stack in servers.ALL if stack.name in names]
    return Plan(servers=stacks, uploads=[(DIRECT, client, CASE) for client in chosen])


def test_json_leaves_out_what_is_well() -> None:
    assert json.loads(result().as_json()) == {
        "server": "a",
        "wrapped": True,
        "way": "direct",
        "client": "c",
        "case": "length-8",
        "kind": "delivered",
    }
    assert json.loads(result(resets=2).as_json())["resets"] == 2


def test_the_body_is_the_one_of_the_doctor() -> None:
    from cleanclose.doctor.clients import body_pieces

    size = 3 * len(cases.LINE) + 5
    assert b"".join(body_pieces(size)) == (cases.LINE * 4)[:size]


@pytest.mark.parametrize("case", cases.ALL, ids=str)
def test_jobs_are_json(case: Case) -> None:
    job = json.loads(json.dumps(case.job("c", 1, 2.0)))
    assert job["size"] == case.scenario.upload.body_size


def test_every_server_is_made_of_something() -> None:
    for stack in servers.ALL:
        assert servers.missing(stack) or servers.versions((stack,)), stack.name


def test_a_quick_run_is_a_part_of_the_full_one() -> None:
    assert set(uploads(full=False)) < set(uploads(full=True))
    quick = {way for way in PROXIES if way.quick}
    assert {way for way, _, _ in uploads(full=False)} == {DIRECT, *quick}
    assert {way for way, _, _ in uploads(full=True)} == {DIRECT, *PROXIES}


def test_what_is_missing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:

    def missing(stack: Stack) -> str | None:
        return "it is not installed"

    def find_program(name: str) -> str | None:
        return None

    monkeypatch.setattr("tests.matrix.run.missing", missing)
    monkeypatch.setattr("tests.matrix.drivers.find_program", find_program)
    matrix = Matrix(
        plan=Plan(
            servers=[servers.ALL[0]],
            uploads=[(DIRECT, client, CASE) for client in drivers.CLIENTS if client.driver == "go"],
        )
    )
    matrix.run()
    assert matrix.absent == {
        servers.ALL[0].name: "it is not installed",
        "Go net/http": "there is no go on this machine",
    }
    assert [each.kind for each in matrix.results] == ["not here", "not here"]
    text = report.as_markdown(report.grids(matrix), report.notes(matrix, 0))
    assert "| not here |" in text
    assert "Not here: Go net/http" in text
    assert not report.failures(matrix.results)


def test_the_page_gets_its_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.put_between(page, "new")
    assert page.read_text() == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="matrix: begin"):
        report.put_between(page, "new")
