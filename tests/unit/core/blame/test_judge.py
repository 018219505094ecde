"""The two-witness rule, and every way that we could think of to get around it."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import errno
import pickle
import queue
from collections.abc import Callable, Generator
from typing import Any, cast

import pytest

from cleanclose.core import Mechanism, Phase, Side, Verdict, Witness
from cleanclose.core.blame.judge import WRAPPERS, is_wrapper, judge, mark, marked, unmask
from cleanclose.core.blame.provenance import frames_of, leaves
from cleanclose.core.blame.upstreams import LOST

GONE = Verdict(
    side=Side.CLIENT,
    phase=Phase.RESPONSE_BODY,
    mechanism=Mechanism.RESET,
    witnesses=(Witness.SEND,),
)
STOPPING = dataclasses.replace(GONE, side=Side.SERVER)


def class_named(name: str, *bases: type[BaseException]) -> type[BaseException]:
    module, _, qualname = name.rpartition(".")
    return type(qualname, bases or (Exception,), {"__module__": module, "__qualname__": qualname})


WRAPPER = class_named("starlette.requests.ClientDisconnect")
REDIS_LOST = class_named("redis.exceptions.ConnectionError")


def reset() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


def clients(error: BaseException | None = None) -> BaseException:
    error = error or reset()
    mark(error, GONE)
    return error


def side_of(error: BaseException, departure: Verdict | None = GONE) -> Side:
    return judge(error, departure, Phase.HANDLER).side


def raised(raise_it: Callable[[], None]) -> BaseException:
    try:
        raise_it()
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what the test wants
        return error
    raise AssertionError("nothing was raised")


# Marks.


def test_a_marked_exception_is_the_clients_with_what_its_witness_knew() -> None:
    assert judge(clients(), None, Phase.HANDLER) == GONE


def test_the_exchange_may_know_more_than_the_mark() -> None:
    assert side_of(clients(), STOPPING) is Side.SERVER


@pytest.mark.parametrize(
    "error",
    [
        reset(),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        ConnectionAbortedError(errno.ECONNABORTED, "aborted"),
        OSError(errno.ECONNRESET, "Connection reset by peer"),
        *(
            class_named(name)()
            for name in LOST
            if LOST[name] is LOST["pika.exceptions.StreamLostError"]
        ),
    ],
    ids=lambda error: type(error).__qualname__,
)
def test_class_errno_and_text_never_suffice(error: BaseException) -> None:
    for departure in (None, GONE, STOPPING):
        assert side_of(error, departure) is Side.UPSTREAM


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Connection reset by peer"),
        RuntimeError("client disconnected"),
        TimeoutError(),
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        FileNotFoundError(errno.ENOENT, "no such file"),
        EOFError(),
    ],
    ids=lambda error: type(error).__qualname__,
)
def test_anything_else_is_unknown_however_gone_the_client_is(error: BaseException) -> None:
    for departure in (None, GONE, STOPPING):
        assert side_of(error, departure) is Side.UNKNOWN


def test_another_exception_of_the_same_class_and_args_is_not_marked() -> None:
    clients()
    assert side_of(reset()) is Side.UPSTREAM


def test_a_marked_exception_can_be_pickled_and_copied() -> None:
    error = clients()
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is ConnectionResetError
        assert other.args == error.args
        assert marked(other) == GONE


class Slotted(Exception):
    __slots__ = ("one",)


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int = 1


class Delegating(Exception):
    """As urllib's HTTPError, which asks the response for any name that it has not."""

    def __getattr__(self, name: str) -> object:
        return "a string"


@pytest.mark.parametrize("cls", [Slotted, Frozen, Delegating])
def test_odd_exceptions_can_be_marked_and_are_not_by_themselves(cls: type[Exception]) -> None:
    assert marked(cls()) is None
    assert side_of(cls()) is Side.UNKNOWN
    assert side_of(clients(cls())) is Side.CLIENT


def test_an_error_with_the_attributes_of_a_clients_is_not_the_clients() -> None:
    class SaveFailed(Exception):
        def __init__(self, original: BaseException) -> None:
            super().__init__("could not save")
            self.__dict__.update(original.__dict__)

    assert side_of(SaveFailed(clients())) is Side.UNKNOWN


def test_a_marked_exception_does_not_refer_to_anything_of_the_exchange() -> None:
    error = clients()
    (note,) = vars(error).values()
    assert type(note) is tuple
    assert {type(part) for part in cast("tuple[object, ...]", note)} == {str}


# Raised from, raised during.


