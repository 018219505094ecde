"""One exchange's watch: from what passes its witnesses to one event at its end."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cleanclose.core import (
    ClientDeparted,
    Event,
    Facts,
    Mechanism,
    Phase,
    ResponseUndelivered,
    Settings,
    Side,
    TruncatedUpload,
    UpstreamReset,
    Verdict,
    Watch,
    Witness,
    client_gone,
    current,
)
from cleanclose.core.blame.departures import DEPARTURE_LISTENERS
from cleanclose.core.blame.judge import marked
from cleanclose.core.blame.watch import COMPLETE, CURRENT
from cleanclose.core.conduct import Conduct, End, Treatment
from cleanclose.core.deliver.exchange import Connection, Exchange
from cleanclose.core.deliver.expectation import Expectation
from cleanclose.core.deliver.places import Places
from cleanclose.core.server import UNKNOWN


class PlainWatch(Watch):
    """A shim's watch, with nothing around it."""

    def __init__(self, method: str = "GET", *, now: float = 100.0) -> None:
        super().__init__(now)
        self.method = method
        self.code: int | None = None
        self.own: list[BaseException] = []
        self.asked = 0
        self.treated = Treatment.SHOWN

    @property
    def status(self) -> int | None:
        return self.code

    def facts(self) -> Facts:
        return Facts(framework="test", server="test", method=self.method)

    def treatment(self, error: BaseException, side: Side) -> Treatment:
        return self.treated

    def ask(self) -> None:
        self.asked += 1

    def find_witness(self, error: BaseException) -> None:
        if error in self.own:
            self.peer_gone(Witness.SEND, 101.0, error)

    def respond(self, status: int = 200, *pieces: int, complete: bool = True) -> None:
        self.code = status
        for piece in pieces:
            self.response_piece(piece)
        if complete:
            self.response_completed()


@pytest.fixture
def entered() -> Iterator[PlainWatch]:
    watch = PlainWatch()
    token = CURRENT.set(watch)
    yield watch
    CURRENT.reset(token)


def the_event(end: End) -> Event:
    (event,) = end.events
    return event


def departure_of(end: End) -> ClientDeparted:
    event = the_event(end)
    assert isinstance(event, ClientDeparted)
    return event


def upload(method: str = "POST", *, expected: int | None = 1000, got: int = 5) -> PlainWatch:
    watch = PlainWatch(method)
    watch.body_complete = False
    watch.expected_in = expected
    watch.bytes_in = got
    return watch


def refused() -> Exchange:
    """The delivery of an early response."""
    delivery = Exchange(
        Settings(),
        Places(1),
        server=UNKNOWN,
        connection=Connection(in_reach=True),
        facts=Facts(framework="test", server="test", method="POST"),
        length=1000,
        expectation=Expectation(UNKNOWN.sends_continue, None, None, has_read=False),
        started=100.0,
    )
    delivery.response_started(413, 0, 100.5)
    delivery.response_completed(100.5)
    return delivery


# Phases.


def test_the_phase_is_where_the_exchange_had_come_to() -> None:
    watch = upload()
    phases = [watch.phase]
    watch.body_complete = True
    phases.append(watch.phase)
    watch.respond(200, 0, complete=False)
    phases.append(watch.phase)
    watch.response_piece(10)
    phases.append(watch.phase)
    watch.is_websocket = True
    phases.append(watch.phase)
    assert phases == [
        Phase.REQUEST_BODY,
        Phase.HANDLER,
        Phase.RESPONSE_START,
        Phase.RESPONSE_BODY,
        Phase.WEBSOCKET,
    ]


def test_the_phase_of_a_departure_is_the_first_witnesses() -> None:
    watch = upload()
    watch.peer_gone(Witness.RECEIVE, 101.0)
    watch.body_complete = True
    watch.respond(200, 10)
    watch.peer_gone(Witness.SEND, 102.0, BrokenPipeError(32, "Broken pipe"))
    event = departure_of(watch.app_ended(103.0))
    assert event.verdict == Verdict(
        side=Side.CLIENT,
        phase=Phase.REQUEST_BODY,
        mechanism=Mechanism.BROKEN_PIPE,
        witnesses=(Witness.RECEIVE, Witness.SEND),
    )
    assert event.bytes_out == 0


def test_the_mechanism_is_the_first_one_known() -> None:
    watch = PlainWatch()
    watch.peer_gone(Witness.SEND, 101.0, ConnectionResetError(104, "reset"))
    watch.peer_gone(Witness.SEND, 101.0, BrokenPipeError(32, "Broken pipe"))
    watch.peer_gone(Witness.SOCKET, 101.0, mechanism=Mechanism.EOF)
    assert watch.departure is not None
    assert watch.departure.mechanism is Mechanism.RESET
    assert watch.departure.witnesses == (Witness.SEND, Witness.SOCKET)


