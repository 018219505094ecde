"""Any error that nested code can raise, and any course of an exchange: what always holds.

The errors are not put together by hand: the scripts are run, so that Python itself sets causes,
contexts and tracebacks.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cleanclose.core import (
    ClientDeparted,
    Event,
    Facts,
    Mechanism,
    Phase,
    Side,
    UpstreamReset,
    Verdict,
    Watch,
    Witness,
    fields_of,
)
from cleanclose.core.blame.judge import judge, mark, unmask
from cleanclose.core.blame.provenance import chain, leaves
from cleanclose.core.blame.watch import COMPLETE, GONE
from cleanclose.core.conduct import CONDUCT, Conduct, Treatment
from tests.harness.made import EXAMPLES

_KEY: Final = "this exchange"
_LEFT: Final = Verdict(
    side=Side.CLIENT,
    phase=Phase.RESPONSE_BODY,
    mechanism=Mechanism.RESET,
    witnesses=(Witness.SEND,),
)
_CUT: Final = Verdict(
    side=Side.SERVER,
    phase=Phase.HANDLER,
    mechanism=Mechanism.CANCELLED,
    witnesses=(Witness.SERVER,),
)


class BoomError(Exception):
    """The application's own."""


_WRAPPER: Final = type(
    "ClientDisconnect",
    (Exception,),
    {"__module__": "starlette.requests", "__qualname__": "ClientDisconnect"},
)

Script = tuple[Any, ...]
"""A leaf (``("boom",)``), or code around other scripts (``("finally", first, second)``)."""


def _reset() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


def _clients(exchange: str) -> ConnectionResetError:
    error = _reset()
    mark(error, _LEFT, exchange)
    return error


_LEAVES: Final[dict[str, Callable[[], Exception]]] = {
    "client": lambda: _clients(_KEY),
    "foreign": lambda: _clients("another exchange"),
    "wrapper": _WRAPPER,
    "upstream": _reset,
    "boom": BoomError,
    "stop": StopIteration,
}
_OWN: Final = (BoomError, ConnectionResetError)


def _run(script: Script) -> None:
    """Raise what the script raises; every script raises something."""
    match script:
        case ("from", first, second):
            try:
                _run(first)
            except Exception as cause:
                raise _LEAVES[second]() from cause
        case ("from none", first, second):
            try:
                _run(first)
            except Exception:  # noqa: BLE001 - as careless as code is
                raise _LEAVES[second]() from None
        case ("except", first, second):
            try:
                _run(first)
            except Exception:  # noqa: BLE001 - as careless as code is
                _run(second)
        case ("finally", first, second):
            try:
                _run(first)
            finally:
                _run(second)
        case ("again", first):
            try:
                _run(first)
            except Exception:
                raise
        case ("group", held):
            raise ExceptionGroup("several", [_caught(each) for each in held])
        case (leaf,):
            raise _LEAVES[leaf]()
        case _:
            raise AssertionError(script)


def _caught(script: Script) -> Exception:
    try:
        _run(script)
    except Exception as error:  # noqa: BLE001 - whatever the script raises
        return error
    raise AssertionError("nothing was raised")


def _scripts(names: tuple[str, ...]) -> st.SearchStrategy[Script]:
    name = st.sampled_from(names)
    return st.recursive(
        st.tuples(name),
        lambda inner: st.one_of(
            st.tuples(st.sampled_from(["from", "from none"]), inner, name),
            st.tuples(st.sampled_from(["except", "finally"]), inner, inner),
            st.tuples(st.just("again"), inner),
            st.tuples(st.just("group"), st.lists(inner, min_size=1, max_size=3).map(tuple)),
        ),
        max_leaves=7,
    )


def _reachable(error: BaseException) -> list[BaseException]:
    return list(chain(error, lambda _: True))


def _flat(error: BaseException) -> Iterator[BaseException]:
    held = leaves(error)
    if not held:
        yield error
    for each in held:
        yield from _flat(each)


