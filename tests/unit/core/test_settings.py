"""Settings are checked once, and the message names the setting and the range."""

from __future__ import annotations

from typing import Any

import pytest

from cleanclose.core import Settings

NUMBERS = ["respond_after", "max_seconds", "idle_seconds", "hold_seconds", "min_rate"]
COUNTS = ["max_bytes", "max_draining", "max_lingering"]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", None, True])
def test_a_number_out_of_its_range_is_named(name: str, value: object) -> None:
    options: Any = {name: value}
    with pytest.raises(ValueError, match=f"^{name} must be .*0 or more"):
        Settings(**options)


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


def test_fewer_places_than_readers_make_no_sense() -> None:
    with pytest.raises(ValueError, match="max_lingering must be a whole number of 100 or more"):
        Settings(max_lingering=99)


def test_blocking_servers_have_shorter_limits_which_can_be_overridden() -> None:
    assert Settings.for_blocking().max_seconds == 5
    assert Settings.for_blocking().idle_seconds == 1
    assert Settings.for_blocking(max_seconds=7).max_seconds == 7


def test_an_unknown_setting_is_an_error() -> None:
    options: Any = {"max_byte": 1}
    with pytest.raises(TypeError, match="max_byte"):
        Settings(**options)


def test_settings_are_frozen() -> None:
    settings: Any = Settings()
    with pytest.raises(AttributeError):
        settings.max_bytes = 1