def test_an_error_raised_from_a_clients_is_the_applications() -> None:
    def app() -> None:
        raise RuntimeError("could not save") from clients()

    assert side_of(raised(app)) is Side.UNKNOWN


def test_a_reset_raised_from_a_clients_is_an_upstreams() -> None:
    def app() -> None:
        raise reset() from clients()

    assert side_of(raised(app)) is Side.UPSTREAM


def test_an_error_raised_while_handling_a_clients_is_not_the_clients() -> None:
    def app() -> None:
        try:
            raise clients()
        except OSError:
            raise KeyError("id")  # noqa: B904 - the context is the subject

    assert side_of(raised(app)) is Side.UNKNOWN


def test_a_clients_error_raised_again_from_an_upstreams_is_the_upstreams() -> None:
    def app() -> None:
        try:
            raise clients()
        except OSError as client_error:
            try:
                raise reset()
            except OSError as upstream_error:
                raise client_error from upstream_error

    assert side_of(raised(app)) is Side.UPSTREAM


def test_a_clients_error_raised_again_from_a_bug_is_the_bugs() -> None:
    def app() -> None:
        raise clients() from ValueError()

    assert side_of(raised(app)) is Side.UNKNOWN


@pytest.mark.parametrize("hiding", [clients, WRAPPER], ids=["marked", "word"])
def test_a_departure_raised_from_a_bug_is_not_shown_in_its_place(
    hiding: Callable[[], BaseException],
) -> None:
    # As Starlette's BaseHTTPMiddleware raises it again: `raise error from error.__context__`.
    own = raised(bug)
    left = hiding()

    def again() -> None:
        raise left from own

    assert unmask(raised(again), GONE) is own
    assert side_of(left) is Side.UNKNOWN


def test_of_a_group_with_one_bug_the_bug_is_shown() -> None:
    own = raised(bug)

    def again() -> None:
        try:
            raise BaseExceptionGroup("", [own])
        except* KeyError:
            raise clients() from None

    assert unmask(raised(again), GONE) is own


def test_what_the_server_raised_it_from_is_no_other_cause() -> None:
    def server() -> None:
        raise class_named("uvicorn.protocols.utils.ClientDisconnected", OSError)() from reset()

    error = raised(server)
    mark(error, GONE)
    assert side_of(error) is Side.CLIENT
    assert side_of(error, None) is Side.CLIENT


@pytest.mark.parametrize(
    "lost", [reset(), REDIS_LOST("Connection closed by server.")], ids=["reset", "redis"]
)
@pytest.mark.parametrize("clients_own", [clients(), WRAPPER()], ids=["marked", "wrapper"])
def test_an_upstreams_loss_under_a_clients_error_is_not_hidden(
    clients_own: BaseException, lost: BaseException
) -> None:
    def app() -> None:
        try:
            raise lost
        finally:
            raise clients_own

    error = raised(app)
    clients_own.__context__, before = None, clients_own.__context__
    assert side_of(error) is Side.CLIENT
    clients_own.__context__ = before
    assert side_of(error) is Side.UPSTREAM
    clients_own.__context__ = None


def test_an_upstreams_loss_deep_under_a_clients_error_is_not_hidden() -> None:
    def app() -> None:
        try:
            try:
                raise reset()
            except OSError:
                raise KeyError("id")  # noqa: B904 - the context is the subject
        finally:
            server()

    def server() -> None:
        try:
            raise class_named("websockets.exceptions.ConnectionClosedError")()
        except Exception as error:
            raise class_named("uvicorn.protocols.utils.ClientDisconnected", OSError)() from error

    error = raised(app)
    mark(error, GONE)
    assert side_of(error) is Side.UPSTREAM
    assert side_of(clients(raised(server))) is Side.CLIENT


def leave() -> None:
    """What the application called when it found out, out of its sight."""
    raise clients() from None


def bug() -> None:
    dict[str, str]()["order"]


@contextlib.contextmanager
def goodbye() -> Generator[None]:
    try:
        yield
    finally:
        leave()


def in_finally() -> None:
    try:
        bug()
    finally:
        leave()


def in_with() -> None:
    with goodbye():
        bug()


def behind_anything() -> None:
    try:
        bug()
    except Exception:  # noqa: BLE001 - the subject
        leave()


def behind_its_own_class_and_raised_again() -> None:
    try:
        bug()
    except KeyError:
        leave()
        raise


def behind_another_finally() -> None:
    try:
        bug()
    finally:
        try:
            list[int]()[0]
        except IndexError:
            leave()


