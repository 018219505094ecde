"""Which readings raise that find a body's end too early, and for whom."""

from __future__ import annotations

from typing import Any

import pytest

from cleanclose.core.blame.short_uploads import is_raised


def asked_by(*modules: str, asked: int | None = None, reset: bool = False) -> bool:
    """Whether a reading raises under code of these modules, the outermost first."""

    def read() -> bool:
        return is_raised(
            asked=asked, left=10, reader=modules[-1], begun=False, failing=False, reset=reset
        )

    call: Any = read
    for module in reversed(modules):
        namespace: dict[str, Any] = {"__name__": module, "inner": call}
        exec("def outer():\n return inner()", namespace)
        call = namespace["outer"]
    result: bool = call()
    return result


@pytest.mark.parametrize("framework", ["bottle", "cherrypy._cprequest", "falcon.app", "wsgidav.dc"])
def test_a_framework_that_makes_a_500_of_everything_gets_the_end_as_it_comes(
    framework: str,
) -> None:
    assert asked_by("service")
    assert not asked_by(framework, "service")
    assert not asked_by("service", framework)


def test_a_client_library_would_send_half_of_it_on() -> None:
    assert asked_by("falcon.app", "service", "requests.sessions", "http.client")


def test_a_reset_is_one_under_any_framework() -> None:
    assert asked_by("falcon.app", "service", reset=True)


def test_django_has_a_word_of_its_own() -> None:
    assert asked_by("django.core.handlers.wsgi", asked=10)
    assert not asked_by("service", asked=10)
