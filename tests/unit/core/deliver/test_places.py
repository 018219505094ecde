"""Places: how many there are, who may have how many, and that none is lost."""

from __future__ import annotations

import copy
import sys
import threading
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cleanclose.core.deliver.places import Places
from tests.harness.made import EXAMPLES


@pytest.mark.parametrize(("most", "share"), [(0, 0), (1, 1), (2, 1), (3, 1), (4, 2), (100, 50)])
def test_one_address_has_half_of_them(most: int, share: int) -> None:
    places = Places(most)
    assert sum(places.take("192.0.2.1") for _ in range(200)) == share


@pytest.mark.parametrize("most", [0, 1, 2, 3, 100])
def test_all_of_them_can_be_had(most: int) -> None:
    places = Places(most)
    assert sum(places.take(f"192.0.2.{number}") for number in range(200)) == most


def test_who_is_not_known_shares_with_all_the_others_who_are_not() -> None:
    places = Places(2)
    assert places.take(None)
    assert not places.take(None)
    assert places.take("192.0.2.1")


def test_a_place_that_is_given_back_can_be_taken() -> None:
    places = Places(1)
    for address in ("192.0.2.1", None, "192.0.2.2"):
        assert places.take(address)
        assert not places.take("192.0.2.3")
        places.give_back(address)


@pytest.mark.parametrize(
    ("threads", "expected"),
    [(None, 0), (1, 0), (2, 1), (3, 1), (4, 2), (9, 4), (1000, 100), (sys.maxsize, 100)],
)
def test_half_of_the_workers_at_most(threads: int | None, expected: int) -> None:
    places = Places(100)
    for _ in range(2):
        places.hold_workers(threads)
        assert places.most == expected
        assert sum(places.take("192.0.2.1") for _ in range(200)) == expected
        for _ in range(expected):
            places.give_back("192.0.2.1")


def test_workers_that_are_counted_again() -> None:
    places = Places(100)
    places.hold_workers(None)
    assert not places.take("192.0.2.1")
    places.hold_workers(8)
    assert copy.deepcopy(places).most == places.most == 4


def test_many_threads() -> None:
    places = Places(6)
    now = most = admitted = 0
    lock = threading.Lock()
    begin = threading.Barrier(20)

    def visit(address: str) -> None:
        nonlocal now, most, admitted
        begin.wait(30)
        for _ in range(500):
            if places.take(address):
                with lock:
                    now += 1
                    admitted += 1
                    most = max(most, now)
                with lock:
                    now -= 1
                places.give_back(address)

    threads = [threading.Thread(target=visit, args=(f"192.0.2.{n % 4}",)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert 1 <= most <= 6
    assert admitted > 0
    assert sum(places.take(f"192.0.2.{number}") for number in range(20)) == 6


class PlacesMachine(RuleBasedStateMachine):
    """Against a model: how many each address has."""

    @initialize(most=st.integers(0, 6))
    def begin(self, most: int) -> None:
        self.most = most
        self.places = Places(most)
        self.taken: Counter[str | None] = Counter()

    @rule(address=st.sampled_from([None, "192.0.2.1", "192.0.2.2", "2001:db8::1"]))
    def take(self, address: str | None) -> None:
        free = self.taken.total() < self.most and self.taken[address] < max(1, self.most // 2)
        assert self.places.take(address) is free
        self.taken[address] += free

    @precondition(lambda self: self.taken.total())
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(list((+self.taken).keys())))
        self.places.give_back(address)
        self.taken[address] -= 1

    @invariant()
    def there_are_never_more(self) -> None:
        assert self.taken.total() <= self.most


TestAnyOrder = PlacesMachine.TestCase
TestAnyOrder.settings = settings(max_examples=EXAMPLES // 2, deadline=None)
