"""The default outlet in a process that has configured nothing."""

from __future__ import annotations

from tests.harness.processes import run_python


def test_without_a_configuration_a_debug_event_is_silent() -> None:
    code = (
        "from cleanclose.core import *\n"
        "facts = Facts(framework='asgi', server='uvicorn', method='POST')\n"
        "def event(**more): return UploadDrained(facts=facts, age_ms=1.0, **more)\n"
        "StructlogOutlet()(event(outcome=Outcome.DELIVERED))\n"
        "StructlogOutlet()(event(outcome=Outcome.CUT, cap=Cap.MAX_LINGERING))\n"
    )
    run = run_python(code)
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1
    assert "max_lingering" in run.stderr
