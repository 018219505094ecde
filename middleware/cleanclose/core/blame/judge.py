"""Whose fault an exception is: the two-witness rule.

An exception is the client's only if it came out of the exchange's own connection (the witness that
let it through has marked it), or if it is a framework's own class for such an error and the
exchange has a witness. Class, errno and text alone never suffice. In doubt, the exception stays as
it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from cleanclose.core.blame.provenance import (
    first_caught_by,
    frames_of,
    has_traceback_of,
    is_from_before,
    is_of_plumbing,
    is_settled,
    leaves,
    name_of,
    raised_by,
)
from cleanclose.core.blame.upstreams import lost_upstream
from cleanclose.core.events import Mechanism, Phase, Side, Verdict, Witness

__all__ = ["CARRIERS", "WRAPPERS", "is_wrapper", "judge", "mark", "marked", "masked", "unmask"]

WRAPPERS: Final = frozenset(
    {
        "starlette.requests.ClientDisconnect",
        "starlette.websockets.WebSocketDisconnect",
        "starlette.websockets.WebSocketDisconnected",
        "blacksheep.exceptions.MessageAborted",
        "lilya._internal._connection.ClientDisconnect",
        "lilya.websockets.WebSocketDisconnect",
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
        # Our own class, which needs a witness as well.
        "cleanclose.core.stop.words.ClientLeft",
    }
)
"""Classes that frameworks and servers raise when the peer has gone, by module and name."""

_ANSWERS: Final[Mapping[str, str]] = {
    "bottle.HTTPResponse": "status_code",
    "cherrypy._cperror.HTTPError": "code",
    "cherrypy._cperror.HTTPRedirect": "status",
    "django.core.exceptions.BadRequest": "",
    "django.core.exceptions.PermissionDenied": "",
    "django.core.exceptions.SuspiciousOperation": "",
    "django.http.multipartparser.MultiPartParserError": "",
    "django.http.response.Http404": "",
    "falcon.http_error.HTTPError": "status_code",
    "falcon.http_status.HTTPStatus": "status_code",
    "fastapi.exceptions.RequestValidationError": "",
    "fastapi.exceptions.WebSocketRequestValidationError": "",
    "litestar.exceptions.http_exceptions.HTTPException": "status_code",
    "pyramid.httpexceptions.HTTPException": "status_code",
    "rest_framework.exceptions.APIException": "status_code",
    "starlette.exceptions.HTTPException": "status_code",
    "starlette.exceptions.WebSocketException": "",
    "tornado.web.Finish": "",
    "tornado.web.HTTPError": "status_code",
    "webob.exc.HTTPException": "status_code",
    "werkzeug.exceptions.HTTPException": "code",
}
"""Classes that an application raises in order to answer, and the attribute that holds the status.
Below 500 such an exception is not an error of the application's. (Without an attribute it always is
one.)"""
_SERVER_ERROR: Final = 500

_WORDS: Final[Mapping[str, tuple[type[Exception], str]]] = {
    # WsgiToAsgi gets http.disconnect instead of the body.
    "asgiref.wsgi": (ValueError, "WSGI wrapper received a non-HTTP-request message"),
    # read_raw_request_body compares lengths.
    "radicale.httputils": (RuntimeError, "Request body too short: "),
}
"""Exceptions of foreign classes that modules raise for a client that left: the class, and the
beginning of the text."""
_BY_WORDS: Final = frozenset(kind for kind, _ in _WORDS.values())

_SIGNALS: Final = frozenset(
    {
        "builtins.BlockingIOError",
        "builtins.StopAsyncIteration",
        "builtins.StopIteration",
        "_queue.Empty",
        "anyio.ClosedResourceError",
        "anyio.EndOfStream",
        "anyio.WouldBlock",
        "asyncio.queues.QueueEmpty",
        "asyncio.queues.QueueFull",
        "queue.Empty",
        "queue.Full",
        "ssl.SSLWantReadError",
        "ssl.SSLWantWriteError",
        "trio.EndOfChannel",
        "trio.WouldBlock",
    }
)
"""Exceptions that say "nothing there", and never that something went wrong."""

_QUESTIONS: Final = (LookupError, AttributeError, TimeoutError)
"""Exceptions that answer a question which an application asks by trying: whether something is
there, or has come in time."""

CARRIERS: Final = frozenset(
    {
        "aiobotocore",
        "aiohttp",
        "boto3",
        "botocore",
        "http",
        "httpcore",
        "httpx",
        "requests",
        "requests_toolbelt",
        "s3transfer",
        "treq",
        "urllib",
        "urllib3",
    }
)
"""Client libraries that send on what the application gives them to read, by package."""

_AT_HOME: Final = "at home"

_CANCELLED: Final = frozenset({"asyncio.exceptions.CancelledError", "trio.Cancelled"})
"""The cancellations from which `ClientLeft` is made. By themselves they say nothing."""

_MARK: Final = "__cleanclose_departure__"


def mark(
    error: BaseException, verdict: Verdict, exchange: str = "", *, at_home: bool = True
) -> None:
    """Note on an exception that it came out of the peer's own connection.

    The note consists of plain strings, so that anybody can still pickle the exception. It does not
    refer to the exchange, because that would be a reference cycle.

    Args:
        error: The exception.
        verdict: What its witness knows.
        exchange: The `Watch.key` of the exchange whose connection it was. Default: the mark counts
            in every exchange.
        at_home: Whether code that works for this exchange met it. If not (another client's request,
            a task that serves all clients), the mark proves something in this exchange only.
    """
    note = (
        name_of(type(error)),
        # The cause that it has now. The application can give it another one later.
        "" if error.__cause__ is None else name_of(type(error.__cause__)),
        exchange,
        _AT_HOME if at_home else "",
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
    name, _, _, _, phase, mechanism, *witnesses = note
    if name != name_of(type(error)):
        # Somebody has copied all attributes of one exception to another.
        return None
    return Verdict(
        side=Side.CLIENT,
        phase=Phase(phase),
        mechanism=Mechanism(mechanism),
        witnesses=tuple(map(Witness, witnesses)),
    )


def judge(
    error: BaseException,
    departure: Verdict | None,
    phase: Phase,
    exchange: str | None = None,
) -> Verdict:
    """Judge whose fault an exception is.

    Args:
        error: The exception.
        departure: What the exchange's witnesses say; None if none has seen the peer leave.
        phase: How far the exchange has come, for an exception that is not its peer's.
        exchange: The `Watch.key` of the exchange in which it came up; None for a log record that
            belongs to none. A mark from another exchange's connection proves nothing.

    Returns:
        A verdict. Its side is `Side.CLIENT` only if the two-witness rule is met, or `Side.SERVER`
        if it is met while the process is stopping; `Side.UPSTREAM` if a connection other than the
        client's was reset; `Side.UNKNOWN` otherwise.
    """
    proof = _proof(error, departure, exchange)
    if proof is not None:
        own = masked(error)
        if own is None:
            return proof
        error = own
    lost = lost_upstream(error, _is_clients)
    if lost is None:
        return Verdict(side=Side.UNKNOWN, phase=phase)
    return Verdict(side=Side.UPSTREAM, phase=phase, mechanism=Mechanism.of(lost))


def unmask(
    error: BaseException, departure: Verdict | None, exchange: str | None = None
) -> BaseException:
    """Choose the exception to report and to raise: this one, or the one that it hides.

    Args:
        error: The exception.
        departure: What the exchange's witnesses say.
        exchange: The `Watch.key` of the exchange in which it came up.

    Returns:
        The application's own error that was being handled, or was passing a ``finally``, when the
        client's came. The exception itself if there is no such error, or if some other part of it
        is not the client's either.
    """
    if _proof(error, departure, exchange) is None:
        return error
    return masked(error) or error


def _is_clients(error: BaseException) -> bool:
    return _is_marked(error) or _is_carried(error)


def _is_marked(error: BaseException) -> bool:
    return marked(error) is not None


def masked(error: BaseException) -> BaseException | None:
    """The application's own error that an exception of the client's would hide.

    That is the exception that was being handled, or was passing a ``finally``, a ``with`` or a task
    group, when the client's came. Python does not show which of these it was, and in most cases
    nobody else would report it.

    Args:
        error: An exception that is the client's in every other part.

    Returns:
        The nearest such error, with its own traceback; a group if several leaves hide one each;
        None if there is none.
    """
    found: list[BaseException] = []
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        held = leaves(each)
        waiting.extend(held)
        for below in (each.__cause__, each.__context__):
            if below is None or (is_from_before(below) and below is not each.__cause__):
                continue
            # If the server itself raised it from another exception, that one is of the same
            # connection.
            if not _is_no_loss(below, each) and not _is_servers_cause(below, each):
                found += [own for own in _own_of(below, each) if not _is_among(own, found)]
            elif below is each.__cause__ or not _is_answer(below):
                waiting.append(below)
    if len(found) < 2:
        return found[0] if found else None
    return BaseExceptionGroup("what a client's departure would have hidden", found)


def _own_of(error: BaseException, during: BaseException) -> list[BaseException]:
    """Choose what was hidden: the only loss if a group has one, else the whole exception."""
    lost = [each for each in _flat(error) if not _is_no_loss(each, during)]
    return lost if len(lost) == 1 else [error]


def _flat(error: BaseException) -> Iterator[BaseException]:
    held = leaves(error)
    if not held:
        yield error
    for each in held:
        yield from _flat(each)


def _is_among(error: BaseException, found: list[BaseException]) -> bool:
    return any(error is other for other in found)


def _is_servers_cause(cause: BaseException, error: BaseException) -> bool:
    """Whether the server itself raised an exception from another one."""
    if cause is not error.__cause__:
        return False
    return is_of_plumbing(cause) or (_is_marked(error) and not _has_another_cause(error))


def _is_no_loss(error: BaseException, during: BaseException) -> bool:
    """Whether an exception that was being handled when another came can go unreported."""
    if _is_marked(error) or is_wrapper(error) or _is_carried(error):
        return True
    held = leaves(error)
    if held:
        return all(_is_no_loss(each, during) for each in held)
    if not isinstance(error, Exception):
        # Cancellation, the end of a generator, and of the process.
        return True
    if lost_upstream(error, _is_marked) is not None:
        return False
    return (
        any(name_of(cls) in _SIGNALS for cls in type(error).__mro__)
        or _is_answer(error)
        or is_of_plumbing(error)
        or (isinstance(error, _QUESTIONS) and is_settled(error, during))
    )


def _is_answer(error: BaseException) -> bool:
    """Whether an exception is a framework's way to answer, and not with a server error."""
    for cls in type(error).__mro__:
        name = name_of(cls)
        if name in _ANSWERS:
            status: object = getattr(error, _ANSWERS[name], None)
            text = str(status)[:3]
            return not text.isdigit() or int(text) < _SERVER_ERROR
    return False


