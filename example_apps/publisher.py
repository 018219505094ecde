"""A service that takes orders and publishes them to RabbitMQ: Bottle, pika, gunicorn.

This is the kind of service where broken connections are mistaken for one another. Each worker
holds one pika ``BlockingConnection``. While it waits for the next request, or streams a slow
report, nobody answers RabbitMQ's heartbeats, and RabbitMQ closes the connection. The next order
then fails with "Connection reset by peer": the very words with which clients leave, who hang up
all day long. One of the two is an order that was lost.

Run it from the root of the checkout, with a RabbitMQ on this machine::

    gunicorn 'example_apps.publisher:make_app()'

Settings come from environment variables, see :meth:`PublisherSettings.from_environment`;
``CLEANCLOSE=0`` leaves the middleware out. ``python -m example_apps.publisher_demo`` brings its
own RabbitMQ and shows the difference.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import bottle  # type: ignore[import-untyped]
import pika  # type: ignore[import-untyped]

from cleanclose.core import client_gone, snapshot
from cleanclose.wsgi import CleanCloseMiddleware
from example_apps.uploads import log_to_stderr

DEFAULT_BROKER: Final = "amqp://guest:guest@127.0.0.1:5672/%2F"
QUEUE: Final = "orders"
MAX_ORDER_BYTES: Final = 64 * 1024

WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherSettings:
    """Where the broker is, and how long a report takes."""

    broker: str = DEFAULT_BROKER
    """The broker's AMQP URL; ``?heartbeat=`` sets the seconds between heartbeats."""
    report_seconds: float = 10.0
    """How long a report streams."""
    catchall: bool = False
    """Whether Bottle keeps its default, which hides exceptions; for comparison."""
    cleanclose: bool = True
    """Whether the app is wrapped in the cleanclose middleware."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the settings from environment variables.

        ``PUBLISHER_BROKER`` (default: the guest user on this machine),
        ``PUBLISHER_REPORT_SECONDS`` (10), ``PUBLISHER_CATCHALL`` (0), ``CLEANCLOSE`` (1; 0 for
        the bare app).
        """
        return cls(
            broker=environ.get("PUBLISHER_BROKER") or DEFAULT_BROKER,
            report_seconds=float(environ.get("PUBLISHER_REPORT_SECONDS", 10.0)),
            catchall=environ.get("PUBLISHER_CATCHALL", "0") != "0",
            cleanclose=environ.get("CLEANCLOSE", "1") != "0",
        )


class OrderQueue:
    """The queue of orders, on one connection that is kept from request to request.

    One object belongs to one thread: so a pika ``BlockingConnection`` wants it, and so gunicorn's
    sync worker has it.
    """

    def __init__(self, broker: str) -> None:
        self._parameters: Any = pika.URLParameters(broker)
        self._channel: Any = None

    def publish(self, order: bytes) -> None:
        """Hand an order to the broker, and wait until it has it.

        A connection that the broker has closed meanwhile still says that it is open: pika finds
        out when it is used. So one order fails with ``StreamLostError`` after each such pause,
        and the next one gets a new connection. It has to stay an error: the order was not
        published. (docs/upstreams.md has the repair, which this service is without on purpose.)
        """
        if self._channel is None or not self._channel.is_open:
            self._channel = self._connect()
        self._channel.basic_publish(
            exchange="",
            routing_key=QUEUE,
            body=order,
            properties=pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent),
        )

    def _connect(self) -> Any:
        channel: Any = pika.BlockingConnection(self._parameters).channel()
        channel.queue_declare(QUEUE, durable=True)
        # Without it an order could be lost without any error: written into a connection that
        # the broker has closed already.
        channel.confirm_delivery()
        return channel


def make_app(settings: PublisherSettings | None = None) -> WSGIApp:
    """Build the app; its settings come from the environment unless they are given."""
    settings = settings or PublisherSettings.from_environment()
    queue = OrderQueue(settings.broker)
    log_to_stderr()
    # It tells each step of connecting at INFO.
    logging.getLogger("pika").setLevel(logging.WARNING)
    app: Any = bottle.Bottle()
    # By default Bottle answers any exception with a 500 and prints its traceback into
    # wsgi.errors, as text without a level. Neither the server nor a middleware hears of it, nor
    # does an alert that looks for errors; and a client that left looks just the same.
    app.catchall = settings.catchall

    @app.post("/orders")  # type: ignore[untyped-decorator]
    def order() -> Mapping[str, str]:
        stream: Any = bottle.request.body
        body: bytes = stream.read(MAX_ORDER_BYTES + 1)
        if len(body) > MAX_ORDER_BYTES:
            raise bottle.HTTPError(413, "an order may have at most 64 KiB")
        try:
            item = json.loads(body)["item"]
        except (ValueError, KeyError, TypeError):
            raise bottle.HTTPError(400, "an order is a JSON object with an item") from None
        number = uuid.uuid4().hex
        queue.publish(json.dumps({"order": number, "item": item}).encode())
        bottle.response.status = 201
        return {"order": number}

    @app.get("/report")  # type: ignore[untyped-decorator]
    def report() -> Iterator[bytes]:
        bottle.response.content_type = "text/csv"
        end = time.monotonic() + settings.report_seconds
        # Once the client has left, the rest would be for nobody.
        while time.monotonic() < end and not client_gone():
            yield b"order,item\n" * 1000
            time.sleep(0.05)

    @app.get("/healthz")  # type: ignore[untyped-decorator]
    def health() -> Mapping[str, str]:
        return {"status": "ok"}

    @app.get("/counters")  # type: ignore[untyped-decorator]
    def counters() -> Mapping[str, object]:
        return snapshot()

    service: WSGIApp = app
    if settings.cleanclose:
        service = CleanCloseMiddleware(service)
    return service
