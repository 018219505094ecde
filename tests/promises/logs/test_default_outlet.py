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


def test_the_line_is_the_same_where_structlog_has_not_been_imported() -> None:
    code = """
        import sys
        from cleanclose.core import *
        facts = Facts(framework="asgi", server="uvicorn", method="PO'ST")
        event = UploadDrained(facts=facts, age_ms=1.0, outcome=Outcome.CUT, cap=Cap.MAX_LINGERING)
        StructlogOutlet()(event)
        print("structlog" in sys.modules)
        import structlog
        StructlogOutlet()(event)
        """
    run = run_python(code)
    assert run.stdout == "False\n"
    first, second = run.stderr.splitlines()
    assert first == second
    assert first.startswith("event='upload_drained' ")
