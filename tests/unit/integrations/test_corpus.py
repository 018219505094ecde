"""The filter's rules, replayed on what real servers have logged: nothing of another's is lowered.

The corpus lies outside of the repository, beside a checkout. What cannot be replayed is
identity: whose socket, whose stream, whose transport it was. What stands in for it here is what
the probes of the corpus wrote down which stood where our witnesses stand, around ``receive`` and
``send``, ``wsgi.input`` and the write callable, and never the label of a case.
"""

from __future__ import annotations

import ast
import builtins
import functools
import gzip
import json
import logging
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any, Final, NamedTuple

import pytest

from cleanclose.core import Facts, Mechanism, Phase, Side, Verdict, Watch, Witness
from cleanclose.core.blame.judge import mark
from cleanclose.core.blame.watch import CURRENT
from cleanclose.quiet import QuietLogs
from tests.harness.paths import ROOT

CORPUS: Final = ROOT.parent / "shared" / "corpus" / "departures.jsonl.gz"

pytestmark = pytest.mark.skipif(
    not CORPUS.exists(), reason="the corpus (../shared/corpus) is not beside this checkout"
)

DISCONNECTS: Final = frozenset({"http.disconnect", "websocket.disconnect"})
PROBES: Final = frozenset({"asgi.receive", "asgi.send", "wsgi.input.read"})
WRITE_PROBE: Final = "handler.write"
"""In raw WSGI apps: around the write callable. Elsewhere: around methods of frameworks."""

GONE: Final = Verdict(
    side=Side.CLIENT,
    phase=Phase.RESPONSE_BODY,
    mechanism=Mechanism.RESET,
    witnesses=(Witness.RECEIVE,),
)

LEVELS: Final = logging.getLevelNamesMapping()

Entry = Mapping[str, Any]


class Replay(NamedTuple):
    """One log record of the corpus, and the case that it is from."""

    case: Entry
    entry: Entry

    @property
    def truth(self) -> str:
        return str(self.entry["truth"])

    def __str__(self) -> str:
        case, entry = self.case, self.entry
        return f"{case['id']} {case['server']} {case['phase']}: {entry['logger']} {entry['msg']!r}"


@functools.cache
def replays() -> tuple[Replay, ...]:
    """All records at WARNING or above."""
    with gzip.open(CORPUS, "rt", encoding="utf-8") as lines:
        cases: list[Entry] = [json.loads(line) for line in lines]
    return tuple(
        Replay(case, entry)
        for case in cases
        for entry in case["records"]
        if LEVELS.get(entry["level"], 0) >= logging.WARNING
    )


class ReplayedWatch(Watch):
    """An exchange's watch that has seen what the probes have seen."""

    def __init__(self, departure: Verdict | None) -> None:
        super().__init__(0.0)
        self.departure = departure

    @property
    def status(self) -> int | None:
        return 200

    def facts(self) -> Facts:
        return Facts(framework="test", server="test", method="GET")


# Exceptions with the recorded classes.


@functools.cache
def class_of(mro: tuple[str, ...]) -> type[BaseException]:
    """A class with these ancestors, by module and name."""
    module, _, name = mro[0].rpartition(".")
    if not module:
        known = getattr(builtins, name, None)
        if isinstance(known, type):
            return known
    bases: list[type[BaseException]] = []
    for index, ancestor in enumerate(mro[1:], 1):
        base = getattr(builtins, ancestor, None) or class_of(mro[index:])
        if not any(issubclass(other, base) for other in bases):
            bases.append(base)
            if "." in ancestor:
                # It has the rest of them itself.
                break
    return type(name, tuple(bases), {"__module__": module, "__qualname__": name})


