"""What all exchanges behind one middleware share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from cleanclose.core.blame.watch import Watch
from cleanclose.core.deliver.exchange import Connection, Exchange
from cleanclose.core.deliver.expectation import Expectation
from cleanclose.core.deliver.framing import CHUNKED
from cleanclose.core.deliver.places import Places
from cleanclose.core.deliver.proxied import is_proxied
from cleanclose.core.server import Server
from cleanclose.core.settings import Settings
from cleanclose.core.tell.reporter import Reporter

__all__ = ["Setup"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What all exchanges behind one middleware share.

    Args:
        settings: The limits.
        places: The places. Waiting for a client needs one.
        reporter: Receives the events.
    """

    settings: Settings
    places: Places
    reporter: Reporter

    @classmethod
    def of(cls, settings: Settings, reporter: Reporter, **others: Any) -> Self:
        """Make it for a new middleware, with places of its own.

        Args:
            settings: The limits.
            reporter: Receives the events.
            **others: A subclass's own fields.
        """
        places = Places(settings.max_draining)
        return cls(settings=settings, places=places, reporter=reporter, **others)

    def begin_delivery(
        self,
        watch: Watch,
        now: float,
        *,
        server: Server,
        connection: Connection,
        headers: Mapping[str, str],
    ) -> Exchange:
        """Begin the delivery of a response that begins before its request's body is complete.

        Args:
            watch: The request, as far as it has come. The exchange learns what is known of its peer
                already, and the watch refers to the exchange from now on.
            now: The time.
            server: What is special about the server.
            connection: The client's connection, without what the request itself says: the address,
                and the headers that show a proxy.
            headers: The request's headers, by their names in lower case.
        """
        facts = watch.facts()
        if connection.blocking:
            self.places.hold_workers(connection.threads)
        exchange = Exchange(
            self.settings,
            self.places,
            server=server,
            connection=dataclasses.replace(
                connection,
                address=facts.client,
                proxied=connection.proxied or is_proxied(headers),
            ),
            facts=facts,
            length=CHUNKED if watch.expected_in is None else watch.expected_in,
            expectation=Expectation(
                server.sends_continue,
                headers.get("expect"),
                headers.get("via"),
                has_read=watch.has_read,
            ),
            started=watch.started,
            received=watch.bytes_in,
        )
        if watch.left_alone or not connection.readable:
            exchange.leave_alone()
        _report_what_was(watch, exchange, now)
        watch.delivery = exchange
        return exchange


def _report_what_was(watch: Watch, exchange: Exchange, now: float) -> None:
    """Report to an exchange what has happened on its connection before."""
    if watch.read_error is not None:
        exchange.reading_failed(watch.read_error, now)
    if watch.departure is not None:
        # Nobody is left to deliver to.
        exchange.peer_gone(watch.departure.mechanism, now)
