"""What a server's own counts say, before and after, and that no body became a request."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, cast

from cleanclose.doctor import Fault, Outcome, Upload, strict
from tests.harness.apps import routes
from tests.harness.processes import ServerProcess
from tests.harness.waiting import LIMIT, until

if TYPE_CHECKING:
    pass
SLACK: Final = LIMIT
"""Far above the sum of the caps, and far below for ever."""

DRAINED: Final = 'cleanclose_early_responses_total{outcome="%s"}'
CUT: Final = 'cleanclose_cut_uploads_total{cap="%s"}'


class Watch:
    """The app's and the middleware's own counts, before and after."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._before = self._read()

    def _read(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for path in (routes.SEEN, routes.COUNTERS):
            counts |= cast("Mapping[str, int]", get_json(self._server, path))
        return counts

    def grown(self, *names: str) -> bool:
        """Whether these counts have grown by one, taken together, or do so in a while."""
        with contextlib.suppress(AssertionError):
            until(lambda: self._growth(names) > 0)
        return self._growth(names) == 1

    def _growth(self, names: Iterable[str]) -> int:
        now = self._read()
        return sum(now[name] - self._before[name] for name in names)

    def same(self, name: str) -> bool:
        """Whether this count is what it was. Ask when what would change it has been told."""
        return self._growth((name,)) == 0

    def check(self) -> None:
        """The server serves on, and has seen no request that nobody sent."""
        outcome = strict(
            Upload(port=self._server.port, method="GET", path=routes.INDEX, connection_close=True)
        )
        assert outcome.status == 200, str(outcome)
        assert self._read()["smuggled"] == self._before["smuggled"], "a body became a request"

    def changes(self) -> str:
        """What has changed, for messages."""
        now = self._read()
        return str({name: now[name] - count for name, count in self._before.items()})


def check_no_confusion(outcome: Outcome) -> None:
    """At most one answer came, and nothing that only a misread body would bring."""
    assert len(outcome.transcript.responses) <= 1, str(outcome)
    assert outcome.transcript.stray == b"", str(outcome)
    assert not {Fault.INFORMATIONAL_AFTER_FINAL, Fault.UNEXPECTED_RESPONSE} & set(
        outcome.transcript.faults
    )


def get_json(server: ServerProcess, path: str) -> object:
    """What a route answers."""
    # Some servers keep a connection whose client has finished for as long as any other.
    outcome = strict(Upload(port=server.port, method="GET", path=path, connection_close=True))
    response = outcome.response
    assert response is not None, str(outcome)
    return json.loads(response.body)


def smuggled(server: ServerProcess) -> int:
    """How many pieces of bodies the application was given as requests."""
    return cast("Mapping[str, int]", get_json(server, routes.SEEN))["smuggled"]
