"""Who has closed a connection, and what that says of its exchange."""

from __future__ import annotations

import errno
import itertools

import pytest

from cleanclose.core import (
    ClientDeparted,
    Event,
    Facts,
    Mechanism,
    Phase,
    Settings,
    Side,
    UpstreamReset,
    Watch,
    Witness,
)
from cleanclose.core.blame.closing import (
    Closed,
    Closer,
    ClosingWatch,
    idle_verdict,
    left_by,
    read_closing,
)
from cleanclose.core.blame.judge import marked
from cleanclose.core.blame.watch import CURRENT
from cleanclose.core.deliver.places import Places
from cleanclose.core.setup import Setup
from cleanclose.core.tell.reporter import Reporter

RESET = ConnectionResetError(errno.ECONNRESET, "reset")
LIMIT = ValueError("a line that is too long")


def read(
    closer: Closer,
    error: object = None,
    *,
    whole: bool = False,
    said_goodbye: bool = False,
    mechanism: Mechanism | None = None,
) -> Closed:
    return read_closing(closer, error, whole=whole, said_goodbye=said_goodbye, mechanism=mechanism)


def test_the_streams_own_end_is_the_peers() -> None:
    seen = read(Closer.STREAM)
    assert seen == Closed(witness=Witness.STREAM, mechanism=Mechanism.EOF)
    assert left_by(Closer.STREAM, None) is Mechanism.EOF


def test_an_error_of_the_socket_is_the_peers() -> None:
    assert read(Closer.STREAM, RESET) == Closed(witness=Witness.STREAM, error=RESET)
    assert left_by(Closer.STREAM, RESET) is Mechanism.RESET


def test_behind_a_whole_response_it_is_no_departure() -> None:
    seen = read(Closer.STREAM, RESET, whole=True)
    assert seen == Closed(error=RESET, idle=True)
    verdict = idle_verdict(RESET)
    assert (verdict.side, verdict.phase) == (Side.CLIENT, Phase.KEEPALIVE_IDLE)
    assert verdict.mechanism is Mechanism.RESET


def test_a_limit_of_the_streams_own_is_no_departure() -> None:
    assert read(Closer.STREAM, LIMIT) == Closed()
    assert left_by(Closer.STREAM, LIMIT) is None


def test_who_has_said_goodbye_had_finished() -> None:
    assert read(Closer.STREAM, said_goodbye=True).completed
    assert not read(Closer.STREAM).completed


@pytest.mark.parametrize("mechanism", [Mechanism.ABORTED, Mechanism.TIMEOUT])
def test_a_server_that_closes_is_the_servers_side(mechanism: Mechanism) -> None:
    seen = read(Closer.SERVER, mechanism=mechanism)
    assert seen == Closed(witness=Witness.SERVER, mechanism=mechanism, stopping=True)


def test_an_applications_own_close_says_nothing() -> None:
    assert read(Closer.APPLICATION, RESET) == Closed()


def test_what_nobody_can_know_is_no_departure() -> None:
    assert read(Closer.UNSEEN, RESET) == Closed(completed=True)


@pytest.mark.parametrize(
    ("closer", "error"),
    list(itertools.product(sorted(set(Closer) - {Closer.STREAM}, key=str), [None, RESET, LIMIT])),
)
def test_only_the_stream_itself_shows_how_the_peer_left(closer: Closer, error: object) -> None:
    assert left_by(closer, error) is None


class Counting(Reporter):
    """A reporter that remembers which samples are over."""

    def __init__(self, events: list[Event]) -> None:
        super().__init__([events.append])
        self.over: list[Watch] = []

    def request_over(self, watch: Watch) -> None:
        self.over.append(watch)


class Seen(ClosingWatch):
    """A shim's watch, with nothing around it."""

    def __init__(self) -> None:
        super().__init__(100.0)
        self.events: list[Event] = []
        self.reporter = Counting(self.events)
        self.setup = Setup(settings=Settings(), places=Places(1), reporter=self.reporter)

    def facts(self) -> Facts:
        return Facts(framework="test", server="test", method="GET")

    def closes(
        self,
        closer: Closer = Closer.STREAM,
        error: object = None,
        *,
        unsent: bool = False,
        none_sent: bool = False,
        said_goodbye: bool | None = None,
    ) -> None:
        """Its connection has been closed."""
        self.connection_closed(
            closer,
            error,
            101.0,
            mechanism=Mechanism.ABORTED if closer is Closer.SERVER else None,
            unsent=unsent,
            none_sent=none_sent,
            said_goodbye=said_goodbye,
        )

    @property
    def departures(self) -> list[tuple[Phase, Mechanism, Side]]:
        """The departures that have been reported."""
        verdicts = [each.verdict for each in self.events if isinstance(each, ClientDeparted)]
        return [(each.phase, each.mechanism, each.side) for each in verdicts]


def answered(status: int = 200, size: int = 5) -> Seen:
    """An exchange whose application has finished its response."""
    watch = Seen()
    watch.response_begins(status, failed=False)
    watch.response_piece(size)
    watch.response_over(100.5, None)
    return watch


def test_a_whole_response_and_then_the_end_is_no_event() -> None:
    watch = answered()
    watch.closes()
    assert watch.events == []
    assert not watch.ended


def test_a_whole_response_that_is_unsent_is_a_departure_in_it() -> None:
    watch = answered()
    watch.closes(error=RESET, unsent=True)
    assert watch.departures == [(Phase.RESPONSE_BODY, Mechanism.RESET, Side.CLIENT)]
    assert marked(RESET) is not None


