"""Whose fault an exception is: the two-witness rule.

An exception is the client's only if it came out of the exchange's own connection (the witness
that let it through has marked it), or if it is a framework's own word for such a one and the
exchange has a witness. Class, errno and text alone never suffice; when in doubt it stays what
it was.
"""

from __future__ import annotations

from typing import Final

from cleanclose.core.events import Mechanism, Phase, Side, Verdict, Witness
from cleanclose.core.upstreams import leaves, lost_upstream

__all__ = ["WRAPPERS", "judge", "mark", "marked"]

WRAPPERS: Final = frozenset(
    {
        "starlette.requests.ClientDisconnect",
        "starlette.websockets.WebSocketDisconnect",
        "starlette.websockets.WebSocketDisconnected",
        "werkzeug.exceptions.ClientDisconnected",
        "django.http.request.UnreadablePostError",
        "django.core.exceptions.RequestAborted",
        "webob.request.DisconnectionError",
        "litestar.exceptions.websocket_exceptions.WebSocketDisconnect",
        "falcon.errors.WebSocketDisconnected",
        "uvicorn.protocols.utils.ClientDisconnected",
        "gunicorn.asgi.protocol.ClientDisconnected",
        "gunicorn.asgi.websocket.WebSocketDisconnected",
        "waitress.channel.ClientDisconnected",
        # Our own word, which needs a witness as well.
        "cleanclose.core.stop.words.ClientLeft",
    }
)
"""What frameworks and servers raise when the peer has gone, by module and name."""

_CANCELLED: Final = frozenset({"asyncio.exceptions.CancelledError", "trio.Cancelled"})
"""What `ClientLeft` is made of where work was cancelled: it stands for nothing by itself."""

_MARK: Final = "__cleanclose_departure__"


def mark(error: BaseException, verdict: Verdict) -> None:
    """Note on an exception that it came out of the peer's own connection.

    The note is made of plain strings, so that the exception can be pickled as before, by
    whomever; and it does not refer to the exchange, which would be a cycle.

    Args:
        error: The exception.
        verdict: What its witness knows.
    """
    note = (
        _name_of(type(error)),
        # What it was raised from by then. The application can give it another cause.
        "" if error.__cause__ is None else _name_of(type(error.__cause__)),
        verdict.phase.value,
        verdict.mechanism.value,
        *(witness.value for witness in verdict.witnesses),
    )
    # Not by setattr: an exception may be a frozen dataclass.
    vars(error)[_MARK] = note


def marked(error: BaseException) -> Verdict | None:
    """The verdict that a witness has left on an exception; None if there is none."""
    # Not by getattr: some exceptions hand any name on to another object.
    note: tuple[str, ...] | None = vars(error).get(_MARK)
    if note is None:
        return None
    name, _, phase, mechanism, *witnesses = note
    if name != _name_of(type(error)):
        # Somebody has copied all attributes of the one to another.
        return None
    return Verdict(
        side=Side.CLIENT,
        phase=Phase(phase),
        mechanism=Mechanism(mechanism),
        witnesses=tuple(map(Witness, witnesses)),
    )


def judge(error: BaseException, departure: Verdict | None, phase: Phase) -> Verdict:
    """Whose fault an exception is.

    Args:
        error: The exception.
        departure: What the exchange's witnesses say; None if none has seen the peer leave.
        phase: How far the exchange has come, for an exception that is not its peer's.

    Returns:
        A verdict with `Side.CLIENT` only where the rule of two witnesses is met, or
        `Side.SERVER` where it is met and the process is stopping; with `Side.UPSTREAM` where
        a connection was reset that is not the client's; and else with `Side.UNKNOWN`.
    """
    proof = _proof(error, departure)
    if proof is not None:
        return proof
    lost = lost_upstream(error, _is_marked)
    if lost is None:
        return Verdict(side=Side.UNKNOWN, phase=phase)
    return Verdict(side=Side.UPSTREAM, phase=phase, mechanism=Mechanism.of(lost))


def _is_marked(error: BaseException) -> bool:
    return marked(error) is not None


def _proof(error: BaseException, departure: Verdict | None) -> Verdict | None:
    proof: Verdict | None = None
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        if _hides_a_loss(each):
            return None
        held = leaves(each)
        if held:
            # A group that was raised from something else is about that, too.
            waiting.extend(held if each.__cause__ is None else (*held, each.__cause__))
            continue
        found = _proof_of_one(each, departure)
        if found is None:
            return None
        proof = proof or found
    return proof


def _proof_of_one(error: BaseException, departure: Verdict | None) -> Verdict | None:
    mark_ = marked(error)
    if mark_ is not None:
        # The exchange may know more: that the process was stopping, or how the peer left.
        return None if _has_another_cause(error) else departure or mark_
    if departure is None or not _is_wrapper(error) or _wraps_another(error):
        return None
    return departure


def _has_another_cause(error: BaseException) -> bool:
    """Whether the application has raised the client's error again, from one of its own."""
    cause = error.__cause__
    return (
        cause is not None
        and marked(cause) is None
        and _name_of(type(cause)) != vars(error)[_MARK][1]
    )


def _hides_a_loss(error: BaseException) -> bool:
    """Whether an upstream's loss was being handled, or had been left to a ``finally``.

    Which of the two cannot be told, and of the second nobody else would speak.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        # What the server itself has raised it from is of the same connection.
        waiting.append(each.__cause__)
        context = each.__context__
        if context is None or context is each.__cause__:
            continue
        if _is_marked(context) or _is_wrapper(context):
            waiting.append(context)
        elif lost_upstream(context, _is_marked) is not None:
            return True
    return False


def _wraps_another(error: BaseException) -> bool:
    """Whether a framework's word for a departure was raised for something else.

    Starlette's StreamingResponse makes a ClientDisconnect of any OSError of the application's
    own stream, without a cause. So even the context counts here: never for the client, but
    against it.
    """
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        below = error.__cause__ or error.__context__
        if below is None or marked(below) is not None:
            return False
        if _is_cancellation(below):
            # What was being handled when the work was cancelled is its context.
            error = below
            continue
        if not _is_wrapper(below) and (error.__cause__ is not None or _may_be_another(below, seen)):
            return True
        error = below
    return False


def _is_cancellation(error: BaseException) -> bool:
    # On trio a group of them is what another one was raised from.
    held = leaves(error)
    return all(map(_is_cancellation, held)) if held else _name_of(type(error)) in _CANCELLED


def _may_be_another(error: BaseException, seen: set[int]) -> bool:
    held = leaves(error)
    if held:
        # Frameworks raise a group's only leaf by itself, and then the group is its context.
        return any(id(leaf) not in seen and not _is_marked(leaf) for leaf in held)
    # Any OSError may be the reset of something else, time-outs included.
    return isinstance(error, OSError | EOFError)


def _is_wrapper(error: BaseException) -> bool:
    return any(_name_of(cls) in WRAPPERS for cls in type(error).__mro__)


def _name_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
