"""What says that a connection was lost, and whose library it was."""

from __future__ import annotations

import errno

import pytest

from cleanclose.core.blame.provenance import chain, leaves
from cleanclose.core.blame.upstreams import (
    LIKELY_CAUSES,
    LOST,
    library_of,
    likely_cause_of,
    lost_upstream,
)


def class_named(name: str, *bases: type[BaseException]) -> type[BaseException]:
    module, _, qualname = name.rpartition(".")
    return type(qualname, bases or (Exception,), {"__module__": module, "__qualname__": qualname})


def nobodys(error: BaseException) -> bool:
    return False


REDIS = class_named("redis.exceptions.ConnectionError")
PIKA = class_named("pika.exceptions.StreamLostError")
CLOSED = "Connection closed by server."
RESET = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


# Resets.


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        BrokenPipeError(),
        ConnectionAbortedError(),
        OSError(errno.ENOTCONN, "not connected"),
        OSError(errno.ESHUTDOWN, "shut down"),
        class_named("app.Own", ConnectionResetError)(),
    ],
    ids=lambda error: type(error).__qualname__,
)
def test_a_reset_is_a_lost_connection(error: BaseException) -> None:
    assert lost_upstream(error, nobodys) is error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        OSError(errno.EHOSTUNREACH, "no route"),
        FileNotFoundError(errno.ENOENT, "no such file"),
        TimeoutError(errno.ETIMEDOUT, "timed out"),
        OSError("Connection reset by peer"),
        ValueError("Connection reset by peer"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__qualname__,
)
def test_what_is_no_loss_is_none(error: BaseException) -> None:
    assert lost_upstream(error, nobodys) is None


def test_what_is_in_the_chain_counts() -> None:
    error, below = RuntimeError(), KeyError()
    error.__cause__, below.__context__ = below, RESET
    assert lost_upstream(error, nobodys) is RESET
    assert lost_upstream(ExceptionGroup("", [ValueError(), error]), nobodys) is RESET


def test_what_was_cut_off_from_the_chain_does_not() -> None:
    error = RuntimeError()
    error.__context__ = RESET
    error.__suppress_context__ = True
    assert lost_upstream(error, nobodys) is None


def test_the_systems_own_word_comes_before_the_librarys() -> None:
    error = REDIS(CLOSED)
    error.__context__ = RESET
    assert lost_upstream(error, nobodys) is RESET
    assert lost_upstream(REDIS(CLOSED), nobodys) is not None


def test_a_clients_error_says_nothing_about_an_upstream() -> None:
    clients = ConnectionResetError()
    error = RuntimeError()
    error.__cause__ = clients

    def is_clients(each: BaseException) -> bool:
        return each is clients

    assert lost_upstream(error, is_clients) is None
    clients.__context__ = RESET
    assert lost_upstream(error, is_clients) is RESET
    # The server's own ``from`` says nothing about what the application was at.
    clients.__suppress_context__ = True
    assert lost_upstream(error, is_clients) is RESET
    assert lost_upstream(error, nobodys) is clients
    error.__cause__, error.__context__ = None, RESET
    assert lost_upstream(error, is_clients) is None


# Libraries.


@pytest.mark.parametrize("name", LOST)
def test_each_name_is_a_full_one_and_a_subclass_means_the_same(name: str) -> None:
    module, _, qualname = name.rpartition(".")
    assert module
    assert qualname
    own, derived = class_named(name)(), class_named("app.Own", class_named(name))()
    if lost_upstream(own, nobodys) is own and not name.startswith("redis."):
        assert lost_upstream(derived, nobodys) is derived


def test_redis_says_other_things_by_subclasses() -> None:
    assert lost_upstream(class_named("redis.exceptions.BusyLoadingError", REDIS)(), nobodys) is None
    assert lost_upstream(REDIS("Error 111 connecting to localhost:6379."), nobodys) is None


@pytest.mark.parametrize("code", [2006, 2013, 2055])
def test_mysqls_client_has_numbers_for_it(code: int) -> None:
    cls = class_named("pymysql.err.OperationalError")
    assert lost_upstream(cls(code, "gone"), nobodys) is not None
    for other in (cls(1045, "Access denied"), cls(2003, "Can't connect"), cls(), cls("2006")):
        assert lost_upstream(other, nobodys) is None


