"""Where an exception comes from: frames, tracebacks, causes and contexts, walked in one place.

For each exception Python keeps the frames that it passed until somebody caught it. So the first
frame belongs to the code that caught it, and the last frame to the code that raised it. An
exception that is raised while another one is being handled, or while one passes a ``finally`` or a
``with``, has that other one as its context (`BaseException.__context__`), whatever its ``from``
says.
"""

from __future__ import annotations

import dis
import errno
import sys
import sysconfig
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from types import CodeType, FrameType, TracebackType
from typing import Final, NamedTuple, NoReturn, cast

__all__ = [
    "LOST_ERRNOS",
    "PLUMBING",
    "RESET_ERRNOS",
    "Place",
    "behind",
    "caller",
    "calls_into",
    "came_from",
    "caught_by",
    "chain",
    "first_caught_by",
    "frames_of",
    "has_traceback_of",
    "is_call_of",
    "is_called_by",
    "is_closed_handle",
    "is_from_before",
    "is_method_of",
    "is_of_plumbing",
    "is_settled",
    "leaves",
    "module_outside",
    "name_of",
    "package_of",
    "passed_call",
    "passed_method",
    "passed_methods",
    "passed_object",
    "raise_as_it_is",
    "raised_by",
    "raised_under",
    "says_lost",
    "was_inside",
]

RESET_ERRNOS: Final = frozenset(
    {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ESHUTDOWN, errno.ENOTCONN}
)
"""Error numbers for a connection that existed and is broken."""

LOST_ERRNOS: Final = RESET_ERRNOS | {errno.ETIMEDOUT}
"""The same for a connection whose other end is known, so that its silence counts as well."""

PLUMBING: Final = frozenset(
    {
        "a2wsgi",
        "anyio",
        "asgiref",
        "blacksheep",
        "bottle",
        "cheroot",
        "cherrypy",
        "cleanclose",
        "daphne",
        "django",
        "eventlet",
        "falcon",
        "fastapi",
        "flask",
        "gevent",
        "granian",
        "greenlet",
        "gunicorn",
        "h11",
        "h2",
        "httptools",
        "hypercorn",
        "lilya",
        "litestar",
        "multipart",
        "priority",
        "pydantic",
        "pyramid",
        "python_multipart",
        "quart",
        "rest_framework",
        "sniffio",
        "starlette",
        "tornado",
        "trio",
        "twisted",
        "uvicorn",
        "uvloop",
        "waitress",
        "webob",
        "websockets",
        "werkzeug",
        "wsproto",
    }
)
"""Packages between a server's socket and an application. Exceptions that they raise and catch among
themselves (an empty queue, a missing header) are part of how they work."""

_LAYERS: Final = frozenset({"cleanclose", "eventlet", "gevent", "django"})
"""Packages between a server and its socket: ourselves, cooperative sockets, and the input of
Django's development server."""

_NO_PLUMBING: Final = ("django.db.", "django.core.cache.", "django.core.mail.")
"""Parts of those packages that talk to the application's upstreams."""

_BROAD: Final = frozenset({"Exception", "BaseException"})
_SHIMS: Final = ("cleanclose.asgi.", "cleanclose.wsgi.", "cleanclose.tornado.")
_STDLIB: Final = (sysconfig.get_path("stdlib"), "<frozen ")


def name_of(cls: type) -> str:
    """A class's module and name."""
    return f"{cls.__module__}.{cls.__qualname__}"


def package_of(frame: FrameType) -> str:
    """The top-level package of a frame's code."""
    return _module_of(frame).partition(".")[0]


def frames_of(error: BaseException) -> Iterator[FrameType]:
    """The frames that an exception has passed: first the catcher's, last the raiser's."""
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def leaves(error: BaseException) -> tuple[BaseException, ...]:
    """The members of an exception group, which may be groups again; nothing for any other error."""
    if not isinstance(error, BaseExceptionGroup):
        return ()
    # The group's own type parameter is unknown to every checker.
    return tuple(cast("BaseExceptionGroup[BaseException]", error).exceptions)


def behind(error: BaseException) -> Iterator[BaseException]:
    """An error's causes and contexts, and theirs, suppressed or not."""
    seen = {id(error)}
    waiting = [error.__cause__, error.__context__]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [each.__cause__, each.__context__]


def chain(
    error: BaseException, is_clients: Callable[[BaseException], bool] | None = None
) -> Iterator[BaseException]:
    """An exception, its causes and contexts, and the leaves of its groups.

    Args:
        error: The first one. Each exception comes once.
        is_clients: Whether an exception is the client's. The context of such an exception always
            comes too: with ``raise … from`` a server hides its own work, and with it whatever the
            application was doing.
    """
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting.extend(leaves(each))
        if each.__cause__ is not None:
            waiting.append(each.__cause__)
        is_hidden = each.__suppress_context__ and (is_clients is None or not is_clients(each))
        if each.__context__ is not None and not is_hidden:
            waiting.append(each.__context__)


def caught_by(error: BaseException, packages: Container[str]) -> bool:
    """Whether an exception went out through code of one of these packages last."""
    frame = next(frames_of(error), None)
    return frame is not None and package_of(frame) in packages


