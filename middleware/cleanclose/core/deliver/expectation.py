"""What a request's ``Expect: 100-continue`` means for everybody who would read its body."""

from __future__ import annotations

from cleanclose.core.deliver.framing import wants_continue
from cleanclose.core.deliver.proxied import awaits_continue
from cleanclose.core.server import Continue

__all__ = ["Expectation"]


class Expectation:
    """A client's expectation of a 100, until somebody has asked for the body.

    Args:
        sends: When the server sends the 100.
        expect: The value of ``Expect``; None if there is none.
        via: The value of ``Via``, several lines joined with commas; None if there is none. It shows
            a proxy that passes the field on and does not wait.
        has_read: Whether somebody has asked for the body already.
    """

    __slots__ = ("_is_late", "awaited")

    awaited: bool
    """Whether the body's sender waits for the 100, so that reading calls for the body."""

    def __init__(
        self, sends: Continue, expect: str | None, via: str | None, *, has_read: bool
    ) -> None:
        asked = not has_read and wants_continue(expect)
        self.awaited = asked and sends is not Continue.EAGER and awaits_continue(expect, via)
        self._is_late = asked and sends is Continue.LATE

    def met(self) -> None:
        """Somebody asks for the body: the server sends the 100, if it has not done so by itself."""
        self.awaited = self._is_late = False

    def forbids_reading(self, *, streamed: bool) -> bool:
        """Whether reading calls for a body that nobody wants, or writes a 100 into the response.

        Args:
            streamed: Whether a part of the response is on its way.
        """
        return self.awaited or (self._is_late and streamed)
