"""The verdict for a log record: whose departure it is about, if it is about one.

Records that frameworks, servers and asyncio log by themselves never pass a middleware. This module
says what a record must show before its level may be lowered.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import ssl
import sys
import traceback
from collections.abc import Iterable, Mapping
from types import FrameType
from typing import Final

from cleanclose.core.blame.judge import judge, unmask
from cleanclose.core.blame.provenance import LOST_ERRNOS, frames_of, package_of
from cleanclose.core.blame.watch import Watch, current
from cleanclose.core.events import Mechanism, Phase, Side, Verdict, Witness

__all__ = [
    "Lines",
    "errors_in",
    "fields_of",
    "own_error",
    "verdict_of_errors",
    "verdict_of_record",
]

_AT_MOST_FRAMES: Final = 64


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Lines:
    """What we know about the lines on one logger, besides the exceptions that they carry.

    Args:
        writes_in_vain: Texts that say that somebody has written to a lost connection several times,
            but not whose connection it is.
        while_handling: Texts about the exception that is being handled.
        in_a_handshake: The packages between a server and a connection that it has just accepted, if
            the server, or the loop under it, logs a failed handshake like any other error.
        of_a_cut_body: How a framework's messages begin about a request whose body it could not read
            to the end, if it logs them without the exception.
        anywhere: Whether it is the logger for work that nobody has waited for. Python collects such
            work, and logs it, in the middle of any exchange.
    """

    writes_in_vain: frozenset[str] = frozenset()
    while_handling: frozenset[str] = frozenset()
    in_a_handshake: frozenset[str] = frozenset()
    of_a_cut_body: frozenset[str] = frozenset()
    anywhere: bool = False

    def __or__(self, other: Lines) -> Lines:
        """Join what two rooms know about one logger's lines."""
        return Lines(
            writes_in_vain=self.writes_in_vain | other.writes_in_vain,
            while_handling=self.while_handling | other.while_handling,
            in_a_handshake=self.in_a_handshake | other.in_a_handshake,
            of_a_cut_body=self.of_a_cut_body | other.of_a_cut_body,
            anywhere=self.anywhere or other.anywhere,
        )


_PLAIN: Final = Lines()

_HANDSHAKE_BROKEN_OFF: Final = Verdict(
    side=Side.CLIENT,
    phase=Phase.TLS_HANDSHAKE,
    mechanism=Mechanism.RESET,
    witnesses=(Witness.SOCKET,),
)


def verdict_of_record(record: logging.LogRecord, lines: Lines = _PLAIN) -> Verdict | None:
    """The departure that a record is about, if it is about nothing else.

    Call it inside the call that logs: the call stack and the live exception are its proofs.

    Args:
        record: The record, which stays as it is.
        lines: What we know about its logger's lines.

    Returns:
        A verdict with `Side.CLIENT` or `Side.SERVER`; None for every other record.
    """
    errors = list(errors_in(record))
    if errors:
        if all(_is_broken_handshake(error, lines.in_a_handshake) for error in errors):
            return _HANDSHAKE_BROKEN_OFF
        return verdict_of_errors(errors, anywhere=lines.anywhere)
    if not isinstance(record.msg, str):
        return None
    if record.msg in lines.writes_in_vain:
        return _verdict_of_write()
    if lines.of_a_cut_body and record.getMessage().startswith(tuple(lines.of_a_cut_body)):
        return _verdict_of_cut_body()
    error = sys.exception()
    if error is None:
        return None
    if _is_broken_handshake(error, lines.in_a_handshake):
        return _HANDSHAKE_BROKEN_OFF
    verdict = verdict_of_errors([error])
    if verdict is None or record.msg in lines.while_handling:
        return verdict
    return verdict if _shows(record.getMessage(), error) else None


def verdict_of_errors(errors: Iterable[BaseException], *, anywhere: bool = False) -> Verdict | None:
    """The departure that all of these errors come from.

    Args:
        errors: Exceptions that are logged together.
        anywhere: Whether they may belong to an exchange other than the current one.

    Returns:
        The first error's verdict, with `Side.CLIENT` or `Side.SERVER`; None if there is no error,
        or if one of them is, or may be, something else.
    """
    watch = current()
    first: Verdict | None = None
    for error in errors:
        verdict = _verdict_of(error, watch)
        if anywhere and verdict.side not in (Side.CLIENT, Side.SERVER):
            verdict = judge(error, None, Phase.HANDLER)
        if verdict.side not in (Side.CLIENT, Side.SERVER):
            return None
        first = first or verdict
    return first