def in_a_finally_of_a_clause() -> None:
    try:
        bytes([1]).index(0)
    except ValueError:
        try:
            bug()
        finally:
            leave()


def in_a_group() -> None:
    try:
        bug()
    finally:
        raise BaseExceptionGroup("tasks", [clients(), clients()])


def under_a_stopped_generator() -> None:
    try:
        bug()
    finally:
        try:
            next(iter(()))
        except StopIteration:
            leave()


@pytest.mark.parametrize(
    "app",
    [
        in_finally,
        in_with,
        behind_anything,
        behind_its_own_class_and_raised_again,
        behind_another_finally,
        in_a_finally_of_a_clause,
        in_a_group,
        under_a_stopped_generator,
    ],
)
def test_a_bug_under_a_clients_error_is_not_hidden(app: Callable[[], None]) -> None:
    error = raised(app)
    assert side_of(error) is Side.UNKNOWN
    own = unmask(error, GONE)
    assert type(own) is KeyError
    # With its own traceback, down to the line that raised it.
    assert [frame.f_code.co_name for frame in frames_of(own)][-1] == "bug"


def looked_up() -> None:
    try:
        bug()
    except (ValueError, KeyError):
        for _ in range(2):
            leave()


def timed_out() -> None:
    async def wait() -> None:
        try:
            await asyncio.wait_for(asyncio.Queue[int]().get(), 0)
        except TimeoutError:
            leave()

    asyncio.run(wait())


def drained_a_queue() -> None:
    try:
        queue.Queue[int]().get_nowait()
    except Exception:  # noqa: BLE001 - the subject
        leave()


def answered() -> None:
    class NotFound(class_named("werkzeug.exceptions.HTTPException")):  # type: ignore[misc]
        code = 404

    try:
        bug()
    except KeyError:
        try:
            raise NotFound()
        finally:
            leave()


@pytest.mark.parametrize("app", [looked_up, timed_out, drained_a_queue, answered])
def test_what_the_application_has_dealt_with_is_not_cried(app: Callable[[], None]) -> None:
    error = raised(app)
    assert side_of(error) is Side.CLIENT
    assert unmask(error, GONE) is error


def test_a_server_error_of_a_framework_is_no_answer() -> None:
    class Broken(class_named("starlette.exceptions.HTTPException")):  # type: ignore[misc]
        status_code = 503

    def app() -> None:
        try:
            raise Broken()
        finally:
            leave()

    assert type(unmask(raised(app), GONE)) is Broken


def test_what_was_handled_when_the_exchange_began_is_not_the_applications() -> None:
    def app(environ: object, start_response: object) -> list[bytes]:
        leave()
        return []

    reports: list[BaseException] = []

    def server() -> None:
        try:
            bug()
        except KeyError:
            # As a shim does: its frame is what stands between.
            namespace = {"__name__": "cleanclose.wsgi.test", "app": app, "look": look}
            exec("def call():\n try:\n  app({}, None)\n except OSError as e:\n  look(e)", namespace)
            cast("Callable[[], None]", namespace["call"])()

    def look(error: OSError) -> None:
        reports.append(unmask(error, GONE))

    server()
    assert type(reports[0]) is ConnectionResetError


def test_several_hidden_errors_are_a_group() -> None:
    group = ExceptionGroup(
        "tasks", [cast("Exception", raised(app)) for app in (in_with, in_finally)]
    )
    own = unmask(group, GONE)
    assert [type(each) for each in leaves(own)] == [KeyError, KeyError]


def test_what_is_not_all_the_clients_stays_as_it_is() -> None:
    group = ExceptionGroup("tasks", [cast("Exception", raised(in_finally)), ValueError()])
    assert unmask(group, GONE) is group


# Marks of other exchanges.


def test_a_mark_of_another_exchanges_connection_proves_nothing() -> None:
    error = reset()
    mark(error, GONE, "one")
    assert judge(error, None, Phase.HANDLER, "one") == GONE
    for departure in (None, GONE):
        assert judge(error, departure, Phase.HANDLER, "another").side is not Side.CLIENT
    assert pickle.loads(pickle.dumps(error)).args == error.args


def test_without_an_exchange_only_what_was_met_in_one_of_its_own_counts() -> None:
    home, elsewhere = reset(), reset()
    mark(home, GONE, "one")
    mark(elsewhere, GONE, "one", at_home=False)
    assert judge(home, None, Phase.HANDLER).side is Side.CLIENT
    assert judge(elsewhere, None, Phase.HANDLER).side is not Side.CLIENT
    assert judge(elsewhere, None, Phase.HANDLER, "one").side is Side.CLIENT