def _is_carried(error: BaseException) -> bool:
    return _carried(error) is not None


def _carried(error: BaseException) -> BaseException | None:
    """The client's own error that a client library met, and turned into one of its own.

    The application gave the library the request's body to send on, and that body broke off. What
    the library then raises says nothing about its own connection. This counts only if the library
    itself caught the one and raised the other, not for what the application was handling when it
    called the library.
    """
    below = _carried_by_library(error)
    seen = {id(error)}
    while below is not None and id(below) not in seen:
        if _is_marked(below) or is_wrapper(below):
            return below
        seen.add(id(below))
        below = _carried_by_library(below)
    return None


def _carried_by_library(error: BaseException) -> BaseException | None:
    """The exception that a client library had caught when it raised an error of its own."""
    below = first_caught_by(error, CARRIERS)
    if below is None or raised_by(error, CARRIERS):
        return below
    # urllib3 gives its error the traceback of the error that it caught.
    is_its = type(error).__module__.partition(".")[0] in CARRIERS
    return below if is_its and has_traceback_of(error, below) else None


def _proof(error: BaseException, departure: Verdict | None, exchange: str | None) -> Verdict | None:
    proof: Verdict | None = None
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        held = leaves(each)
        if held:
            waiting.extend(held)
            if _may_be_another(each.__cause__, seen):
                # A group raised from something else is also about that.
                return None
            continue
        found = _proof_of_one(each, departure, exchange)
        if found is None:
            return None
        proof = proof or found
    return proof


