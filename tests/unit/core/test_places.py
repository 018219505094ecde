"""Places: how many read, who waits, and in which order."""

from __future__ import annotations

import sys
import threading
from functools import partial

from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from cleanclose.core import Place, Places


def nothing() -> None:
    pass


def test_waiting_places_get_their_turn_in_order() -> None:
    places = Places(reading=1, inside=3)
    turns: list[int] = []
    first, second, third = (places.enter(partial(turns.append, n)) for n in (1, 2, 3))
    assert [place.reading for place in (first, second, third)] == [True, False, False]
    first.leave()
    second.stop_reading()
    assert turns == [2, 3]
    assert third.reading


def test_past_the_limit_the_newest_is_refused() -> None:
    places = Places(reading=1, inside=2)
    inside = [places.enter(nothing), places.enter(nothing)]
    assert not places.enter(nothing).admitted
    inside[1].leave()
    assert places.enter(nothing).admitted


def test_leaving_twice_counts_once() -> None:
    places = Places(reading=1, inside=1)
    place = places.enter(nothing)
    place.leave()
    place.leave()
    assert places.enter(nothing).admitted
    assert not places.enter(nothing).admitted


def test_half_of_the_workers_at_most() -> None:
    for threads, expected in [
        (None, 1),
        (1, 1),
        (2, 1),
        (4, 2),
        (9, 4),
        (1000, 100),
        (sys.maxsize, 100),
    ]:
        places = Places.for_workers(threads, most=100)
        entered = [places.enter(nothing) for _ in range(1000)]
        assert sum(place.reading for place in entered) == expected
        assert sum(place.admitted for place in entered) == expected


def test_a_reading_without_end_is_one_at_a_time_and_never_the_last_workers() -> None:
    for threads, others in [(None, False), (1, False), (2, True), (512, True)]:
        places = Places.for_workers(threads, most=100, unbounded=True)
        assert sum(places.enter(nothing).admitted for _ in range(1000)) == 1
        assert places.others is others
    assert Places.for_workers(1, most=100, greenlets=True).others
    assert Places.for_workers(None, most=100, unbounded=True, multithread=True).others


def test_greenlets_wait_at_no_cost() -> None:
    places = Places.for_workers(1, most=100, greenlets=True)
    assert sum(places.enter(nothing).reading for _ in range(1000)) == 100


def test_many_threads() -> None:
    places = Places(reading=3, inside=50)
    most = 0
    now = 0
    lock = threading.Lock()

    def visit() -> None:
        nonlocal most, now
        turn = threading.Event()
        place = places.enter(turn.set)
        if not place.admitted:
            return
        if not place.reading:
            assert turn.wait(30)
        with lock:
            now += 1
            most = max(most, now)
        with lock:
            now -= 1
        place.leave()

    threads = [threading.Thread(target=visit) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= most <= 3
    assert places.enter(nothing).reading


class PlacesMachine(RuleBasedStateMachine):
    """Against a model: a list of who is inside, in the order of entering."""

    entered = Bundle[Place]("entered")

    def __init__(self) -> None:
        super().__init__()
        self.places = Places(reading=2, inside=4)
        self.inside: list[Place] = []
        self.done: set[int] = set()

    @rule(target=entered)
    def enter(self) -> Place:
        place = self.places.enter(nothing)
        assert place.admitted is (len(self.inside) < 4)
        if place.admitted:
            self.inside.append(place)
        return place

    @rule(place=entered)
    def stop_reading(self, place: Place) -> None:
        if place.reading:
            self.done.add(id(place))
        place.stop_reading()

    @rule(place=consumes(entered))
    def leave(self, place: Place) -> None:
        place.leave()
        if place in self.inside:
            self.inside.remove(place)

    @invariant()
    def the_first_who_want_to_read_do(self) -> None:
        wanting = [place for place in self.inside if id(place) not in self.done]
        assert [place.reading for place in wanting] == [
            number < 2 for number in range(len(wanting))
        ]


TestPlacesMachine = PlacesMachine.TestCase