# Client libraries that send a body on.


def library_module(
    package: str, catches: str = "Exception", behind: str = ""
) -> Callable[[Callable[[], None]], None]:
    """A library's function, which makes an error of its own of what it reads."""
    code = f"""
class LibraryError(Exception):
    pass


def send(read):
    try:
        read()
    except {catches} as error:
        raise LibraryError(error){behind}
"""
    namespace: dict[str, object] = {"__name__": f"{package}.client"}
    exec(code, namespace)
    return cast("Callable[[Callable[[], None]], None]", namespace["send"])


def test_what_a_library_makes_of_a_clients_error_is_the_clients() -> None:
    inner, outer = library_module("urllib3"), library_module("requests")
    error = raised(lambda: outer(lambda: inner(leave)))
    assert side_of(error) is Side.CLIENT
    assert side_of(raised(lambda: inner(in_finally))) is Side.UNKNOWN


def test_a_library_may_give_its_own_error_the_others_traceback() -> None:
    # As urllib3's Retry.increment does it.
    send = library_module("urllib3", behind=".with_traceback(error.__traceback__)")
    assert side_of(raised(lambda: send(leave))) is Side.CLIENT
    assert side_of(raised(lambda: send(bug))) is Side.UNKNOWN


def test_what_it_makes_of_anything_else_is_not() -> None:
    send = library_module("requests")

    def upstream_reset() -> None:
        raise reset()

    assert side_of(raised(lambda: send(upstream_reset))) is Side.UPSTREAM
    # Any other package may be the application.
    assert side_of(raised(lambda: library_module("app")(leave))) is Side.UNKNOWN


def test_what_a_library_says_behind_a_clients_back_is_its_own() -> None:
    send = library_module("requests")

    def upstream_fails() -> None:
        raise OSError("no such host")

    def app() -> None:
        try:
            leave()
        except OSError:
            send(upstream_fails)

    assert side_of(raised(app)) is not Side.CLIENT


def test_who_raises_a_librarys_class_by_himself_is_not_the_library() -> None:
    cls = class_named("requests.exceptions.ConnectionError")

    def app() -> None:
        try:
            leave()
        except OSError as error:
            raise cls() from error

    assert side_of(raised(app)) is not Side.CLIENT


# Wrappers.


@pytest.mark.parametrize("name", sorted(WRAPPERS))
def test_a_wrapper_is_the_clients_if_the_exchange_has_a_witness(name: str) -> None:
    error = class_named(name)()
    assert side_of(error, None) is not Side.CLIENT
    assert side_of(error, GONE) is Side.CLIENT
    assert side_of(error, STOPPING) is Side.SERVER
    assert side_of(class_named("app.Own", type(error))(), GONE) is Side.CLIENT


def test_a_class_with_a_wrappers_name_in_another_module_is_none() -> None:
    assert side_of(class_named("app.ClientDisconnect")()) is Side.UNKNOWN


def test_a_wrapper_from_a_marked_one_is_the_clients() -> None:
    def framework() -> None:
        try:
            raise clients()
        except OSError as error:
            raise WRAPPER() from error

    assert side_of(raised(framework)) is Side.CLIENT


def test_a_wrapper_from_a_marked_one_needs_the_exchanges_witness_still() -> None:
    def framework() -> None:
        raise WRAPPER() from clients()

    assert side_of(raised(framework), None) is Side.UNKNOWN


def test_starlettes_word_for_any_oserror_of_a_stream_is_not_the_clients() -> None:
    def streaming_response() -> None:
        try:
            raise reset()
        except OSError:
            raise WRAPPER()  # noqa: B904 - as starlette.responses has it

    assert side_of(raised(streaming_response)) is Side.UPSTREAM


@pytest.mark.parametrize(
    "other",
    [
        OSError("disk full"),
        TimeoutError(),
        EOFError(),
        ExceptionGroup("", [ValueError()]),
        class_named("ssl.SSLError", OSError)(),
    ],
    ids=lambda error: type(error).__qualname__,
)
def test_a_wrapper_under_anything_that_may_be_another_connections(other: BaseException) -> None:
    def framework() -> None:
        try:
            raise other
        except BaseException:  # noqa: BLE001 - whatever it is
            raise WRAPPER()  # noqa: B904 - the context is the subject

    assert side_of(raised(framework)) is not Side.CLIENT

    def with_one_between() -> None:
        try:
            framework()
        except Exception:  # noqa: BLE001 - a wrapper
            raise WRAPPER()  # noqa: B904 - the context is the subject

    assert side_of(raised(with_one_between)) is not Side.CLIENT


