"""A request inside another one: which exchange it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cleanclose.core import Facts, Watch
from cleanclose.core.nesting import Nesting, nesting_of

OWN: Mapping[str, Any] = {"own": True}


class Outer(Watch):
    @property
    def status(self) -> int | None:
        return None

    def facts(self) -> Facts:
        return Facts(framework="test", server="test", method="GET")

    def is_for(self, request: Mapping[str, Any], /) -> bool:
        return request is OWN


@pytest.mark.parametrize(
    ("ended", "request_", "from_server", "nesting"),
    [
        (False, OWN, False, Nesting.SAME),
        (False, OWN, True, Nesting.SAME),
        (False, {}, False, Nesting.CALLED),
        (False, {}, True, Nesting.NEXT),
        (True, OWN, False, Nesting.NEXT),
        (True, {}, False, Nesting.NEXT),
    ],
)
def test_what_a_request_is_to_the_exchange_around_it(
    ended: bool, request_: Mapping[str, Any], from_server: bool, nesting: Nesting
) -> None:
    outer = Outer(0.0)
    outer.ended = ended
    assert nesting_of(outer, request_, from_server=from_server) is nesting
