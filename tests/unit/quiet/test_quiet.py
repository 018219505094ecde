"""The log filter: what it lowers, what it leaves alone, and how it comes and goes."""

from __future__ import annotations

import dataclasses
import gc
import logging
import logging.config
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import flask
import pytest
import tornado
import uvicorn

from cleanclose.asgi import CleanCloseMiddleware
from cleanclose.core import (
    Facts,
    Levels,
    Mechanism,
    Phase,
    Side,
    Verdict,
    Watch,
    Witness,
    reset,
    snapshot,
)
from cleanclose.core.blame.departures import DEPARTURE_LISTENERS
from cleanclose.core.blame.judge import mark
from cleanclose.core.blame.watch import CURRENT
from cleanclose.quiet import (
    LOGGERS,
    QuietLogs,
    install_quiet_logs,
    uninstall_quiet_logs,
)
from cleanclose.quiet import filter as quiet_filter

QUIETED = "cleanclose_quieted_records_total"
GONE = Verdict(
    side=Side.CLIENT,
    phase=Phase.REQUEST_BODY,
    mechanism=Mechanism.RESET,
    witnesses=(Witness.RECEIVE, Witness.SEND),
)
UVICORN_FILE = str(Path(uvicorn.__file__).parent / "protocols" / "http" / "h11_impl.py")
TORNADO_FILE = str(Path(tornado.__file__).parent / "web.py")
CANNOT_SEND = "Cannot send error response after headers written"


Log = Callable[[logging.Logger], None]


class PlainWatch(Watch):
    """A shim's watch, with nothing around it."""

    @property
    def status(self) -> int | None:
        return None

    def facts(self) -> Facts:
        return Facts(framework="test", server="test", method="GET")


class Handler(logging.Handler):
    """Keeps what reaches it."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    uninstall_quiet_logs()
    reset()
    yield
    uninstall_quiet_logs()
    logging.disable(logging.NOTSET)


@pytest.fixture
def logger(request: pytest.FixtureRequest) -> logging.Logger:
    """A logger of a user's own, with the filter, at DEBUG."""
    logger = logging.getLogger(f"test.{request.node.originalname}")
    logger.handlers.clear()
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(Handler())
    install_quiet_logs(loggers=[logger.name])
    return logger


@pytest.fixture
def gone() -> Iterator[PlainWatch]:
    """An exchange whose peer has left."""
    watch = PlainWatch(0.0)
    watch.departure = GONE
    token = CURRENT.set(watch)
    yield watch
    CURRENT.reset(token)


def emitted(logger: logging.Logger) -> list[logging.LogRecord]:
    (handler,) = (handler for handler in logger.handlers if isinstance(handler, Handler))
    return handler.records


def clients() -> ConnectionResetError:
    try:
        raise ConnectionResetError(104, "Connection reset by peer")
    except ConnectionResetError as error:
        mark(error, GONE)
        return error


def others() -> ConnectionResetError:
    return ConnectionResetError(104, "Connection reset by peer")


def record_of(
    name: str, message: str = "failed", *, file: str = "app.py", error: BaseException | None = None
) -> logging.LogRecord:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord(name, logging.ERROR, file, 1, message, (), exc_info)


def somebody_leaves() -> None:
    PlainWatch(0.0).peer_gone(Witness.RECEIVE, 1.0)


def quieted() -> float:
    return snapshot()[QUIETED]


# What is lowered.


def test_a_record_with_a_clients_error_has_the_departures_level_and_fields(
    logger: logging.Logger,
) -> None:
    logger.error("it failed: %s", "why", exc_info=clients(), stack_info=True)
    (record,) = emitted(logger)
    assert (record.levelno, record.levelname) == (logging.DEBUG, "DEBUG")
    assert record.getMessage() == "it failed: why"
    assert (record.exc_info, record.exc_text, record.stack_info) == (None, None, None)
    fields = {name: value for name, value in vars(record).items() if name.startswith("cleanclose_")}
    assert fields == {
        "cleanclose_side": "client",
        "cleanclose_phase": "request_body",
        "cleanclose_mechanism": "reset",
        "cleanclose_witnesses": "receive,send",
    }
    assert vars(record)["original_level"] == logging.ERROR
    assert quieted() == 1
    assert "Traceback" not in logging.Formatter().format(record)


LOWERED: dict[str, Log] = {
    "argument": lambda logger: logger.error("failed: %r", clients()),
    "mapping": lambda logger: logger.error("failed: %(error)r", {"error": clients()}),
    "message": lambda logger: logger.error(clients()),
    "warning": lambda logger: logger.warning("failed", exc_info=clients()),
    "own level": lambda logger: logger.log(35, "failed", exc_info=clients()),
    "both": lambda logger: logger.error("%s", clients(), exc_info=clients()),
}


