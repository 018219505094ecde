"""pika's BlockingConnection and a real RabbitMQ."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any, Final

import pika  # type: ignore[import-untyped]
import pika.exceptions  # type: ignore[import-untyped]
import pytest

from tests.harness.brokers import RabbitMq
from tests.harness.endings import asgi_ending, assert_untold, assert_upstream, wsgi_ending
from tests.harness.paths import ROOT
from tests.harness.processes import stopped
from tests.harness.waiting import until

pytestmark = pytest.mark.stacks

IDLE: Final = 8
"""How many connections lie idle for the tests of this file."""
MISSED: Final = "missed heartbeats"
USED_AFTER: Final = "used after it was lost or closed"
CLOSED: Final = "missed heartbeats from client"
"""What RabbitMQ logs when it closes one."""
QUEUE: Final = "orders"

there_or_gone: Final = pytest.mark.parametrize("client_left", [False, True], ids=["there", "gone"])


def connect(broker: RabbitMq, *, heartbeat: int = 0) -> Any:
    """A channel on a connection of its own."""
    parameters = pika.URLParameters(broker.url)
    parameters.heartbeat = heartbeat
    channel = pika.BlockingConnection(parameters).channel()
    channel.queue_declare(QUEUE)
    return channel


def publish(channel: Any, body: bytes = b"an order") -> object:
    return channel.basic_publish("", QUEUE, body)


@pytest.fixture(scope="module")
def idle_channels(rabbitmq: RabbitMq) -> Iterator[list[Any]]:
    """Channels that lay idle for so long that RabbitMQ has closed their connections."""
    before = rabbitmq.server.log_text().count(CLOSED)
    channels = [connect(rabbitmq, heartbeat=1) for _ in range(IDLE)]
    # The control: two heartbeats have not been missed yet, and publishing works.
    for channel in channels:
        publish(channel)
    wait_for_closing(rabbitmq, before + IDLE)
    yield channels
    for channel in channels:
        close(channel)


@pytest.fixture
def idle(idle_channels: list[Any]) -> Iterator[Any]:
    """One of them, for one test."""
    channel = idle_channels.pop()
    yield channel
    close(channel)


def close(channel: Any) -> None:
    """Close a channel's connection, be it broken."""
    with contextlib.suppress(pika.exceptions.AMQPError):
        channel.connection.close()


@there_or_gone
def test_missed_heartbeats(idle: Any, client_left: bool) -> None:
    # Nothing shows it before.
    assert idle.is_open
    assert idle.connection.is_open
    ending = wsgi_ending(lambda: publish(idle), client_left=client_left)
    assert_upstream(ending, pika.exceptions.StreamLostError, "pika", MISSED)


def test_missed_heartbeats_and_a_large_message(idle: Any) -> None:
    ending = wsgi_ending(lambda: publish(idle, bytes(1 << 20)))
    assert_upstream(ending, type(ending.inside), "pika", MISSED)


@there_or_gone
def test_missed_heartbeats_under_the_applications_own_error(idle: Any, client_left: bool) -> None:
    class NotPublishedError(Exception):
        pass

    def call() -> None:
        try:
            publish(idle)
        except pika.exceptions.AMQPError as error:
            raise NotPublishedError from error

    ending = wsgi_ending(call, client_left=client_left)
    assert_upstream(ending, NotPublishedError, "pika", MISSED)


@there_or_gone
def test_missed_heartbeats_in_a_thread_of_an_asgi_application(idle: Any, client_left: bool) -> None:
    ending = asgi_ending(lambda: asyncio.to_thread(publish, idle), client_left=client_left)
    assert_upstream(ending, pika.exceptions.StreamLostError, "pika", MISSED)


def test_what_comes_after(idle: Any) -> None:
    with pytest.raises(pika.exceptions.StreamLostError):
        publish(idle)
    again = wsgi_ending(lambda: publish(idle))
    assert_upstream(again, pika.exceptions.ChannelWrongStateError, "pika", USED_AFTER)
    anew = wsgi_ending(idle.connection.channel)
    assert_upstream(anew, pika.exceptions.ConnectionWrongStateError, "pika", USED_AFTER)


def test_the_repair_in_the_documentation(rabbitmq: RabbitMq) -> None:
    page = (ROOT / "docs" / "upstreams.md").read_text("utf-8")
    code = page.partition("<!-- repair:")[2].partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)
    publisher = names["Publisher"](f"{rabbitmq.url}?heartbeat=1")
    counter = connect(rabbitmq)
    counter.queue_purge(QUEUE)
    closed = rabbitmq.server.log_text().count(CLOSED)
    publisher.publish(QUEUE, b"an order", "1")
    wait_for_closing(rabbitmq, closed + 1)
    publisher.publish(QUEUE, b"another order", "2")
    assert counter.queue_declare(QUEUE, passive=True).method.message_count == 2
    close(publisher._channel)
    close(counter)


def wait_for_closing(broker: RabbitMq, count: int) -> None:
    """Wait until the broker has closed so many connections, all in all."""
    until(lambda: broker.server.log_text().count(CLOSED) >= count, broker.server.log_text)


# pika looks once in 6 s, and believes it the second time.
@pytest.mark.slow
def test_a_broker_that_has_fallen_silent(rabbitmq: RabbitMq) -> None:
    channel = connect(rabbitmq, heartbeat=1)
    # As behind a network which drops everything.
    with stopped(rabbitmq.server.pid):
        ending = wsgi_ending(lambda: channel.connection.process_data_events(time_limit=30))
    assert_upstream(ending, pika.exceptions.AMQPHeartbeatTimeout, "pika", MISSED)


def test_closed_by_the_broker(rabbitmq: RabbitMq) -> None:
    channel = connect(rabbitmq)
    # A header is one frame, and this one is larger than a frame may be.
    header = pika.BasicProperties(headers={"note": "x" * 200_000})

    def call() -> object:
        channel.basic_publish("", QUEUE, b"an order", header)
        return channel.connection.process_data_events(time_limit=30)

    ending = wsgi_ending(call)
    assert_upstream(
        ending, pika.exceptions.ConnectionClosedByBroker, "pika", "closed by the broker"
    )


def refused(broker: RabbitMq) -> object:
    return connect(broker).queue_declare("no such queue", passive=True)


def never_connected(_: RabbitMq) -> object:
    return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", 1))


# pika leaves the sockets of a failed attempt to the collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize(
    ("call", "error"),
    [
        (refused, pika.exceptions.ChannelClosedByBroker),
        (never_connected, pika.exceptions.AMQPConnectionError),
    ],
)
def test_other_errors_are_not_a_lost_connection(
    rabbitmq: RabbitMq, call: Callable[[RabbitMq], object], error: type[BaseException]
) -> None:
    ending = wsgi_ending(lambda: call(rabbitmq))
    assert isinstance(ending.inside, error)
    assert_untold(ending, type(ending.inside))
    del ending
    gc.collect()
