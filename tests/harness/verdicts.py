"""Running tries and judging what came of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from cleanclose.doctor.clients import Outcome, Upload
from tests.harness.scenarios import Scenario

__all__ = ["Client", "arrived", "assert_clean", "assert_delivered", "repeat"]

Client = Callable[[Upload], Outcome]

_SHOWN: Final = 5


def repeat(client: Client, upload: Upload, tries: int) -> list[Outcome]:
    """The outcomes of so many tries, one after the other."""
    return [client(upload) for _ in range(tries)]


def arrived(outcome: Outcome, scenario: Scenario) -> bool:
    """Whether the client has the whole response that the app gave."""
    response = outcome.response
    return (
        response is not None
        and response.status == scenario.status
        and response.body == scenario.body
    )


def assert_delivered(outcomes: Iterable[Outcome], scenario: Scenario) -> None:
    """All responses arrived whole, and nothing else came on any of the connections."""
    outcomes = list(outcomes)
    lost = [outcome for outcome in outcomes if not arrived(outcome, scenario)]
    assert not lost, _told(f"lost {len(lost)} of {len(outcomes)}", lost)
    assert_clean(outcomes)


def assert_clean(outcomes: Iterable[Outcome]) -> None:
    """No stray bytes, no second response, no 100 behind a final one, nothing cut short."""
    outcomes = list(outcomes)
    unclean = [outcome for outcome in outcomes if not outcome.transcript.clean]
    assert not unclean, _told(f"unclean {len(unclean)} of {len(outcomes)}", unclean)
    stuck = [outcome for outcome in outcomes if outcome.closed_by == "timeout"]
    assert not stuck, _told(f"stuck {len(stuck)} of {len(outcomes)}", stuck)


def _told(summary: str, outcomes: list[Outcome]) -> str:
    return "\n  ".join((summary, *(str(outcome) for outcome in outcomes[:_SHOWN])))
