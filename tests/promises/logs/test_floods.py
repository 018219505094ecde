"""Floods in whole processes: what is left at the exit."""

from __future__ import annotations

import os

from cleanclose.core.floods import FOLDED
from tests.harness.processes import run_python


def test_what_is_left_is_told_at_exit_and_not_by_a_child() -> None:
    code = """
        import logging, os, sys
        from cleanclose.core import *
        logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="%(message)s")
        outlet = StructlogOutlet(flood=Flood(lines=1))
        event = ClientDeparted(
            facts=Facts(framework="asgi", server="uvicorn", method="GET"), age_ms=1.0,
            verdict=Verdict(side=Side.CLIENT, phase=Phase.HANDLER),
        )
        for _ in range(3):
            outlet(event)
        sys.stdout.flush()
        if hasattr(os, "fork") and os.fork() == 0:
            # In the child it is an event like the first.
            outlet(event)
            sys.exit()
        if hasattr(os, "wait"):
            os.wait()
    """
    run = run_python(code)
    names = [line.split("'")[1] for line in run.stdout.splitlines()]
    children = ["client_departed"] if hasattr(os, "fork") else []
    assert names == ["client_departed", *children, FOLDED], run.stdout
    assert "folded=2" in run.stdout
