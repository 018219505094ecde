"""What does not arrive with the middleware either, and why: limits that are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.matrix.run import Result

__all__ = ["LIMITS", "Limit", "limit_of"]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Uploads which may be lost whatever a middleware does."""

    why: str
    """One sentence for the page."""
    servers: frozenset[str] | None = None
    """Those that it holds for; None for all, as with the next two."""
    clients: frozenset[str] | None = None
    cases: frozenset[str] | None = None
    ways: frozenset[str] | None = None

    def holds_for(self, result: Result) -> bool:
        """Whether this upload is one of them."""
        pairs = (
            (self.servers, result.server),
            (self.clients, result.client),
            (self.cases, result.case),
            (self.ways, result.way),
        )
        return all(names is None or name in names for names, name in pairs)


LIMITS: Final[tuple[Limit, ...]] = ()


def limit_of(result: Result) -> Limit | None:
    """The limit that an upload falls under, if any."""
    return next((limit for limit in LIMITS if limit.holds_for(result)), None)