@pytest.mark.parametrize("cause", [reset(), ValueError(), WRAPPER], ids=["reset", "bug", "class"])
def test_a_wrapper_from_something_else_is_not_the_clients(
    cause: BaseException | type[BaseException],
) -> None:
    def app() -> None:
        raise WRAPPER() from (ValueError() if isinstance(cause, type) else cause)

    assert side_of(raised(app)) is not Side.CLIENT


# Groups.


def test_a_group_is_the_clients_if_every_leaf_is() -> None:
    group = BaseExceptionGroup("", [clients(), BaseExceptionGroup("", [WRAPPER(), clients()])])
    assert side_of(group) is Side.CLIENT
    assert side_of(group, None) is not Side.CLIENT


@pytest.mark.parametrize(
    "other",
    [ValueError(), reset(), asyncio.CancelledError(), OSError(), KeyboardInterrupt()],
    ids=lambda error: type(error).__qualname__,
)
@pytest.mark.parametrize("deep", [False, True], ids=["flat", "nested"])
def test_one_other_leaf_speaks_for_the_group(other: BaseException, deep: bool) -> None:
    leaf = BaseExceptionGroup("", [clients(), other]) if deep else other
    for held in ([clients(), leaf], [leaf, clients()]):
        assert side_of(BaseExceptionGroup("", held)) is not Side.CLIENT


def test_a_marked_group_is_judged_by_its_leaves() -> None:
    group = ExceptionGroup("", [ValueError()])
    mark(group, GONE)
    assert side_of(group) is Side.UNKNOWN


def test_a_group_raised_from_something_else_is_about_that_too() -> None:
    def app() -> None:
        raise BaseExceptionGroup("", [clients()]) from reset()

    assert side_of(raised(app)) is Side.UPSTREAM


def test_an_upstreams_loss_under_a_group_is_not_hidden() -> None:
    def app() -> None:
        try:
            raise reset()
        finally:
            raise BaseExceptionGroup("", [clients()])

    assert side_of(raised(app)) is Side.UPSTREAM


def test_a_group_with_the_same_leaves_over_and_over_takes_no_time() -> None:
    group: BaseException = clients()
    for _ in range(200):
        group = BaseExceptionGroup("", [group, group])
    assert side_of(group) is Side.CLIENT


def test_a_group_deeper_than_the_stack_is_judged() -> None:
    group: BaseException = clients()
    for _ in range(5000):
        group = BaseExceptionGroup("", [group])
    assert side_of(group) is Side.CLIENT


# Chains that bite their own tails.


def test_cyclic_chains_come_to_an_end() -> None:
    for make in (ValueError, WRAPPER, clients):
        one, two = make(), make()
        one.__context__, two.__context__ = two, one
        assert side_of(one) is side_of(make())
        one.__cause__, two.__cause__ = two, one
        side_of(one)
        one.__cause__ = one
        side_of(one)
        one.__cause__ = two.__cause__ = one.__context__ = two.__context__ = None


# Odd classes.


def test_an_attribute_that_raises_does_not_reach_the_request() -> None:
    def sqlstate(self: object) -> str:
        raise RuntimeError("no connection")

    cls = class_named("psycopg.OperationalError")
    cls.sqlstate = property(sqlstate)  # type: ignore[attr-defined]
    assert side_of(cls()) is Side.UNKNOWN


@pytest.mark.parametrize(
    ("module", "kind", "text"),
    [
        ("asgiref.wsgi", ValueError, "WSGI wrapper received a non-HTTP-request message"),
        ("radicale.httputils", RuntimeError, "Request body too short: 17"),
    ],
)
def test_a_word_that_is_no_class_of_its_own(module: str, kind: type[Exception], text: str) -> None:
    def said(kind: type[Exception], text: str, module: str) -> BaseException:
        namespace: dict[str, Any] = {"__name__": module, "kind": kind, "text": text}
        exec("def say():\n raise kind(text)", namespace)
        return raised(namespace["say"])

    assert is_wrapper(said(kind, text, module))
    assert not is_wrapper(said(kind, text, "service.views"))
    assert not is_wrapper(said(kind, "something else", module))
    assert not is_wrapper(said(LookupError, text, module))
    assert not is_wrapper(kind(text))