def rebuilt(
    recorded: Entry,
    is_marked: Callable[[Entry], bool],
    above: tuple[tuple[Entry, BaseException], ...] = (),
) -> BaseException:
    """An exception with the recorded class, arguments, errno, causes, contexts and leaves."""
    if recorded.get("cut"):
        # A chain that leads back to itself.
        return next(
            error
            for each, error in above
            if (each["type"], each["str"]) == (recorded["type"], recorded["str"])
        )
    if "leaves" in recorded:
        error: BaseException = Group(recorded["str"], [ValueError()])
    else:
        cls = class_of(tuple(recorded["mro"]))
        error = cls.__new__(cls)
        error.args = arguments_of(recorded)
        if isinstance(error, OSError):
            error.errno = recorded["errno"]
    above = (*above, (recorded, error))

    def rebuild(name: str) -> BaseException | None:
        each = recorded.get(name)
        return None if each is None else rebuilt(each, is_marked, above)

    if isinstance(error, Group):
        error.held = tuple(rebuilt(leaf, is_marked, above) for leaf in recorded["leaves"])
    error.__cause__ = rebuild("cause")
    error.__context__ = rebuild("context")
    error.__suppress_context__ = bool(recorded.get("suppress_context"))
    error.__traceback__ = traceback_of(recorded.get("frames") or ())
    if is_marked(recorded):
        mark(error, GONE)
    return error


def traceback_of(frames: Sequence[Entry]) -> TracebackType | None:
    """A traceback through code of the recorded modules and functions."""
    found: TracebackType | None = None
    for each in reversed(frames):
        function = str(each["func"]).rpartition(".")[2]
        frame = frame_of(str(each["file"]), function)
        found = TracebackType(found, frame, 0, each["line"])
    return found


@functools.cache
def frame_of(file: str, function: str) -> FrameType:
    """A frame of a function in one of the recorded files."""
    kind, _, path = file.rpartition(":")
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    folder = sysconfig.get_path("stdlib") if kind == "stdlib" else "/somewhere"
    code = compile("frame = sys._getframe()", f"{folder}/{path}", "exec").replace(co_name=function)
    names: dict[str, Any] = {"__name__": module, "sys": sys}
    exec(code, names)
    frame: FrameType = names["frame"]
    return frame


class Group(BaseExceptionGroup[BaseException]):
    """A group that can hold what is made after it."""

    held: tuple[BaseException, ...] = ()

    @property
    def exceptions(self) -> tuple[BaseException, ...]:
        return self.held


def arguments_of(recorded: Entry) -> tuple[object, ...]:
    try:
        arguments: tuple[object, ...] = ast.literal_eval(recorded["args"])
    except (ValueError, SyntaxError):
        # A class's own notation is in them.
        return (recorded["str"],)
    return arguments


# What the witnesses saw.


def seen_by_probes(case: Entry, pid: object) -> Iterator[Entry]:
    """What passed where our witnesses stand, in this process."""
    for seen in case["app_exceptions"]:
        where = seen["where"]
        is_probe = where in PROBES or (where == WRITE_PROBE and case["app"].startswith("raw-wsgi"))
        error = part(seen, "exc")
        if seen.get("pid") == pid and is_probe and "OSError" in error.get("mro", ()):
            yield error


def part(entry: Entry, name: str) -> Entry:
    value: Entry | None = entry.get(name)
    return value or {}


def departure_of(case: Entry, pid: object) -> Verdict | None:
    """What the exchange's witnesses would have said."""
    for seen in case["app_exceptions"]:
        if seen.get("pid") == pid and part(seen, "event").get("type") in DISCONNECTS:
            return GONE
    return GONE if any(seen_by_probes(case, pid)) else None


def is_same(recorded: Entry, seen: Entry) -> bool:
    """Whether an exception in a record is one that passed a probe: the probe saw its inner half."""

    def of(frame: Entry) -> tuple[object, ...]:
        return (frame["file"], frame["func"], frame["line"])

    outer, inner = [[of(f) for f in each.get("frames") or ()] for each in (recorded, seen)]
    return (
        recorded["type"] == seen["type"]
        and recorded["str"] == seen["str"]
        and bool(inner)
        and outer[-len(inner) :] == inner
    )


# The replay.


