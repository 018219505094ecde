"""Whose fault an exception is: the two-witness rule.

An exception is the client's only if it came out of the exchange's own connection (the witness
that let it through has marked it), or if it is a framework's own word for such a one and the
exchange has a witness. Class, errno and text alone never suffice; when in doubt it stays what
it was.
"""

from __future__ import annotations

import contextlib
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
    }
)
"""What frameworks and servers raise when the peer has gone, by module and name."""

_MARK: Final = "__cleanclose_departure__"


def mark(error: BaseException, verdict: Verdict) -> None:
    """Note on an exception that it came out of the peer's own connection.

    The note is made of plain strings, so that the exception can be pickled as before, by
    whomever; and it does not refer to the exchange, which would be a cycle.

    Args:
        error: The exception.
        verdict: What its witness knows.
    """
    note = (verdict.phase.value, verdict.mechanism.value, *(w.value for w in verdict.witnesses))
    with contextlib.suppress(AttributeError, TypeError):
        setattr(error, _MARK, note)


def marked(error: BaseException) -> Verdict | None:
    """The verdict that a witness has left on an exception; None if there is none."""
    note: tuple[str, ...] | None = getattr(error, _MARK, None)
    if note is None:
        return None
    phase, mechanism, *witnesses = note
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
    proofs = [_proof(leaf, departure) for leaf in leaves(error)]
    if proofs:
        return proofs[0] if None not in proofs else None
    mark_ = marked(error)
    if mark_ is not None:
        # The exchange may know more: that the process was stopping, or how the peer left.
        return departure or mark_
    if departure is None or not _is_wrapper(error) or _wraps_another(error):
        return None
    return departure


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
        if not _is_wrapper(below) and (error.__cause__ is not None or _may_be_another(below)):
            return True
        error = below
    return False


def _may_be_another(error: BaseException) -> bool:
    # Any OSError may be the reset of something else, time-outs included, and so may a group.
    return isinstance(error, OSError | EOFError | BaseExceptionGroup)


def _is_wrapper(error: BaseException) -> bool:
    return any(f"{cls.__module__}.{cls.__qualname__}" in WRAPPERS for cls in type(error).__mro__)
