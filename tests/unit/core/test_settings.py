"""Settings are checked once, and the message names the setting and the range."""

from __future__ import annotations

from typing import Any

import pytest

from cleanclose.core import Settings

NUMBERS = ["max_seconds", "idle_seconds", "hold_seconds", "min_rate"]
COUNTS = ["max_bytes", "max_draining", "max_lingering"]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", None, True])
def test_a_number_out_of_its_range_is_named(name: str, value: object) -> None:
    options: Any = {name: value}
    with pytest.raises(ValueError, match=f"^{name} must be .*0 or more"):
        Settings(**options)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", True])
def test_respond_after_may_be_left_open_but_not_be_anything(value: object) -> None:
    options: Any = {"respond_after": value}
    with pytest.raises(ValueError, match=r"^respond_after must be .*0 or more"):
        Settings(**options)
    assert Settings().respond_after is None
    assert Settings(respond_after=0).respond_after == 0


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [-1, 1.5, "1", None, True, float("nan")])
def test_a_count_out_of_its_range_is_named(name: str, value: object) -> None:
    options: Any = {name: value}
    with pytest.raises(ValueError, match=f"^{name} must be a whole number"):
        Settings(**options)


@pytest.mark.parametrize("value", ["413", b"413", 413, [199], [600], ["413"], [True]], ids=repr)
def test_statuses_out_of_their_range_are_named(value: object) -> None:
    options: Any = {"only_statuses": value}
    with pytest.raises(ValueError, match=r"^only_statuses must be .*200 to 599"):
        Settings(**options)


@pytest.mark.parametrize("name", ["max_draining", "max_lingering"])
def test_no_places_at_all_make_no_sense(name: str) -> None:
    options: Any = {name: 0}
    with pytest.raises(ValueError, match=f"^{name} must be a whole number of 1 or more"):
        Settings(**options)


def test_an_unknown_setting_is_an_error() -> None:
    options: Any = {"max_byte": 1}
    with pytest.raises(TypeError, match="max_byte"):
        Settings(**options)


def test_settings_are_frozen() -> None:
    settings: Any = Settings()
    with pytest.raises(AttributeError):
        settings.max_bytes = 1