def test_a_response_of_which_nothing_left_had_not_begun_for_its_peer() -> None:
    watch = answered()
    watch.closes(error=RESET, unsent=True, none_sent=True)
    assert watch.departures == [(Phase.HANDLER, Mechanism.RESET, Side.CLIENT)]
    # For the application it has.
    assert watch.status == 200


def test_who_leaves_while_the_application_works_is_told_of_when_it_is_done() -> None:
    watch = Seen()
    watch.closes()
    assert watch.events == []
    watch.response_begins(200, failed=False)
    watch.response_over(102.0, None)
    assert watch.departures == [(Phase.HANDLER, Mechanism.EOF, Side.CLIENT)]


def test_a_departure_is_told_of_once() -> None:
    watch = answered()
    watch.closes(error=RESET, unsent=True)
    watch.closes(error=RESET, unsent=True)
    watch.response_over(103.0, None)
    watch.end(104.0)
    assert len(watch.events) == 1


def test_a_server_that_stops_is_the_side_of_the_departure() -> None:
    watch = Seen()
    watch.closes(Closer.SERVER)
    watch.end(102.0)
    assert watch.departures == [(Phase.HANDLER, Mechanism.ABORTED, Side.SERVER)]


def test_an_error_page_does_not_say_how_far_the_application_had_come() -> None:
    watch = Seen()
    watch.response_begins(500, failed=True)
    watch.response_piece(5)
    assert watch.phase is Phase.HANDLER


def test_an_error_that_the_server_answers_is_judged_when_the_response_is_over() -> None:
    watch = Seen()
    watch.response_begins(500, failed=True)
    error = ConnectionResetError(errno.ECONNRESET, "an upstream's")
    watch.response_over(101.0, error)
    (event,) = watch.events
    assert isinstance(event, UpstreamReset)
    assert event.exception is error
    assert watch.ended


def test_an_early_sample_is_over_once() -> None:
    watch = Seen()
    watch.is_sample = True
    watch.response_begins(413, failed=False)
    # For the application, and when it is on its way.
    watch.response_over(101.0, None)
    watch.response_over(102.0, None)
    assert watch.reporter.over == [watch]


def opened() -> Seen:
    """An open websocket."""
    watch = Seen()
    watch.is_websocket = True
    watch.response_begins(101, failed=False)
    watch.response_over(100.5, None)
    return watch


def test_a_websocket_goes_on_after_its_request_and_its_departure() -> None:
    watch = opened()
    watch.closes(said_goodbye=False)
    assert watch.departures == [(Phase.WEBSOCKET, Mechanism.EOF, Side.CLIENT)]
    # Its handler may still ask.
    assert not watch.ended
    watch.end(105.0)
    assert len(watch.events) == 1


def test_a_websocket_that_has_said_goodbye_is_no_departure() -> None:
    watch = opened()
    watch.closes(said_goodbye=True)
    assert watch.events == []


def test_a_request_for_an_upgrade_that_gets_a_plain_answer_is_a_request() -> None:
    watch = Seen()
    watch.is_websocket = True
    watch.response_begins(403, failed=False)
    assert watch.phase is Phase.RESPONSE_START


@pytest.mark.parametrize("own", [True, False])
def test_a_websockets_error_is_the_clients_in_its_own_handler_only(own: bool) -> None:
    watch = opened()
    watch.closes(said_goodbye=False)
    lost, error = ConnectionResetError(errno.ECONNRESET, "lost"), RuntimeError("closed")
    before = CURRENT.set(watch if own else None)
    try:
        watch.websocket_call_failed(error, lost, 102.0)
    finally:
        CURRENT.reset(before)
    assert [marked(each) is not None for each in (error, lost)] == [own, own]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConnectionResetError(errno.ECONNRESET, "an upstream's"), 1),
        (ValueError("anything else, which the server has logged"), 0),
        (KeyboardInterrupt(), 0),
        (None, 0),
    ],
)
def test_of_what_a_callback_raises_an_upstreams_is_an_event(
    error: BaseException | None, told: int
) -> None:
    watch = opened()
    watch.callback_failed(error, 101.0)
    assert [type(event) for event in watch.events] == [UpstreamReset] * told
    assert not watch.ended


@pytest.mark.parametrize("gone", [False, True])
def test_a_connection_that_its_application_has_taken_over_is_no_longer_ours(gone: bool) -> None:
    watch = Seen()
    if gone:
        watch.peer_gone(Witness.STREAM, 100.5, mechanism=Mechanism.RESET)
    watch.taken_over(101.0)
    assert (watch.ended, watch.response_complete) == (True, not gone)
    assert len(watch.departures) == gone


def test_who_has_left_a_websocket_before_its_answer_has_not_left_a_request() -> None:
    watch = Seen()
    watch.is_websocket = True
    watch.closes(said_goodbye=False)
    watch.response_begins(403, failed=False)
    assert watch.phase is Phase.WEBSOCKET


def test_an_exchange_that_is_over_is_no_sample_any_more() -> None:
    watch = Seen()
    watch.is_sample = True
    watch.end(101.0)
    watch.response_over(102.0, None)
    assert watch.reporter.over == []


def test_while_nobody_has_left_a_websockets_error_is_the_applications() -> None:
    watch = opened()
    error = RuntimeError("sent behind the end")
    before = CURRENT.set(watch)
    try:
        watch.websocket_call_failed(error, None, 102.0)
    finally:
        CURRENT.reset(before)
    assert marked(error) is None
    assert watch.departure is None