def raised_by(error: BaseException, packages: Container[str]) -> bool:
    """Whether an exception was raised in code of one of these packages."""
    last: FrameType | None = None
    for frame in frames_of(error):
        last = frame
    return last is not None and package_of(last) in packages


def has_traceback_of(error: BaseException, other: BaseException) -> bool:
    """Whether an exception was given the traceback of another one (`with_traceback`)."""
    ends = [deque(frames_of(each), maxlen=1) for each in (error, other)]
    return bool(ends[0]) and bool(ends[1]) and ends[0][0] is ends[1][0]


def passed_call(error: BaseException, packages: Container[str], function: str) -> bool:
    """Whether an exception came out of a function of this name in one of these packages."""
    return any(
        frame.f_code.co_name == function and package_of(frame) in packages
        for frame in frames_of(error)
    )


def says_lost(error: OSError) -> bool:
    """Whether the system, or TLS, raises such an error for a connection whose other end has left.

    Another proof must show that it was this connection.
    """
    # A server in C gives no errno.
    return (
        isinstance(error, TimeoutError)
        or error.errno is None
        or error.errno in LOST_ERRNOS
        or any(name_of(cls) == "ssl.SSLError" for cls in type(error).__mro__)
    )


def came_from(error: BaseException, package: str, through: int | None = None) -> bool:
    """Whether an exception came only from a server and the standard library.

    Code between the server and a shim may have connections of its own. An unknown server is
    believed only if it has no frames of its own, that is, if it is written in C.

    Args:
        error: The exception.
        package: The server's package.
        through: The id of an object of the application's own that the server used. An exception
            that came through it is not the server's.
    """
    for frame in frames_of(error):
        each = package_of(frame)
        if each != package and each not in _LAYERS and each not in sys.stdlib_module_names:
            return False
        if through is not None and id(frame.f_locals.get("self")) == through:
            return False
    return True


def passed_object(error: BaseException, is_it: Callable[[object], bool]) -> bool:
    """Whether an exception came out of a method of some object.

    Args:
        error: The exception.
        is_it: Says whether an object is the one to look for.
    """
    return any(is_it(frame.f_locals.get("self")) for frame in frames_of(error))


def calls_into(packages: Container[str]) -> tuple[FrameType, ...]:
    """The calls into these packages that are under way."""
    found: list[FrameType] = []
    frame: FrameType | None = sys._getframe()  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        if package_of(frame) in packages:
            found.append(frame)
        frame = frame.f_back
    return tuple(found)


def first_caught_by(error: BaseException, packages: Container[str]) -> BaseException | None:
    """An exception's cause or context, if one of these packages had caught it."""
    for each in (error.__cause__, error.__context__):
        if each is not None and caught_by(each, packages):
            return each
    return None


def is_of_plumbing(error: BaseException) -> bool:
    """Whether an exception was raised and caught without any application code in between.

    Nothing is known of one without a traceback.
    """
    frame = None
    for frame in frames_of(error):
        if not _is_plumbing(frame):
            return False
    return frame is not None


def is_settled(handled: BaseException, error: BaseException) -> bool:
    """Whether the application had dealt with an exception when the other one came.

    It has if its code says so: the other exception came in an ``except`` clause that names a
    specific class, not `Exception`, and that raises nothing. An exception that passes a ``finally``
    or a ``with``, or that ``except Exception`` catches, has not been dealt with. To find out, this
    function reads the code of the frame that caught the exception; if it does not understand that
    code, the answer is no.

    Args:
        handled: The exception that was being handled.
        error: The one that was raised meanwhile.
    """
    first = handled.__traceback__
    if first is None:
        return False
    left = error.__traceback__
    while left is not None and left.tb_frame is not first.tb_frame:
        left = left.tb_next
    if left is None:
        return False
    names = {cls.__name__ for cls in type(handled).__mro__} - {"Exception", "BaseException"}
    clause = _clause_at(first.tb_frame.f_code, left.tb_lasti)
    return (
        clause is not None
        and _BROAD.isdisjoint(clause.names)
        and bool(names.intersection(clause.names))
        and not clause.raises
        and first.tb_lasti not in clause.offsets
    )


class _Clause(NamedTuple):
    """An ``except`` clause: where its code is, the names in its head, and whether it raises."""

    offsets: range
    names: tuple[str, ...]
    raises: bool


def _clause_at(code: CodeType, offset: int) -> _Clause | None:
    """The innermost ``except`` clause that has an instruction in it."""
    instructions = list(dis.get_instructions(code))
    found: _Clause | None = None
    for index, each in enumerate(instructions[:-1]):
        jump = instructions[index + 1]
        if each.opname != "CHECK_EXC_MATCH" or not isinstance(jump.argval, int):
            continue
        body = range(jump.offset + 1, jump.argval)
        if offset not in body or (found is not None and len(body) > len(found.offsets)):
            continue
        head: list[str] = []
        for before in reversed(instructions[:index]):
            if not before.opname.startswith(("LOAD_", "BUILD_TUPLE", "CACHE")):
                break
            head.append(str(before.argval))
        raises = any(
            inner.opname == "RAISE_VARARGS" and inner.offset in body for inner in instructions
        )
        found = _Clause(body, tuple(head), raises)
    return found