def _shape(error: BaseException) -> list[tuple[int, ...]]:
    return [
        (id(each), id(each.__cause__), id(each.__context__), each.__suppress_context__)
        for each in _reachable(error)
    ]


_DEPARTURES: Final = st.sampled_from([None, _LEFT, _CUT])
_MANY: Final = settings(max_examples=EXAMPLES, deadline=None)


class TestAnyOrderOfErrors:
    @_MANY
    @given(_scripts(tuple(_LEAVES)), _DEPARTURES)
    def test_nothing_is_hidden(self, script: Script, departure: Verdict | None) -> None:
        error = _caught(script)
        before = _shape(error)
        verdict = judge(error, departure, Phase.HANDLER, _KEY)
        shown = unmask(error, departure, _KEY)
        assert _shape(error) == before, "judging has changed the error"
        assert judge(error, departure, Phase.HANDLER, _KEY) == verdict
        if verdict.side in (Side.CLIENT, Side.SERVER):
            assert verdict.witnesses
            assert verdict == (departure or verdict)
            assert shown is error
            for leaf in _flat(error):
                word = departure is not None and isinstance(leaf, _WRAPPER)
                assert word or "__cleanclose_departure__" in vars(leaf)
            for each in _reachable(error):
                own = isinstance(each, _OWN) and "__cleanclose_departure__" not in vars(each)
                assert not own, f"{each!r} is hidden"
        if shown is not error:
            found = _reachable(error)
            assert all(each in found for each in _flat(shown))
            assert judge(shown, departure, Phase.HANDLER, _KEY).side not in (
                Side.CLIENT,
                Side.SERVER,
            )
        if verdict.side is Side.UPSTREAM:
            assert any(
                isinstance(each, ConnectionResetError)
                and "__cleanclose_departure__" not in vars(each)
                for each in _reachable(error)
            )

    @_MANY
    @given(_scripts(("client",)), _DEPARTURES)
    def test_what_is_all_the_clients_is_quiet(
        self, script: Script, departure: Verdict | None
    ) -> None:
        error = _caught(script)
        side = judge(error, departure, Phase.HANDLER, _KEY).side
        assert side is (Side.CLIENT if departure is None else departure.side)
        assert unmask(error, departure, _KEY) is error

    @_MANY
    @given(_scripts(("boom", "foreign", "stop", "upstream")), _DEPARTURES)
    def test_without_an_error_of_the_clients_none_is_the_clients(
        self, script: Script, departure: Verdict | None
    ) -> None:
        error = _caught(script)
        side = judge(error, departure, Phase.HANDLER, _KEY).side
        assert side in (Side.UPSTREAM, Side.UNKNOWN)
        assert unmask(error, departure, _KEY) is error


class _Watched(Watch):
    """A shim's watch, with nothing around it."""

    code: int | None = None
    treated: Treatment = Treatment.SHOWN

    @property
    def status(self) -> int | None:
        return self.code

    def facts(self) -> Facts:
        return Facts(framework="test", server="test", method="POST")

    def treatment(self, error: BaseException, side: Side) -> Treatment:
        return self.treated