# One event, or none.


def test_an_exchange_without_anything_to_say_says_nothing() -> None:
    watch = PlainWatch()
    watch.respond(200, 10)
    assert watch.app_ended(101.0) == End(events=(), conduct=Conduct())


def test_a_peer_that_leaves_behind_a_complete_response_has_not_departed() -> None:
    watch = PlainWatch("POST")
    watch.respond(200)
    error = ConnectionResetError(104, "reset")
    watch.peer_gone(Witness.RECEIVE, 101.0, error)
    assert watch.departure is None
    assert marked(error) is None
    assert watch.app_ended(102.0, error).events == (
        UpstreamReset(
            facts=watch.facts(),
            age_ms=2000.0,
            verdict=Verdict(
                side=Side.UPSTREAM, phase=Phase.RESPONSE_START, mechanism=Mechanism.RESET
            ),
            error="builtins.ConnectionResetError",
            exception=error,
        ),
    )


@pytest.mark.parametrize("seen", [1, 2, 5])
def test_a_departure_is_one_event_however_often_it_is_seen(seen: int) -> None:
    watch = PlainWatch()
    error = ConnectionResetError(104, "reset")
    for _ in range(seen):
        watch.peer_gone(Witness.RECEIVE, 101.0, error)
    end = watch.app_ended(102.0, error)
    assert departure_of(end).age_ms == 2000.0
    assert end.conduct.quiet


def test_what_is_told_by_another_event_is_not_told_twice() -> None:
    watch = upload()
    watch.delivery = refused()
    watch.peer_gone(Witness.RECEIVE, 101.0)
    assert watch.app_ended(102.0).events == ()


def test_an_upstreams_reset_is_told_even_so() -> None:
    watch = upload()
    watch.delivery = refused()
    watch.treated = Treatment.HIDDEN
    watch.peer_gone(Witness.RECEIVE, 101.0)
    end = watch.app_ended(102.0, ConnectionResetError())
    event = the_event(end)
    assert isinstance(event, UpstreamReset)
    assert event.restored
    assert not end.conduct.quiet


def test_a_delivery_knows_that_nobody_is_left_to_deliver_to() -> None:
    watch = upload()
    watch.delivery = delivery = Exchange(
        Settings(),
        Places(1),
        server=UNKNOWN,
        connection=Connection(in_reach=True),
        facts=watch.facts(),
        length=1000,
        expectation=Expectation(UNKNOWN.sends_continue, None, None, has_read=False),
        started=100.0,
    )
    watch.peer_gone(Witness.SEND, 101.0, ConnectionResetError(104, "reset"))
    delivery.response_started(413, 0, 101.5)
    delivery.response_completed(101.5)
    assert not delivery.early
    assert not delivery.may_read


def test_a_second_error_does_not_report_the_departure_again() -> None:
    watch = PlainWatch()
    watch.peer_gone(Witness.RECEIVE, 101.0)
    assert departure_of(watch.app_ended(102.0)).age_ms == 2000.0
    assert watch.app_ended(103.0, ValueError()).events == ()


def test_an_upstreams_reset_and_a_departure_are_two_events() -> None:
    watch = PlainWatch()
    watch.peer_gone(Witness.RECEIVE, 101.0)
    end = watch.app_ended(102.0, ConnectionResetError(104, "reset"))
    assert [event.name for event in end.events] == ["upstream_reset", "client_departed"]
    assert not end.conduct.quiet


@pytest.mark.parametrize("error", [ValueError(), OSError(), TimeoutError(), EOFError()])
def test_a_bug_is_nobodys_departure(error: Exception) -> None:
    watch = PlainWatch()
    watch.peer_gone(Witness.RECEIVE, 101.0)
    end = watch.app_ended(102.0, error)
    assert not end.conduct.quiet
    assert departure_of(end).verdict.side is Side.CLIENT


def test_an_error_without_a_departure_is_no_event() -> None:
    error = ValueError()
    end = PlainWatch().app_ended(102.0, error)
    assert end == End(events=(), conduct=Conduct(), error=error)


SWALLOWS = """
class NoAnswerError(Exception):
    pass


def send(read):
    try:
        read()
    except OSError:
        pass
    raise NoAnswerError


def ask():
    raise NoAnswerError
"""


