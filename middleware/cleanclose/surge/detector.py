"""The detector: it collects events, looks at them once there are enough, and warns."""

from __future__ import annotations

from typing import Final

from cleanclose.core.events import (
    Cap,
    Cause,
    ClientDeparted,
    DepartureSurge,
    Event,
    Facts,
    Outcome,
    Side,
    UploadDrained,
)
from cleanclose.core.process import Lock, renew_after_fork
from cleanclose.core.settings import SurgeThresholds
from cleanclose.surge.bands import same_age, same_bytes, same_idle
from cleanclose.surge.bursts import Cuts, Responses, Start
from cleanclose.surge.departures import Finding, departure_of, network_of, route_of
from cleanclose.surge.episodes import LONGEST, Episodes
from cleanclose.surge.look import Look
from cleanclose.surge.memory import Memory, Window
from cleanclose.surge.shares import one_client, one_route

__all__ = ["Surge"]

_SAMPLE_SECONDS: Final = 0.1
"""The mix of requests is learnt from one request in each such time."""
_SAMPLES_AT_ONCE: Final = 5
"""Samples that may come at once, when none has come for as long."""
_SAME_CLIENT_SECONDS: Final = 0.1
"""Departures of one client closer to each other than this are one act."""
_MOST: Final = 512
"""Departures that a window takes."""
_QUESTIONS: Final = (same_bytes, same_age, same_idle, one_client, one_route)
"""The questions about a full window, in this order: what one has found is hidden from the next."""