def test_what_the_database_itself_says_is_no_loss() -> None:
    cls = class_named("psycopg.OperationalError")
    lost, said = cls("the connection is closed"), cls("deadlock detected")
    said.sqlstate = "40P01"  # type: ignore[attr-defined]
    assert lost_upstream(lost, nobodys) is lost
    assert lost_upstream(said, nobodys) is None


POOL = class_named("psycopg_pool.PoolTimeout", class_named("psycopg.OperationalError"))
MONGO = class_named("pymongo.errors.AutoReconnect")


@pytest.mark.parametrize(
    "error",
    [
        POOL("couldn't get a connection after 30.00 sec"),
        class_named("psycopg_pool.PoolClosed", class_named("psycopg.OperationalError"))("closed"),
        class_named("psycopg2.OperationalError")('definition of service "x" not found'),
        class_named("psycopg2.OperationalError")('invalid port number: "x"'),
        class_named("pymongo.errors.ServerSelectionTimeoutError", MONGO)("connection closed"),
        class_named("pymongo.errors.NetworkTimeout", MONGO)("timed out"),
        class_named("pymongo.errors.NotPrimaryError", MONGO)("not primary"),
        MONGO("connection pool paused"),
        REDIS("No connection available."),
        REDIS("Too many connections"),
        REDIS("max number of clients reached"),
        class_named("redis.exceptions.MaxConnectionsError", REDIS)("Too many connections"),
        class_named("smtplib.SMTPServerDisconnected")("please run connect() first"),
        class_named(
            "amqp.exceptions.Blocked", class_named("amqp.exceptions.RecoverableConnectionError")
        )(),
    ],
    ids=lambda error: f"{type(error).__qualname__}-{error}",
)
def test_what_was_never_connected_or_had_no_place_is_no_loss(error: BaseException) -> None:
    assert lost_upstream(error, nobodys) is None


def test_a_refused_stream_of_tornados_is_no_loss() -> None:
    error = class_named("tornado.iostream.StreamClosedError")()
    assert lost_upstream(error, nobodys) is error
    error.real_error = ConnectionRefusedError(errno.ECONNREFUSED, "refused")  # type: ignore[attr-defined]
    assert lost_upstream(error, nobodys) is None


@pytest.mark.parametrize("name", LOST)
def test_an_odd_object_with_such_a_name_breaks_nothing(name: str) -> None:
    def fails(self: object, attribute: str) -> object:
        raise RuntimeError(attribute)

    cls = type("Odd", (class_named(name),), {"__getattr__": fails, "__str__": None})
    error = cls(object())
    lost_upstream(error, nobodys)
    library_of(error, nobodys)
    likely_cause_of(error, nobodys)


def test_the_library_is_the_one_whose_word_it_is() -> None:
    error = REDIS(CLOSED)
    error.__cause__ = RESET
    assert library_of(error, nobodys) == "redis"
    assert library_of(RESET, nobodys) is None
    assert library_of(RESET, lambda error: True) is None


def test_a_class_of_no_module_has_no_library() -> None:
    cls = type("Odd", (ConnectionResetError,), {"__module__": None})
    assert library_of(cls(), nobodys) is None


def test_the_likely_cause_is_told_where_it_is_known() -> None:
    error = RuntimeError()
    error.__cause__ = PIKA()
    assert likely_cause_of(error, nobodys) == "missed heartbeats"
    assert likely_cause_of(RESET, nobodys) is None


def test_a_cause_is_known_only_of_what_is_a_loss() -> None:
    assert set(LIKELY_CAUSES) <= set(LOST)


# Chains.


def test_a_chain_has_each_exception_once() -> None:
    one, two, three = ValueError(), KeyError(), OSError()
    one.__cause__, two.__context__, three.__context__ = two, three, one
    group = ExceptionGroup("", [one, two, ExceptionGroup("", [three, one])])
    found = list(chain(group))
    assert len(found) == len({id(each) for each in found}) == 5
    assert list(leaves(group)) == list(group.exceptions)
    assert leaves(one) == ()
    one.__cause__ = two.__context__ = three.__context__ = None
