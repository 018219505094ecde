"""Where something comes from: places in third parties' code, and the objects that errors passed."""

from __future__ import annotations

from types import FrameType

import pytest

from cleanclose.core.blame.provenance import (
    Place,
    caller,
    is_called_by,
    is_method_of,
    module_outside,
    passed_method,
    raised_under,
)

HERE = __name__


class Stream:
    """Raises in a method of its own, and calls whatever it is given."""

    def read(self) -> None:
        raise ConnectionResetError

    def call(self) -> FrameType | None:
        return asks()


def asks() -> FrameType | None:
    return caller()


def handles(place: Place) -> bool:
    return is_called_by(place)


def error_of(stream: Stream) -> ConnectionResetError:
    with pytest.raises(ConnectionResetError) as raised:
        stream.read()
    return raised.value


def test_a_caller_is_known_by_its_object_and_its_place() -> None:
    stream = Stream()
    frame = stream.call()
    assert frame is not None
    assert is_method_of(frame, HERE, stream)
    assert not is_method_of(frame, HERE, Stream())
    assert not is_method_of(frame, "elsewhere", stream)
    assert Place(HERE, frozenset({"Stream.call"})).has(frame)
    assert not Place(HERE, frozenset({"call", "Stream.read"})).has(frame)
    assert not Place("elsewhere", frozenset({"Stream.call"})).has(frame)


def test_a_place_is_found_anywhere_above() -> None:
    assert handles(Place(HERE, frozenset({"handles"})))
    assert handles(Place(HERE, frozenset({"test_a_place_is_found_anywhere_above"})))
    assert not handles(Place(HERE, frozenset({"asks"})))


def test_an_error_has_passed_one_object_and_not_its_like() -> None:
    stream = Stream()
    error = error_of(stream)
    assert passed_method(error, HERE, stream)
    assert not passed_method(error, HERE, Stream())
    assert not passed_method(ConnectionResetError(), HERE, stream)


def test_who_has_raised_it_is_the_last_one() -> None:
    error = error_of(Stream())
    assert raised_under(error, HERE, "Stream")
    assert not raised_under(error, HERE, "error_of")
    assert not raised_under(error, "elsewhere", "Stream")
    assert not raised_under(ConnectionResetError(), HERE, "")


def test_the_module_outside_is_the_one_that_calls_in() -> None:
    assert module_outside("cleanclose.core.blame.provenance") == __name__
    assert module_outside(__name__) != __name__