class Surge:
    """Notices when departures stop being random. Any thread may use it.

    Args:
        thresholds: When departures count as a surge. Default: `SurgeThresholds`.
    """

    def __init__(self, thresholds: SurgeThresholds | None = None) -> None:
        self._thresholds = thresholds or SurgeThresholds()
        self._lock = Lock()
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Forget everything, in a child that has just been forked and starts now."""
        self.sample_at: float = 0.0
        """`request_begins` is to be asked about a request that begins at this time or later."""
        self._started: float | None = None
        self._window: Window | None = None
        self._clients: dict[str, float] = {}
        self._memory = Memory()
        self._responses = Responses(0.0)
        self._cuts = Cuts()
        self._start = Start()
        self._episodes = Episodes(self._thresholds.cool_down)

    def __reduce__(self) -> tuple[type[Surge], tuple[SurgeThresholds]]:
        """For copy and pickle: one with the same thresholds, which knows nothing yet."""
        return type(self), (self._thresholds,)

    def request_begins(self, now: float) -> bool:
        """Whether this request is one of the samples of what requests there are.

        Decided when it begins: later, short ones would be more likely to be chosen.

        Args:
            now: The time, in seconds on any clock that only goes forward.
        """
        with self._lock:
            if now < self.sample_at:
                return False
            # A loop that was blocked begins many at once: they make up for the samples that it
            # missed.
            self.sample_at = max(self.sample_at, now - _SAMPLES_AT_ONCE * _SAMPLE_SECONDS)
            self.sample_at += _SAMPLE_SECONDS
            return True

    def request_over(self, facts: Facts, now: float) -> None:
        """A request that is a sample is over, and its client has not left.

        Args:
            facts: What is known of it.
            now: The time, on the clock of `request_begins`.
        """
        with self._lock:
            self._begin(now).requests.add(network_of(facts.client), route_of(facts))

    def see(self, event: Event, now: float) -> list[DepartureSurge]:
        """An event has been sent.

        Args:
            event: The event. Events about something else than a departure are ignored.
            now: The time, on the clock of `request_begins`.

        Returns:
            The warnings that follow from it; nearly always none.
        """
        with self._lock:
            findings: list[Finding]
            if isinstance(event, UploadDrained):
                findings = self._see_response(event, now)
            elif isinstance(event, ClientDeparted):
                findings = self._see_departure(event, now)
            else:
                return []
            return [self._event(finding, event.facts, now) for finding in findings]

    def _begin(self, now: float) -> Window:
        if self._started is None:
            self._started = now
            self._responses = Responses(now)
        if self._window is None:
            self._window = Window(now)
        return self._window

    def _since(self, now: float) -> float:
        return now if self._started is None else self._started

    def _see_response(self, event: UploadDrained, now: float) -> list[Finding]:
        self._begin(now)
        if event.cap is Cap.APPLICATION:
            return self._see_cut(now)
        if event.outcome is Outcome.UNKNOWN:
            return []
        responses = self._responses
        responses.of += 1
        responses.failed += event.outcome is not Outcome.DELIVERED
        if now - responses.started < self._length(responses.of):
            return []
        finding = responses.too_many(self._thresholds.risk)
        if finding is not None:
            finding.seconds = now - responses.started
        self._responses = Responses(now, responses, learn=finding is None)
        return self._episodes.tell(Cause.UNDELIVERED, finding, now)

    def _see_departure(self, event: ClientDeparted, now: float) -> list[Finding]:
        window = self._begin(now)
        if event.verdict.side is Side.SERVER:
            return self._see_cut(now)
        if event.verdict.side is not Side.CLIENT:
            return []
        if not self._is_first_of_client(event.facts.client or "", now):
            return []
        found = self._see_start(now)
        if len(window.departures) < _MOST:
            window.departures.append(departure_of(event))
        if now - window.started >= self._length(len(window.departures)):
            found += self._look(window, now)
        return found

    def _length(self, count: int) -> float:
        return self._thresholds.seconds if count >= self._thresholds.least else LONGEST

    def _is_first_of_client(self, client: str, now: float) -> bool:
        # A proxy's header may be as long as it likes.
        client = client[:64]
        before = self._clients.get(client)
        if before is not None and now - before < _SAME_CLIENT_SECONDS:
            return False
        if len(self._clients) >= _MOST and client not in self._clients:
            self._clients.clear()
        self._clients[client] = now
        return True

    def _see_cut(self, now: float) -> list[Finding]:
        finding = self._cuts.too_many(now, self._since(now), self._thresholds.risk)
        return [] if finding is None else self._episodes.tell(Cause.DEPLOY, finding, now)

    def _see_start(self, now: float) -> list[Finding]:
        finding = self._start.too_many(now - self._since(now), self._thresholds.risk)
        return [] if finding is None else self._episodes.tell(Cause.DEPLOY, finding, now)

    def _look(self, window: Window, now: float) -> list[Finding]:
        self._window = Window(now)
        told: list[Finding] = []
        rest = self._episodes.set_aside(window.departures, now)
        for question in _QUESTIONS:
            finding = question(
                Look(
                    rest=rest,
                    window=window,
                    memory=self._memory,
                    least=self._thresholds.least,
                    risk=self._thresholds.risk,
                )
            )
            if finding is not None:
                since = window.started if finding.since is None else finding.since
                finding.seconds = now - since
                rest = [departure for departure in rest if not finding.fits(departure)]
                told += self._episodes.tell(finding.cause, finding, now)
        window.departures = list(rest)
        self._memory.take(window)
        return told

    def _event(self, finding: Finding, last: Facts, now: float) -> DepartureSurge:
        return DepartureSurge(
            facts=Facts(
                framework=last.framework,
                server=last.server,
                method=last.method,
                route=finding.route,
            ),
            age_ms=round(finding.seconds * 1000, 3),
            seconds=round(finding.seconds, 3),
            cause=finding.cause,
            count=finding.count,
            of=finding.of,
            share=round(finding.count / max(1, finding.of), 3),
            usual_share=None if finding.usual is None else round(finding.usual, 3),
            seconds_each=None if finding.seconds_each is None else round(finding.seconds_each, 2),
            bytes_each=finding.bytes_each,
            network=finding.network,
            likely_cause=finding.hint,
        )
