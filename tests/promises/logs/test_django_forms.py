"""A form that was cut off before its token came: Django says that the token is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.harness.asgi_noise import HOWS, Observed, module_stack, observed
from tests.harness.leavers import leave_at, request
from tests.harness.stacks import Stack, gunicorn

pytestmark = pytest.mark.stacks

MODULE: Final = "csrf_django"
GTHREAD: Final = gunicorn("csrf-gthread", MODULE, "--threads=4", threads=True)
UVICORN: Final = module_stack("uvicorn-h11", MODULE)
LINE: Final = "Forbidden (CSRF token missing.): /form"
HALF: Final = b'--cut\r\nContent-Disposition: form-data; name="order"\r\n\r\nhalf of i'


def cut_forms(seen: Observed) -> None:
    """Cut a form off in both ways, before the field with its token."""
    for how in HOWS:
        headers = (
            ("X-Request-ID", how),
            ("Content-Type", "multipart/form-data; boundary=cut"),
            ("Cookie", f"csrftoken={'a' * 32}"),
        )
        leave_at(seen.port, request("POST", "/form", length=1000, headers=headers), how, body=HALF)


def lines(seen: Observed) -> int:
    return sum(record["message"] == LINE for record in seen.records_now())


@pytest.mark.parametrize("stack", [GTHREAD, UVICORN], ids=str)
def test_nothing_is_said_of_a_form_that_was_cut(stack: Stack, tmp_path: Path) -> None:
    more = {"TEST_INTERFACE": stack.interface}
    with observed(stack, tmp_path, wrapped=True, more=more) as seen:
        cut_forms(seen)
        seen.until(lambda: seen.events_now().keys() >= set(HOWS), "untold")
    assert seen.records == []
    for events in seen.events_by_request().values():
        assert {event["side"] for event in events} == {"client"}


@pytest.mark.negative_control
def test_the_control_bare_django_misses_the_token(tmp_path: Path) -> None:
    with observed(GTHREAD, tmp_path, wrapped=False) as seen:
        cut_forms(seen)
        seen.until(lambda: lines(seen) > 0, "no line")


def test_a_whole_form_without_a_token_is_still_told(tmp_path: Path) -> None:
    with observed(GTHREAD, tmp_path, wrapped=True) as seen:
        headers = (("Cookie", f"csrftoken={'a' * 32}"), ("Connection", "close"))
        leave_at(seen.port, request("POST", "/form", length=0, headers=headers), "fin", read=12)
        seen.until(lambda: lines(seen) == 1, "no line")