def is_lowered(
    replay: Replay, *, departure: Verdict | None = None, provenance: bool = False
) -> bool:
    """Let the filter look at a record, in an exchange with this departure.

    Args:
        replay: The record.
        departure: What the exchange's witnesses say.
        provenance: Whether what passed the probes is marked.
    """
    entry = replay.entry
    seen = list(seen_by_probes(replay.case, entry["pid"])) if provenance else []

    def is_marked(recorded: Entry) -> bool:
        return any(is_same(recorded, each) for each in seen)

    def rebuild(recorded: Entry | None) -> BaseException | None:
        return None if recorded is None else rebuilt(recorded, is_marked)

    error = rebuild(entry.get("exc"))
    record = logging.LogRecord(
        name=entry["logger"],
        level=LEVELS[entry["level"]],
        pathname="anywhere",
        lineno=1,
        msg=entry["msg"] if entry.get("msg") is not None else entry["message"],
        args=tuple(filter(None, map(rebuild, entry.get("args_exc") or ()))),
        exc_info=None if error is None else (type(error), error, None),
    )
    token = CURRENT.set(ReplayedWatch(departure))
    try:
        active = error if entry.get("active_is_exc_info") else rebuild(entry.get("active_exc"))
        if active is None:
            QuietLogs().filter(record)
        else:
            try:
                raise active
            except BaseException:  # noqa: BLE001 - it is what was being handled
                QuietLogs().filter(record)
    finally:
        CURRENT.reset(token)
    assert (record.levelno < logging.WARNING) == hasattr(record, "original_level")
    return record.levelno < logging.WARNING


def lowered(found: Sequence[Replay], **how: Any) -> list[str]:
    return [str(replay) for replay in found if is_lowered(replay, **how)]


def others() -> list[Replay]:
    """What is not the client's: by what the driver did, and by the event's own truth.

    In cases where the client has left as well, an event's truth was read off its traceback; what
    is the client's by that is not counted here, and neither for the client's below.
    """
    return [
        replay
        for replay in replays()
        if replay.case["label"] != "client" and replay.truth != "client"
    ]


def test_the_corpus_is_the_one_that_was_measured() -> None:
    assert len(others()) > 900
    assert Counter(replay.case["label"] for replay in others()).keys() == {"upstream", "other"}


def test_nothing_of_anothers_is_lowered() -> None:
    assert lowered(others()) == []


def test_nothing_of_anothers_is_lowered_with_what_the_witnesses_saw() -> None:
    for replay in others():
        departure = departure_of(replay.case, replay.entry["pid"])
        assert not is_lowered(replay, departure=departure, provenance=True), str(replay)


@pytest.mark.parametrize("side", [Side.CLIENT, Side.SERVER])
def test_nothing_of_anothers_is_lowered_although_the_client_has_left_as_well(side: Side) -> None:
    departure = Verdict(side=side, phase=GONE.phase, witnesses=GONE.witnesses)
    assert lowered(others(), departure=departure, provenance=True) == []


def clients() -> list[Replay]:
    return [replay for replay in replays() if replay.case["label"] == "client"]


def share(found: Sequence[Replay]) -> tuple[int, int]:
    lowered_ = sum(
        is_lowered(
            replay,
            departure=departure_of(replay.case, replay.entry["pid"]),
            provenance=True,
        )
        for replay in found
    )
    return lowered_, len(found)


NEEDS_IDENTITY: Final = frozenset({"tornado.application", "tornado.general"})
"""Whether a StreamClosedError is of the request's own stream is nowhere in a record."""
NO_SHIM: Final = ("aiohttp", "asyncio-streams", "websockets")
"""Servers with an interface of their own."""


def test_half_of_the_clients_is_lowered_without_anything_alive() -> None:
    """The rest needs a live stream, the call stack or a shim: docs/quiet-logs.md."""
    assert share(clients()) == (78, 156)


def test_most_of_them_where_a_record_can_show_what_the_witnesses_saw() -> None:
    found = [
        replay
        for replay in clients()
        if not replay.case["server"].startswith(NO_SHIM)
        and replay.entry["logger"] not in NEEDS_IDENTITY
        and "exc" in replay.entry
    ]
    assert share(found) == (78, 82)


def test_what_the_application_raised_of_it_is_the_applications() -> None:
    found = [replay for replay in clients() if replay.case["phase"] == "wrap:body"]
    assert found
    for replay in found:
        assert not is_lowered(replay, departure=GONE, provenance=True)
