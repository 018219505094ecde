"""Proofs that need a call stack: records of the server about this very connection."""

from __future__ import annotations

import logging
import types
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from cleanclose.asgi._websocket import WebSocketWatch
from cleanclose.core import Witness
from cleanclose.core.blame.records import verdict_of_errors
from cleanclose.core.blame.watch import CURRENT, OPEN
from cleanclose.quiet import QuietLogs

IN_VAIN = "socket.send() raised exception."
SERVER = """
class Protocol:
    async def receive(self):
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(self, message):
        self.write(message)

    def write(self, message):
        message["do"]()

    def clean_up(self, do):
        do()

async def wrap(send, message):
    await send(message)
"""


def module_of(name: str) -> Any:
    """A server's module, under a name."""
    module = types.ModuleType(name)
    exec(SERVER, vars(module))
    return module


server_module = module_of("someserver.protocol")
other_module = module_of("otherserver.protocol")


@pytest.fixture
def server() -> Any:
    return server_module.Protocol()


@pytest.fixture
def watch(server: Any) -> Iterator[WebSocketWatch]:
    watch = WebSocketWatch()
    watch.started = 0.0
    watch.progress = OPEN
    watch.scope = {"type": "websocket"}
    watch.server_receive = server.receive
    watch.send_to = server.send
    watch.plain = True
    watch.emptied = None
    token = CURRENT.set(watch)
    yield watch
    CURRENT.reset(token)


class Warnings(logging.Handler):
    """Keeps the levels of the warnings which asyncio's own code has logged."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.levels.append(record.levelno)

    def write(self, name: str = "asyncio", message: str = IN_VAIN) -> Callable[[], None]:
        """A transport's method, which finds its connection lost."""
        logger = logging.getLogger(name)
        namespace = {"__name__": "asyncio.selector_events", "logger": logger, "text": message}
        exec("def write(self=None):\n    logger.warning(text)\n", namespace)
        return cast("Callable[[], None]", namespace["write"])


@pytest.fixture
def warnings() -> Iterator[Warnings]:
    handler, filter_ = Warnings(), QuietLogs()
    loggers = [logging.getLogger(name) for name in ("asyncio", "test.records")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.addFilter(filter_)
        logger.setLevel(logging.DEBUG)
    yield handler
    for logger, level in zip(loggers, before, strict=True):
        logger.removeHandler(handler)
        logger.removeFilter(filter_)
        logger.setLevel(level)


def send(watch: WebSocketWatch, do: Callable[[], None]) -> None:
    coroutine = watch.send({"type": "websocket.send", "do": do})
    with pytest.raises(StopIteration):
        coroutine.send(None)


# Writes in vain.


def test_a_write_inside_of_the_servers_send_is_the_exchanges(
    watch: WebSocketWatch, warnings: Warnings
) -> None:
    watch.peer_gone(Witness.RECEIVE, 1.0)
    send(watch, warnings.write())
    assert warnings.levels == [logging.DEBUG]


def test_without_a_witness_it_proves_nothing(watch: WebSocketWatch, warnings: Warnings) -> None:
    send(watch, warnings.write())
    assert warnings.levels == [logging.WARNING]


def test_after_the_end_it_proves_nothing(watch: WebSocketWatch, warnings: Warnings) -> None:
    watch.peer_gone(Witness.RECEIVE, 1.0)
    watch.app_ended(2.0)
    send(watch, warnings.write())
    assert warnings.levels == [logging.WARNING]


def test_a_write_of_the_applications_own_is_not_the_exchanges(
    watch: WebSocketWatch, warnings: Warnings
) -> None:
    watch.peer_gone(Witness.RECEIVE, 1.0)
    warnings.write()()
    assert warnings.levels == [logging.WARNING]


def test_a_write_on_another_connection_of_the_same_server_is_not(
    watch: WebSocketWatch, warnings: Warnings
) -> None:
    watch.peer_gone(Witness.RECEIVE, 1.0)
    server_module.Protocol().write({"do": warnings.write()})
    assert warnings.levels == [logging.WARNING]


def test_a_write_by_anothers_code_inside_of_the_servers_send_is_not(
    watch: WebSocketWatch, warnings: Warnings
) -> None:
    watch.peer_gone(Witness.RECEIVE, 1.0)
    write = warnings.write()

    def outer_middleware() -> None:
        write()

    send(watch, outer_middleware)
    send(watch, lambda: other_module.Protocol().write({"do": write}))
    assert warnings.levels == [logging.WARNING] * 2


def test_another_message_or_another_logger_is_no_such_warning(
    watch: WebSocketWatch, warnings: Warnings
) -> None:
    watch.peer_gone(Witness.RECEIVE, 1.0)
    send(watch, warnings.write(name="test.records"))
    send(watch, warnings.write(message="socket.send()"))
    assert warnings.levels == [logging.WARNING] * 2


# What the server does behind the exchange.


def raised_in(do: Callable[[], None]) -> BaseException:
    """What comes out of a call, with the traceback from the server's first frame on."""
    error: BaseException | None = None
    try:
        do()
    except Exception as raised:  # noqa: BLE001 - whatever it is, it is what the test wants
        error = raised
    assert error is not None
    traceback = error.__traceback__
    while traceback is not None and "someserver" not in traceback.tb_frame.f_globals["__name__"]:
        traceback = traceback.tb_next
    return error.with_traceback(traceback)


def failing(error: BaseException, module: str = "someserver.transport") -> Callable[[], None]:
    namespace: dict[str, Any] = {"__name__": module, "error": error}
    exec("def fail():\n    raise error\n", namespace)
    return cast("Callable[[], None]", namespace["fail"])


def lost() -> ConnectionResetError:
    return ConnectionResetError(104, "Connection reset by peer")


def test_the_servers_own_trouble_with_the_lost_connection_is_the_departures(
    watch: WebSocketWatch, server: Any
) -> None:
    watch.peer_gone(Witness.RECEIVE, 1.0)
    error = raised_in(lambda: server.clean_up(failing(lost())))
    found = raised_in(lambda: server.clean_up(failing(RuntimeError("…; the handler is closed"))))
    assert verdict_of_errors([error]) is None
    watch.app_ended(2.0)
    assert verdict_of_errors([error]) == verdict_of_errors([found]) == watch.departure


@pytest.mark.parametrize(
    "case", ["no departure", "a bug", "the application's", "under another", "another exchange's"]
)
def test_all_else_behind_the_exchange_is_not(watch: WebSocketWatch, server: Any, case: str) -> None:
    if case != "no departure":
        watch.peer_gone(Witness.RECEIVE, 1.0)
    watch.app_ended(2.0)
    do = failing(ValueError() if case == "a bug" else lost())
    if case == "the application's":
        do = failing(lost(), "app.views")
    if case == "another exchange's":
        server = server_module.Protocol()
    error = raised_in(lambda: server.clean_up(do))
    if case == "under another":
        error.__context__ = ValueError()
    assert verdict_of_errors([error]) is None


def test_a_departure_of_this_process_is_its_own(watch: WebSocketWatch, warnings: Warnings) -> None:
    watch.stopping = True
    watch.peer_gone(Witness.RECEIVE, 1.0)
    send(watch, warnings.write())
    # The row client_departed.server is no lower.
    assert warnings.levels == [logging.WARNING]