def _proof_of_one(
    error: BaseException, departure: Verdict | None, exchange: str | None
) -> Verdict | None:
    error = _carried(error) or error
    mark_ = marked(error)
    if mark_ is not None:
        if not _is_of(error, exchange) or (
            _has_another_cause(error) and _may_be_another(error.__cause__, {id(error)})
        ):
            return None
        # The exchange may know more: that the process was stopping, or how the peer left.
        return departure or mark_
    if departure is None or not is_wrapper(error) or _wraps_another(error):
        return None
    return departure


def _is_of(error: BaseException, exchange: str | None) -> bool:
    """Whether a mark proves something here."""
    _, _, owner, at_home, *_ = vars(error)[_MARK]
    return at_home == _AT_HOME if exchange is None else owner in ("", exchange)


def _has_another_cause(error: BaseException) -> bool:
    """Whether the application has raised the client's error again, from one of its own errors."""
    cause = error.__cause__
    return (
        cause is not None
        and marked(cause) is None
        and name_of(type(cause)) != vars(error)[_MARK][1]
    )


def _wraps_another(error: BaseException) -> bool:
    """Whether a framework raised its class for departures for another reason.

    Starlette's StreamingResponse turns any OSError of the application's own stream into a
    ClientDisconnect without a cause. So the context counts here too, though only as evidence that
    the exception is not the client's.
    """
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        below = error.__cause__ or error.__context__
        if below is None or marked(below) is not None:
            return False
        if _is_cancellation(below):
            # Its context is what was being handled when the work was cancelled.
            error = below
            continue
        if not is_wrapper(below) and _may_be_another(below, seen):
            return True
        error = below
    return False