@pytest.mark.parametrize("what", LOWERED)
def test_wherever_the_record_has_the_error(logger: logging.Logger, what: str) -> None:
    LOWERED[what](logger)
    (record,) = emitted(logger)
    assert record.levelno == logging.DEBUG


def test_a_record_whose_new_level_is_off_ends_here(logger: logging.Logger) -> None:
    logger.setLevel(logging.INFO)
    logger.error("failed", exc_info=clients())
    logger.setLevel(logging.DEBUG)
    logging.disable(logging.INFO)
    logger.error("failed", exc_info=clients())
    assert emitted(logger) == []
    assert quieted() == 2


def test_a_wrapper_needs_the_exchanges_witness(logger: logging.Logger) -> None:
    wrapper = type("ClientDisconnect", (Exception,), {"__module__": "starlette.requests"})
    logger.error("failed", exc_info=wrapper())
    watch = PlainWatch(0.0)
    token = CURRENT.set(watch)
    try:
        logger.error("failed", exc_info=wrapper())
        watch.peer_gone(Witness.RECEIVE, 1.0)
        logger.error("failed", exc_info=wrapper())
        watch.ended = True
        logger.error("failed", exc_info=wrapper())
    finally:
        CURRENT.reset(token)
    assert [record.levelno for record in emitted(logger)] == [40, 40, 10, 40]


@pytest.mark.parametrize(
    ("levels", "phase", "side", "wanted"),
    [
        (Levels(graded=True), Phase.HANDLER, Side.CLIENT, logging.INFO),
        (Levels(graded=True), Phase.WEBSOCKET, Side.CLIENT, logging.DEBUG),
        (Levels(), Phase.HANDLER, Side.SERVER, logging.WARNING),
        (Levels(rows={"client_departed": 21}), Phase.WEBSOCKET, Side.CLIENT, 21),
        (Levels(rows={"client_departed.midway": 40}), Phase.HANDLER, Side.CLIENT, 40),
        (Levels(rows={"client_departed.midway": 50}), Phase.HANDLER, Side.CLIENT, 40),
    ],
)
def test_the_level_is_the_tables(
    logger: logging.Logger,
    gone: PlainWatch,
    levels: Levels,
    phase: Phase,
    side: Side,
    wanted: int,
) -> None:
    gone.departure = Verdict(side=side, phase=phase, witnesses=(Witness.RECEIVE,))
    install_quiet_logs(levels, [logger.name])
    logger.error("failed", exc_info=clients())
    (record,) = emitted(logger)
    assert record.levelno == wanted
    # What is not lowered stays whole.
    assert (record.exc_info is None) == hasattr(record, "original_level") == (wanted < 40)


# What is not.


UNTOUCHED: dict[str, Log] = {
    "another's": lambda logger: logger.error("failed", exc_info=others()),
    "another's as an argument": lambda logger: logger.error("failed: %r", others()),
    "two kinds": lambda logger: logger.error("failed: %r", others(), exc_info=clients()),
    "two arguments": lambda logger: logger.error("%r %r", clients(), others()),
    "another's as the message": lambda logger: logger.error(others(), exc_info=clients()),
    "text": lambda logger: logger.error("Connection reset by peer"),
    "asyncio's words": lambda logger: logger.error("socket.send() raised exception."),
    "tornado's words": lambda logger: logger.error(CANNOT_SEND),
    "group": lambda logger: logger.error(
        "failed", exc_info=ExceptionGroup("", [clients(), others()])
    ),
    "bug": lambda logger: logger.error("failed", exc_info=ValueError()),
    "critical": lambda logger: logger.critical("failed", exc_info=clients()),
    "above critical": lambda logger: logger.log(60, "failed", exc_info=clients()),
    "info": lambda logger: logger.info("failed", exc_info=clients()),
    "nothing": lambda logger: logger.error("failed", exc_info=(None, None, None)),
}


def is_filter(each: object) -> bool:
    return isinstance(each, QuietLogs)


def test_a_name_may_stand_for_a_loggers_children() -> None:
    there = logging.getLogger("test.family.child.grandchild")
    other = logging.getLogger("test.familiar")
    install_quiet_logs(loggers=["test.family.*"])
    later = logging.getLogger("test.family.later")
    somebody_leaves()
    named = logging.getLogger("test.family")
    assert all(any(map(is_filter, each.filters)) for each in (there, later, named))
    assert not other.filters
    uninstall_quiet_logs()
    assert not any(each.filters for each in (there, later, named))