def _verdict_of(error: BaseException, watch: Watch | None) -> Verdict:
    if watch is None:
        return judge(error, None, Phase.HANDLER)
    if watch.ended and watch.departure is not None and watch.is_aftermath(error):
        return watch.departure
    return watch.judge(error)


def own_error(error: BaseException, *, anywhere: bool = False) -> BaseException:
    """Choose the exception that a log record shows: the logged one, or the one that it hides.

    Args:
        error: The exception.
        anywhere: Whether it may belong to an exchange other than the current one.
    """
    watch = current()
    own = error if watch is None else watch.unmask(error)
    return unmask(error, None) if own is error and (watch is None or anywhere) else own


def fields_of(verdict: Verdict) -> dict[str, str]:
    """A verdict for a log line that others have made: every name begins with ``cleanclose_``."""
    return {
        "cleanclose_side": verdict.side.value,
        "cleanclose_phase": verdict.phase.value,
        "cleanclose_mechanism": verdict.mechanism.value,
        "cleanclose_witnesses": ",".join(verdict.witnesses),
    }


def errors_in(record: logging.LogRecord) -> Iterable[BaseException]:
    """All exceptions in a record: its own, its message and its arguments."""
    if record.exc_info and record.exc_info[1] is not None:
        yield record.exc_info[1]
    if isinstance(record.msg, BaseException):
        yield record.msg
    arguments = record.args or ()
    for argument in arguments.values() if isinstance(arguments, Mapping) else arguments:
        if isinstance(argument, BaseException):
            yield argument


def _shows(text: str, error: BaseException) -> bool:
    """Whether a text ends with the printed traceback of this very exception."""
    if "Traceback (most recent call last):" not in text:
        return False
    return text.rstrip().endswith("".join(traceback.format_exception(error)).rstrip())


def _is_broken_handshake(error: BaseException, own: frozenset[str]) -> bool:
    """Whether a server found the peer gone when it began a TLS handshake.

    `ssl.SSLSocket` raises ENOTCONN for a socket that is no longer connected but still has bytes,
    and otherwise the error of its first read. Only the server's code may be around it, and it must
    be the server's side of the handshake.
    """
    if not own or not isinstance(error, OSError) or error.errno not in LOST_ERRNOS:
        return False
    is_server = False
    for frame in frames_of(error):
        if package_of(frame) not in own:
            return False
        if package_of(frame) == ssl.__name__ and frame.f_locals.get("server_side") is True:
            is_server = True
    return is_server


def _verdict_of_cut_body() -> Verdict | None:
    """The verdict about this exchange's body, if its own client has cut it off."""
    watch = current()
    if watch is None or watch.ended or watch.departure is None:
        return None
    return watch.departure if watch.departure.phase is Phase.REQUEST_BODY else None


def _verdict_of_write() -> Verdict | None:
    """The verdict about a write to the exchange's own connection after that was lost."""
    watch = current()
    if watch is None or watch.ended:
        return None
    is_own, transport = _own_write(watch)
    if not is_own:
        return None
    if watch.departure is None:
        watch.ask()
    if watch.departure is None and transport is not None:
        # An application that writes without a pause leaves the server no time to notice.
        watch.ask_transport(transport)
    return watch.departure


def _own_write(watch: Watch) -> tuple[bool, object]:
    """Whether only the server's code runs between its send and the logging call.

    The application, or another middleware, writes to connections of its own with its own code, and
    none of that runs inside the server's send.

    Returns:
        The answer, and the transport that the server wrote to if that can be seen.
    """
    packages: set[str] = set()
    transport: object = None
    frame: FrameType | None = inspect.currentframe()
    for _ in range(_AT_MOST_FRAMES):
        if frame is None:
            break
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if watch.is_sending(frame):
            return packages <= {package}, transport
        # This code runs inside the logging call itself.
        if package not in ("logging", "cleanclose", "asyncio"):
            packages.add(package)
        elif package == "asyncio" and transport is None:
            transport = frame.f_locals.get("self")
        frame = frame.f_back
    return False, None