def _is_cancellation(error: BaseException) -> bool:
    # On trio, another exception may have been raised from a group of them.
    held = leaves(error)
    return all(map(_is_cancellation, held)) if held else name_of(type(error)) in _CANCELLED


def _may_be_another(error: BaseException | None, seen: set[int]) -> bool:
    """Whether a framework may have turned an exception that was no departure into one."""
    if error is None or id(error) in seen or _is_marked(error):
        return False
    held = leaves(error)
    if held:
        # Frameworks raise a group's only leaf by itself; the group is then its context.
        return any(_may_be_another(leaf, seen) for leaf in held)
    # Any OSError may be the reset of something else, time-outs included.
    return isinstance(error, OSError | EOFError)


def is_wrapper(error: BaseException) -> bool:
    """Whether an exception is of a class that frameworks or servers use for departures."""
    return any(name_of(cls) in WRAPPERS for cls in type(error).__mro__) or _is_in_words(error)


def _is_in_words(error: BaseException) -> bool:
    """Whether a framework reports a departure by raising one of Python's own classes itself."""
    if type(error) not in _BY_WORDS:
        return False
    frames = list(frames_of(error))
    module = str(frames[-1].f_globals.get("__name__")) if frames else ""
    kind, text = _WORDS.get(module, (None, ""))
    return type(error) is kind and str(error).startswith(text)