class ExchangeEndMachine(RuleBasedStateMachine):
    """One exchange, from its witnesses to its end: at most one departure, and none invented."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.watch = _Watched(self.now)
        self.watch.body_complete = False
        self.first: Verdict | None = None
        self.events: list[Event] = []
        self.complete_before_departure = False
        self.ends = 0

    def _seen(self) -> None:
        if self.first is None:
            self.first = self.watch.departure

    @rule(size=st.sampled_from([0, 1, 1000]), last=st.booleans())
    def body(self, size: int, last: bool) -> None:
        self.watch.bytes_in += size
        self.watch.body_complete = self.watch.body_complete or last

    @precondition(lambda self: self.watch.code is None)
    @rule(status=st.sampled_from([200, 204, 413, 500]))
    def head(self, status: int) -> None:
        self.watch.code = status

    @precondition(lambda self: self.watch.code is not None and not self.watch.response_complete)
    @rule(size=st.sampled_from([0, 1, 1000]), last=st.booleans())
    def response(self, size: int, last: bool) -> None:
        if last:
            self.watch.response_completed()
        else:
            self.watch.response_piece(size)

    @rule()
    def response_fails(self) -> None:
        self.watch.response_failed()

    @rule(
        witness=st.sampled_from(Witness),
        mechanism=st.sampled_from([None, *Mechanism]),
        raises=st.booleans(),
        late=st.booleans(),
    )
    def leaves(
        self, witness: Witness, mechanism: Mechanism | None, raises: bool, late: bool
    ) -> None:
        complete = self.watch.progress == COMPLETE
        error = _reset() if raises else None
        self.watch.peer_gone(witness, self.now, error, mechanism, late=late)
        assert not complete or self.watch.departure is self.first
        if error is not None and not self.watch.ended and not complete:
            assert self.watch.judge(error).side in (Side.CLIENT, Side.SERVER)
        self._seen()

    @rule(raises=st.booleans())
    def body_is_cut(self, raises: bool) -> None:
        self.watch.body_truncated(self.now, _reset() if raises else None)
        self._seen()

    @rule()
    def process_stops(self) -> None:
        self.watch.stopping = True

    @rule(seconds=st.sampled_from([0.0, 0.001, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        script=st.one_of(st.none(), _scripts(("boom", "wrapper", "upstream", "stop"))),
        cancelled=st.booleans(),
        treated=st.sampled_from(Treatment),
    )
    def ends_with(self, script: Script | None, cancelled: bool, treated: Treatment) -> None:
        self.watch.treated = treated
        error: BaseException | None = None if script is None else _caught(script)
        if cancelled:
            error = asyncio.CancelledError()
        before = self.watch.departure
        end = self.watch.app_ended(self.now, error)
        self._seen()
        self.ends += 1
        self.events += end.events
        if error is None:
            assert end.conduct == Conduct()
            assert end.error is None
        elif cancelled:
            assert end.error is error
            assert end.conduct == Conduct()
        else:
            assert end.error is not None
            side = judge(end.error, before, self.watch.phase, self.watch.key).side
            if before is not None and self.ends == 1:
                assert end.conduct == CONDUCT[side, treated]
            told = [event for event in end.events if isinstance(event, UpstreamReset)]
            assert len(told) == end.conduct.told
            assert not (end.conduct.quiet and told)
            if any(isinstance(each, BoomError) for each in _flat(end.error)):
                assert not end.conduct.quiet

    @invariant()
    def what_was_seen_first_stands(self) -> None:
        departure = self.watch.departure
        if self.first is None:
            assert departure is None
            return
        assert departure is not None
        assert departure.side is self.first.side
        assert departure.phase is self.first.phase
        assert departure.witnesses[: len(self.first.witnesses)] == self.first.witnesses
        assert self.first.mechanism in (Mechanism.UNKNOWN, departure.mechanism)
        assert len(set(departure.witnesses)) == len(departure.witnesses)
        assert self.watch.progress in (GONE, COMPLETE)

    @invariant()
    def one_departure_is_one_event(self) -> None:
        departures = [event for event in self.events if isinstance(event, ClientDeparted)]
        assert len(departures) <= 1
        for event in departures:
            assert event.verdict.witnesses
            assert event.age_ms >= 0
            assert event.bytes_out is None or 0 <= event.bytes_out <= self.watch.bytes_out
            assert event.wasted_seconds is None or event.wasted_seconds > 0
            assert fields_of(event.verdict)

    def teardown(self) -> None:
        """A departure that was seen while the exchange went on is an event in the end."""
        if self.ends == 0:
            self.events += self.watch.app_ended(self.now).events
            departures = [event for event in self.events if isinstance(event, ClientDeparted)]
            assert len(departures) == (self.first is not None)


TestAnyOrderOfAnExchange = ExchangeEndMachine.TestCase
TestAnyOrderOfAnExchange.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=20, deadline=None
)