@pytest.mark.parametrize("package", ["urllib3", "an_application"])
def test_a_library_that_swallows_it_and_gets_no_answer_to_half_a_request(package: str) -> None:
    names: dict[str, Any] = {"__name__": f"{package}.connection"}
    exec(SWALLOWS, names)
    watch = upload()

    def read() -> None:
        error = ConnectionResetError()
        watch.peer_gone(Witness.INPUT, 1.0, error)
        raise error

    def side_of(call: Callable[[], None]) -> Side:
        with pytest.raises(Exception) as raised:  # noqa: PT011 - the library's, made above
            call()
        return watch.judge(raised.value).side

    is_librarys = package == "urllib3"
    assert side_of(lambda: names["send"](read)) is (Side.CLIENT if is_librarys else Side.UNKNOWN)
    # Another call is another matter, even if it is the same library's.
    assert side_of(names["ask"]) is Side.UNKNOWN


def test_what_passed_where_nothing_of_ours_stood_is_looked_for_in_all_of_the_chain() -> None:
    watch = PlainWatch()
    own = ConnectionResetError(104, "reset")
    watch.own.append(own)
    error = RuntimeError()
    error.__cause__ = own
    end = watch.app_ended(102.0, error)
    assert departure_of(end).verdict.witnesses == (Witness.SEND,)
    assert not end.conduct.quiet
    watch = PlainWatch()
    watch.own.append(own := ConnectionResetError(104, "reset"))
    assert watch.app_ended(102.0, BaseExceptionGroup("", [own])).conduct.quiet


def test_after_the_end_a_watch_proves_nothing_any_more() -> None:
    watch = PlainWatch()
    watch.peer_gone(Witness.RECEIVE, 101.0)
    watch.app_ended(102.0)
    wrapper = type("ClientDisconnect", (Exception,), {"__module__": "starlette.requests"})()
    watch.own.append(late := ConnectionResetError(104, "reset"))
    assert watch.judge(wrapper).side is Side.UNKNOWN
    assert watch.judge(late).side is Side.UPSTREAM


# Cancellation, and this process itself.


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit()])
def test_who_is_cancelled_without_a_departure_was_ended_by_this_process(
    error: BaseException,
) -> None:
    end = PlainWatch().app_ended(102.0, error)
    assert not end.conduct.quiet
    assert departure_of(end).verdict == Verdict(
        side=Side.SERVER,
        phase=Phase.HANDLER,
        mechanism=Mechanism.CANCELLED,
        witnesses=(Witness.SERVER,),
    )


def test_who_is_cancelled_after_a_departure_was_left_by_the_client() -> None:
    watch = PlainWatch()
    watch.peer_gone(Witness.RECEIVE, 101.0)
    end = watch.app_ended(102.0, asyncio.CancelledError())
    assert departure_of(end).verdict.side is Side.CLIENT
    assert not end.conduct.quiet


def test_who_is_cancelled_behind_a_complete_response_has_lost_nothing() -> None:
    watch = PlainWatch()
    watch.respond()
    assert watch.app_ended(102.0, asyncio.CancelledError()).events == ()


def test_while_the_process_stops_it_is_the_servers_doing() -> None:
    watch = PlainWatch()
    watch.stopping = True
    error = ConnectionResetError(104, "reset")
    watch.peer_gone(Witness.RECEIVE, 101.0, error)
    end = watch.app_ended(102.0, error)
    assert end.conduct.quiet
    assert departure_of(end).verdict.side is Side.SERVER


# How long, and what was lost.


def test_wasted_seconds_count_from_the_departure() -> None:
    watch = PlainWatch()
    watch.peer_gone(Witness.RECEIVE, 101.0)
    watch.peer_gone(Witness.RECEIVE, 105.0)
    assert departure_of(watch.app_ended(107.5)).wasted_seconds == 6.5


def test_a_late_witness_does_not_know_when() -> None:
    watch = PlainWatch()
    watch.peer_gone(Witness.SERVER, 101.0, late=True)
    watch.peer_gone(Witness.RECEIVE, 102.0)
    assert departure_of(watch.app_ended(107.5)).wasted_seconds is None


def test_a_status_that_was_made_for_nobody_was_not_sent() -> None:
    watch = PlainWatch()
    watch.peer_gone(Witness.RECEIVE, 101.0)
    watch.respond(200, 10)
    event = departure_of(watch.app_ended(102.0))
    assert event.status is None
    assert event.bytes_out == 0


def test_a_response_that_had_begun_has_its_status() -> None:
    watch = PlainWatch()
    watch.respond(206, 10, 20, complete=False)
    watch.peer_gone(Witness.SEND, 101.0)
    watch.response_piece(40)
    event = departure_of(watch.app_ended(102.0))
    assert (event.status, event.bytes_out) == (206, 30)
    assert event.verdict.phase is Phase.RESPONSE_BODY


