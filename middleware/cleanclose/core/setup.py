"""What all exchanges behind one middleware share."""

from __future__ import annotations

import dataclasses

from cleanclose.core.blame.watch import Watch
from cleanclose.core.deliver.exchange import Connection, Exchange
from cleanclose.core.deliver.places import Places
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

    def begin_delivery(
        self,
        watch: Watch,
        *,
        server: Server,
        connection: Connection,
        length: int,
        awaits_continue: bool,
    ) -> Exchange:
        """Begin the delivery of a response that begins before its request's body is complete.

        Args:
            watch: The request, as far as it has come.
            server: What is special about the server.
            connection: The client's connection.
            length: The body's length, or `cleanclose.core.deliver.framing.CHUNKED`.
            awaits_continue: Whether the client waits for a 100, and nobody has asked for the body.
        """
        return Exchange(
            self.settings,
            self.places,
            server=server,
            connection=connection,
            facts=watch.facts(),
            length=length,
            awaits_continue=awaits_continue,
            started=watch.started,
            received=watch.bytes_in,
        )