def is_from_before(error: BaseException) -> bool:
    """Whether an exception was being handled already when the exchange began.

    The code that handles it has called the shim, and waits for it.
    """
    handler = next(frames_of(error), None)
    if handler is None:
        return False
    frame: FrameType | None = sys._getframe()  # pyright: ignore[reportPrivateUsage]
    outside: FrameType | None = None
    while frame is not None:
        if _module_of(frame).startswith(_SHIMS):
            # The outermost call counts: applications may call each other.
            outside = frame.f_back
        frame = frame.f_back
    while outside is not None:
        if outside is handler:
            return True
        outside = outside.f_back
    return False


def raise_as_it_is(error: BaseException) -> NoReturn:
    """Raise an exception and keep its context, whatever is being handled here."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
        # Its traceback refers to this frame.
        del error, context


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _is_plumbing(frame: FrameType) -> bool:
    module = _module_of(frame)
    if module.partition(".")[0] in PLUMBING:
        return not module.startswith(_NO_PLUMBING)
    file = frame.f_code.co_filename
    return file.startswith(_STDLIB) and "-packages" not in file


class Place(NamedTuple):
    """Functions of a third party's.

    Args:
        module: The module that they are in.
        functions: Their qualified names (`types.CodeType.co_qualname`).
    """

    module: str
    functions: frozenset[str]

    def has(self, frame: FrameType) -> bool:
        """Whether a frame runs one of them."""
        return _module_of(frame) == self.module and frame.f_code.co_qualname in self.functions


def caller() -> FrameType | None:
    """The frame that called the function that asks; None if there is none."""
    return sys._getframe(1).f_back  # pyright: ignore[reportPrivateUsage]


def module_outside(module: str) -> str:
    """The name of the module that called into another one.

    Args:
        module: The other module's name; its own calls do not count.

    Returns:
        The module of the innermost call that is neither its own nor this one.
    """
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and _module_of(frame) == module:
        frame = frame.f_back
    return _module_of(frame)


def is_called_by(place: Place) -> bool:
    """Whether this thread is inside one of a third party's functions."""
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        if place.has(frame):
            return True
        frame = frame.f_back
    return False


def is_method_of(frame: FrameType, module: str, owner: object) -> bool:
    """Whether a frame runs a module's method, of this very object."""
    return _module_of(frame) == module and frame.f_locals.get("self") is owner


def passed_method(error: BaseException, module: str, owner: object) -> bool:
    """Whether an exception came out of a module's method, of this very object."""
    return any(is_method_of(frame, module, owner) for frame in frames_of(error))


def raised_under(error: BaseException, module: str, prefix: str) -> bool:
    """Whether a function of a module raised an exception, judged by its name's beginning."""
    last: FrameType | None = None
    for frame in frames_of(error):
        last = frame
    return (
        last is not None
        and _module_of(last) == module
        and last.f_code.co_qualname.startswith(prefix)
    )


_LOOPS: Final = frozenset({"asyncio", "uvloop"})
"""The packages whose code stands between a server and its socket."""


def is_call_of(frame: FrameType, call: object) -> bool:
    """Whether a frame is a call of this very callable: a method of this very object."""
    function: object = getattr(call, "__func__", call)
    if frame.f_code is not getattr(function, "__code__", None):
        return False
    owner: object = getattr(call, "__self__", None)
    return owner is not None and frame.f_locals.get("self") is owner


def passed_methods(error: BaseException, names: Container[str], owners: Iterable[object]) -> bool:
    """Whether an exception came out of methods of these very objects.

    Args:
        error: The exception.
        names: The methods' names.
        owners: The objects.
    """
    return any(
        frame.f_code.co_name in names
        and any(frame.f_locals.get("self") is owner for owner in owners)
        for frame in frames_of(error)
    )


def was_inside(error: BaseException, call: Callable[..., object]) -> bool:
    """Whether an error was raised and caught inside a server's own work for one exchange.

    Args:
        error: The error.
        call: One of the server's callables for the exchange.
    """
    owner: object = getattr(call, "__self__", None)
    if owner is None:
        return False
    own = {*_LOOPS, *_packages(call, type(owner))}
    is_its = False
    for frame in frames_of(error):
        if package_of(frame) not in own:
            return False
        is_its |= frame.f_locals.get("self") is owner
    return is_its


def _packages(method: Callable[..., object], cls: type) -> Iterator[str]:
    """The package of a server's method, and those that its class is built on.

    A subclass that somebody else wrote is not the server.
    """
    yield method.__module__.partition(".")[0]
    defined = False
    for each in cls.__mro__:
        if defined:
            yield each.__module__.partition(".")[0]
        defined |= method.__name__ in vars(each)


def is_closed_handle(error: BaseException) -> bool:
    """Whether it is uvloop's error for a write to a lost connection."""
    return isinstance(error, RuntimeError) and str(error).endswith("the handler is closed")