def undelivered(
    method: str = "POST", status: int = 201, *, begun: bool = False, fails: bool = False
) -> ClientDeparted:
    watch = PlainWatch(method)
    if begun:
        watch.respond(status, 10, complete=False)
    watch.peer_gone(Witness.RECEIVE, 101.0)
    watch.respond(status)
    return departure_of(watch.app_ended(102.0, ValueError() if fails else None))


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_an_unsafe_request_whose_answer_never_left_is_undelivered(method: str) -> None:
    event = undelivered(method)
    assert isinstance(event, ResponseUndelivered)
    assert event.status == 201


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "CONNECT", "WEBSOCKET"])
def test_a_safe_request_loses_nothing(method: str) -> None:
    assert type(undelivered(method)) is ClientDeparted


@pytest.mark.parametrize("status", [400, 404, 413, 500, 503])
def test_what_was_refused_was_not_carried_out(status: int) -> None:
    assert type(undelivered(status=status)) is ClientDeparted


@pytest.mark.parametrize("status", [200, 201, 204, 302, 399])
def test_below_400_it_was(status: int) -> None:
    assert type(undelivered(status=status)) is ResponseUndelivered


def test_an_answer_that_had_begun_was_heard() -> None:
    assert type(undelivered(begun=True)) is ClientDeparted


def test_who_fails_after_all_has_not_answered() -> None:
    assert type(undelivered(fails=True)) is ClientDeparted


def test_who_gives_up_without_an_answer_has_not_answered() -> None:
    watch = PlainWatch("POST")
    watch.peer_gone(Witness.RECEIVE, 101.0)
    assert type(departure_of(watch.app_ended(102.0))) is ClientDeparted


def test_a_response_that_failed_behind_its_completion_was_no_complete_one() -> None:
    watch = PlainWatch("POST")
    watch.code = 201
    watch.progress = COMPLETE
    watch.response_failed()
    assert watch.response_complete
    watch.peer_gone(Witness.SEND, 101.0, ConnectionResetError(104, "reset"))
    event = departure_of(watch.app_ended(102.0))
    # Its head was on its way: nobody knows whether it arrived.
    assert type(event) is ClientDeparted
    assert (event.status, event.verdict.phase) == (201, Phase.RESPONSE_START)


# Bodies that end too soon.


@pytest.mark.parametrize(
    ("status", "fails", "accepted"),
    [(200, False, True), (303, False, True), (400, False, False), (200, True, False)],
)
def test_a_truncated_upload_says_whether_it_was_accepted(
    status: int, fails: bool, accepted: bool
) -> None:
    watch = upload()
    watch.body_truncated(101.0)
    watch.respond(status)
    event = departure_of(watch.app_ended(102.0, ValueError() if fails else None))
    assert isinstance(event, TruncatedUpload)
    assert event.accepted is accepted
    assert (event.bytes_in, event.expected_in, event.status) == (5, 1000, status)
    assert event.verdict.mechanism is Mechanism.EOF
    assert event.verdict.phase is Phase.REQUEST_BODY


def test_a_truncated_upload_without_an_answer_was_not_accepted() -> None:
    watch = upload()
    watch.body_truncated(101.0)
    event = departure_of(watch.app_ended(102.0))
    assert isinstance(event, TruncatedUpload)
    assert not event.accepted


# Around it.


def test_listeners_hear_of_a_departure_before_anybody_logs() -> None:
    heard: list[int] = []

    def listener() -> None:
        heard.append(1)

    DEPARTURE_LISTENERS.append(listener)
    try:
        watch = PlainWatch()
        watch.respond()
        watch.peer_gone(Witness.RECEIVE, 101.0)
        assert not heard
        watch = PlainWatch()
        watch.peer_gone(Witness.RECEIVE, 101.0)
        assert heard
    finally:
        DEPARTURE_LISTENERS.remove(listener)


def test_a_handler_asks_about_its_own_request(entered: PlainWatch) -> None:
    assert current() is entered
    assert not client_gone()
    assert entered.asked == 1
    entered.peer_gone(Witness.RECEIVE, 101.0)
    assert client_gone()
    entered.app_ended(102.0)
    assert not client_gone()


def test_outside_of_a_request_nobody_has_left() -> None:
    assert current() is None
    assert not client_gone()


def test_another_thread_works_for_no_request(entered: PlainWatch) -> None:
    entered.peer_gone(Witness.RECEIVE, 101.0)
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(client_gone()))
    thread.start()
    thread.join()
    assert answers == [False]


def test_a_watch_leaves_nothing_to_the_cyclic_collector() -> None:
    def exchange() -> None:
        watch = PlainWatch("POST")
        token = CURRENT.set(watch)
        try:
            raise ConnectionResetError(104, "reset")
        except OSError as error:
            watch.peer_gone(Witness.SEND, 101.0, error)
            watch.app_ended(102.0, error)
        CURRENT.reset(token)

    exchange()
    gc.collect()
    exchange()
    assert gc.collect() == 0
