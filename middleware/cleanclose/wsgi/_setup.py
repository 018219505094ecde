"""What all deliveries of one application need, and how each one's exchange begins."""

from __future__ import annotations

import time
from typing import Final

from cleanclose.core import Settings
from cleanclose.core.deliver.exchange import Connection, Exchange
from cleanclose.core.deliver.framing import CHUNKED, wants_continue
from cleanclose.core.deliver.places import Places
from cleanclose.core.deliver.proxied import PROXY_FIELDS, names_caddy
from cleanclose.core.process import Lock
from cleanclose.core.tell.reporter import Reporter
from cleanclose.linger import can_linger
from cleanclose.servers import ClientConnection, can_close, threads_of
from cleanclose.wsgi._delivery import Delivery
from cleanclose.wsgi._upload import UploadWatch

__all__ = ["Setup"]

_PROXY_KEYS: Final = frozenset("HTTP_" + name.upper().replace("-", "_") for name in PROXY_FIELDS)


class Setup:
    """The settings, and the places, which only a request can count.

    Args:
        reporter: Reports the events.
        settings: The settings.
    """

    def __init__(self, reporter: Reporter, settings: Settings) -> None:
        self.reporter = reporter
        self.settings = settings
        self._lock = Lock()
        self._places: Places | None = None

    def deliver(self, watch: UploadWatch) -> Delivery:
        """The delivery of a response that begins while the body is incomplete.

        Args:
            watch: The request.
        """
        return Delivery(watch, self)

    def begin(
        self, watch: UploadWatch, connection: ClientConnection | None, response: object
    ) -> Exchange:
        """The exchange of such a delivery.

        Args:
            watch: The request.
            connection: The client's connection; None if it is not in reach.
            response: The server's own object behind ``start_response``; None if it is hidden.
        """
        server, environ = watch.server, watch.environ
        greenlets = connection is not None and connection.greenlets
        relayed = (
            server.relays
            and connection is not None
            and not connection.is_peer(environ.get("REMOTE_ADDR"), environ.get("REMOTE_PORT"))
        )
        # If the server cannot be made to close, the rest must stay as the server knows it.
        closes = server.close is None or can_close(response, server)
        ends = watch.expected_in is not None or bool(environ.get("wsgi.input_terminated"))
        timeout = server.worker_timeout
        exchange = Exchange(
            self.settings,
            self._places_for(watch, response, greenlets=greenlets),
            server=server,
            connection=Connection(
                address=environ.get("REMOTE_ADDR") or None,
                lingers=connection is not None and can_linger(),
                proxied=relayed or not _PROXY_KEYS.isdisjoint(environ),
                half_closes=not relayed,
                blocking=not greenlets,
                framed=closes and ends,
                worker_timeout=timeout and timeout(environ, response),
            ),
            facts=watch.facts(),
            length=CHUNKED if watch.expected_in is None else watch.expected_in,
            awaits_continue=not watch.has_read
            and wants_continue(environ.get("HTTP_EXPECT"))
            and not names_caddy(environ.get("HTTP_VIA")),
            started=watch.started,
            received=watch.bytes_in,
        )
        if watch.read_error is not None:
            exchange.reading_failed(watch.read_error, time.monotonic())
        if watch.departure is not None:
            exchange.peer_gone(watch.departure.mechanism, time.monotonic())
        return exchange

    def _places_for(self, watch: UploadWatch, response: object, *, greenlets: bool) -> Places:
        with self._lock:
            if self._places is None:
                self._places = Places.for_workers(
                    threads_of(watch.environ, response, watch.server),
                    most=self.settings.max_draining,
                    greenlets=greenlets,
                )
            return self._places