CHERRYPY_FILE = "/site-packages/cherrypy/_cplogging.py"


@pytest.fixture
def cherrypy(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """The logger of an application of CherryPy's, which is in use."""
    module = ModuleType("cherrypy")
    module.__file__ = "/site-packages/cherrypy/__init__.py"
    monkeypatch.setitem(sys.modules, "cherrypy", module)
    return logging.getLogger("cherrypy.error.140")


def test_a_frameworks_loggers_for_each_application_are_known(cherrypy: logging.Logger) -> None:
    install_quiet_logs()
    somebody_leaves()
    (known,) = (each for each in cherrypy.filters if isinstance(each, QuietLogs))
    assert not known.filter(record_of(cherrypy.name, file=CHERRYPY_FILE, error=clients()))
    assert known.filter(record_of(cherrypy.name, file="app.py", error=clients()))


def test_on_children_that_a_user_has_named_all_lines_count(cherrypy: logging.Logger) -> None:
    install_quiet_logs()
    somebody_leaves()
    install_quiet_logs(loggers=["cherrypy.*"])
    (known,) = (each for each in cherrypy.filters if isinstance(each, QuietLogs))
    assert not known.filter(record_of(cherrypy.name, file="app.py", error=clients()))


def test_those_of_a_package_that_is_not_in_use_stay_untouched() -> None:
    theirs = logging.getLogger("mcp.server.test")
    assert "mcp" not in sys.modules
    install_quiet_logs()
    somebody_leaves()
    assert not theirs.filters


def test_the_root_logger_may_be_named() -> None:
    install_quiet_logs(loggers=["root"])
    assert any(map(is_filter, logging.root.filters))
    uninstall_quiet_logs()
    assert not any(map(is_filter, logging.root.filters))


FORBIDDEN = "Forbidden (%s): %s"


@pytest.mark.parametrize("reason", ["CSRF token missing.", "CSRF token incorrect."])
@pytest.mark.parametrize("phase", [Phase.REQUEST_BODY, Phase.HANDLER])
def test_a_token_that_was_in_the_half_which_never_came(
    gone: PlainWatch, phase: Phase, reason: str
) -> None:
    gone.departure = dataclasses.replace(GONE, phase=phase)
    record = logging.LogRecord(
        "django.security.csrf", logging.WARNING, "", 1, FORBIDDEN, (reason, "/form"), None
    )
    QuietLogs().filter(record)
    is_lowered = reason == "CSRF token missing." and phase is Phase.REQUEST_BODY
    assert (record.levelno < logging.WARNING) is is_lowered


def test_a_token_that_a_client_which_is_there_has_not_sent() -> None:
    record = logging.LogRecord(
        "django.security.csrf",
        logging.WARNING,
        "",
        1,
        FORBIDDEN,
        ("CSRF token missing.", "/form"),
        None,
    )
    QuietLogs().filter(record)
    assert record.levelno == logging.WARNING


@pytest.mark.parametrize("what", UNTOUCHED)
def test_all_else_stays_as_it_was(logger: logging.Logger, gone: PlainWatch, what: str) -> None:
    log = UNTOUCHED[what]
    log(logger)
    install_quiet_logs(loggers=["other"])
    uninstall_quiet_logs()
    log(logger)
    filtered, unfiltered = emitted(logger)
    assert filtered.levelno == unfiltered.levelno
    assert filtered.msg == unfiltered.msg or isinstance(filtered.msg, Exception)
    assert bool(filtered.exc_info) == bool(unfiltered.exc_info)
    assert not hasattr(filtered, "original_level")
    assert quieted() == 0


def test_a_live_clients_error_says_nothing_about_a_message(
    logger: logging.Logger, gone: PlainWatch
) -> None:
    try:
        raise clients()
    except OSError:
        logger.error("The order could not be saved")
    (record,) = emitted(logger)
    assert record.levelno == logging.ERROR


def test_logging_works_whatever_is_logged(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(record: logging.LogRecord, lines: object) -> None:
        raise RuntimeError("in the filter")

    monkeypatch.setattr(quiet_filter, "verdict_of_record", fails)
    logger.error("failed", exc_info=clients())
    (record,) = emitted(logger)
    assert record.levelno == logging.ERROR


def test_what_is_below_warning_is_not_looked_at(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[logging.LogRecord] = []

    def look(record: logging.LogRecord, lines: object) -> None:
        looked_at.append(record)

    monkeypatch.setattr(quiet_filter, "verdict_of_record", look)
    logger.info("as many as there are", exc_info=clients())
    logger.warning("a few")
    assert [record.levelno for record in looked_at] == [logging.WARNING]


# Records that have no exception.


def test_a_text_that_shows_the_live_error_is_judged_by_it(logger: logging.Logger) -> None:
    for error in (clients(), others(), ValueError()):
        try:
            raise error
        except Exception:  # noqa: BLE001 - three kinds
            logger.error("Error on request:\n%s", traceback.format_exc())
            logger.error(traceback.format_exc())
            logger.error(traceback.format_exc() + "and then some")  # noqa: G003
    levels = [record.levelno for record in emitted(logger)]
    assert levels == [10, 10, 40, *[40] * 6]


def test_a_text_that_shows_another_error_is_left_alone(logger: logging.Logger) -> None:
    try:
        raise others()
    except OSError:
        text = traceback.format_exc()
    try:
        raise clients()
    except OSError:
        logger.error(text)
    (record,) = emitted(logger)
    assert record.levelno == logging.ERROR


def test_tornados_word_about_the_error_that_it_handles() -> None:
    filter_ = QuietLogs()
    record = record_of("tornado.general", CANNOT_SEND, file=TORNADO_FILE)
    for error, lowered in ((clients(), True), (others(), False), (ValueError(), False)):
        record = record_of("tornado.general", CANNOT_SEND, file=TORNADO_FILE)
        try:
            raise error
        except Exception:  # noqa: BLE001 - three kinds
            filter_.filter(record)
        assert (record.levelno == logging.DEBUG) is lowered
    record = record_of("tornado.general", CANNOT_SEND, file=TORNADO_FILE)
    filter_.filter(record)
    assert record.levelno == logging.ERROR


# Whose lines.


def test_an_applications_own_words_on_a_servers_logger_are_its_own() -> None:
    install_quiet_logs()
    (filter_,) = (f for f in logging.getLogger("uvicorn.error").filters)
    assert isinstance(filter_, QuietLogs)
    for file, wanted in ((UVICORN_FILE, logging.DEBUG), (__file__, logging.ERROR)):
        record = record_of("uvicorn.error", file=file, error=clients())
        filter_.filter(record)
        assert record.levelno == wanted


def test_on_a_logger_that_the_user_has_named_all_lines_count(logger: logging.Logger) -> None:
    logger.error("failed", exc_info=clients())
    (record,) = emitted(logger)
    assert record.levelno == logging.DEBUG


def test_flasks_own_lines_on_an_applications_logger() -> None:
    app = flask.Flask("test_flasks_own_lines")
    install_quiet_logs(app=Holder(Holder(app.wsgi_app)))
    assert app.name not in logging.root.manager.loggerDict
    somebody_leaves()
    logger = logging.getLogger(app.name)
    handler = Handler()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    with app.test_request_context("/path"):
        for error in (clients(), others()):
            try:
                raise error
            except OSError:
                app.log_exception(cast("Any", sys.exc_info()))
        app.logger.error("in the view's own words", exc_info=clients())
    assert [record.levelno for record in handler.records] == [10, 40, 40]


class Holder:
    """Any middleware."""

    def __init__(self, app: object) -> None:
        self.app = app

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no proxy is asked")


@pytest.mark.parametrize("how", ["itself", "method", "held", "held twice", "cycle"])
def test_an_application_is_found_in_what_holds_it(how: str) -> None:
    app = flask.Flask(f"found_{how.replace(' ', '_')}")
    holder = Holder(app)
    if how == "cycle":
        holder.app = Holder(holder)
        holder.application = app  # type: ignore[attr-defined]
    given: object = {
        "itself": app,
        "method": app.wsgi_app,
        "held": Holder(app.wsgi_app),
        "held twice": Holder(Holder(app)),
        "cycle": holder,
    }[how]
    install_quiet_logs(app=given)
    somebody_leaves()
    assert filters_of(app.name)


@pytest.mark.parametrize("app", [None, object(), lambda: None, print, 1, type])
def test_any_application_will_do(app: object) -> None:
    install_quiet_logs(app=app)
    install_quiet_logs(app=Holder(app))


# Coming and going.


def is_ours(listener: object) -> bool:
    """Whether the filter's installation listens, and not an outlet of another test."""
    return getattr(listener, "__module__", None) == "cleanclose.quiet.installation"


def filters_of(name: str) -> list[object]:
    logger = logging.root.manager.loggerDict.get(name)
    if not isinstance(logger, logging.Logger):
        return []
    return [filter_ for filter_ in logger.filters if isinstance(filter_, QuietLogs)]


def loggers_with_filter() -> set[str]:
    return {name for name in logging.root.manager.loggerDict if filters_of(name)}


def test_installing_twice_is_installing_once() -> None:
    install_quiet_logs()
    before = loggers_with_filter()
    install_quiet_logs()
    assert loggers_with_filter() == before
    assert all(len(filters_of(name)) == 1 for name in before)
    assert len([each for each in DEPARTURE_LISTENERS if is_ours(each)]) == 1
    uninstall_quiet_logs()
    assert loggers_with_filter() == set()
    assert not any(map(is_ours, DEPARTURE_LISTENERS))
    uninstall_quiet_logs()


def test_a_second_call_adds_to_the_first() -> None:
    for name in ("test.one", "test.two"):
        logging.getLogger(name)
        install_quiet_logs(loggers=[name])
    assert loggers_with_filter() == {"test.one", "test.two"}


def test_other_filters_stay() -> None:
    own = logging.Filter()
    logger = logging.getLogger("test.other_filters")
    logger.addFilter(own)
    install_quiet_logs(loggers=[logger.name])
    assert len(logger.filters) == 2
    uninstall_quiet_logs()
    assert logger.filters == [own]
    logger.removeFilter(own)


def test_no_logger_is_made_before_somebody_has_left() -> None:
    names = {"test.made.later", "werkzeug"}
    for name in names:
        logging.root.manager.loggerDict.pop(name, None)
    before = set(logging.root.manager.loggerDict)
    install_quiet_logs(loggers=[*LOGGERS, "test.made.later"])
    assert set(logging.root.manager.loggerDict) == before
    # What it would have lost: this disables all loggers that there are.
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
    somebody_leaves()
    made = set(logging.root.manager.loggerDict) - before - {"test", "test.made"}
    assert "test.made.later" in made
    assert all(name.partition(".")[0] in sys.modules for name in made - {"test.made.later"})
    assert filters_of("test.made.later")
    assert not logging.getLogger("test.made.later").disabled


@pytest.mark.parametrize("incremental", [False, True])
def test_it_stays_when_logging_is_configured_later(incremental: bool) -> None:
    logger = logging.getLogger("test.configured")
    install_quiet_logs(loggers=[logger.name])
    logging.config.dictConfig(
        {
            "version": 1,
            "incremental": incremental,
            "disable_existing_loggers": False,
            "loggers": {logger.name: {"level": "INFO", "handlers": [], "filters": []}},
        }
    )
    assert filters_of(logger.name)


@pytest.mark.parametrize("loggers", ["uvicorn.error", [1], [None]])
def test_wrong_names_are_refused(loggers: Any) -> None:
    with pytest.raises(ValueError, match="loggers must be a collection of names"):
        install_quiet_logs(loggers=loggers)
    assert not any(map(is_ours, DEPARTURE_LISTENERS))


def test_the_one_line_installs_it_and_quiet_logs_false_does_not() -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        """Nothing."""

    CleanCloseMiddleware(app, quiet_logs=False)
    assert loggers_with_filter() == set()
    CleanCloseMiddleware(app, graded_levels=True)
    assert {"asyncio", "uvicorn.error"} <= loggers_with_filter()
    (filter_,) = filters_of("uvicorn.error")
    assert isinstance(filter_, QuietLogs)
    assert filter_.levels.of_row("client_departed.midway") == logging.INFO


def test_many_threads_install_and_log_at_once(logger: logging.Logger) -> None:
    def work() -> None:
        for _ in range(50):
            install_quiet_logs(loggers=[logger.name, "test.threads"])
            somebody_leaves()
            logger.error("failed", exc_info=clients())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {record.levelno for record in emitted(logger)} == {logging.DEBUG}
    assert quieted() == 200
    assert len(filters_of(logger.name)) == 1


def test_a_record_leaves_nothing_to_the_cyclic_collector(logger: logging.Logger) -> None:
    def log() -> None:
        error = clients()
        logger.error("failed", exc_info=error)
        emitted(logger).clear()
        error.__traceback__ = None

    log()
    gc.collect()
    log()
    assert gc.collect() == 0


def test_its_names_are_those_that_servers_use() -> None:
    """Each module is looked into for the name: a renamed logger would go unfiltered."""
    homes = {
        "uvicorn.error": "uvicorn/protocols/http/h11_impl.py",
        "tornado.application": "tornado/log.py",
        "tornado.general": "tornado/log.py",
        "gunicorn.error": "gunicorn/glogging.py",
        "werkzeug": "werkzeug/_internal.py",
    }
    packages = Path(uvicorn.__file__).parents[1]
    for name, home in homes.items():
        assert name in LOGGERS
        assert f'"{name}"' in (packages / home).read_text("utf-8"), name
