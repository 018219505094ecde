"""One exchange's work and its client's departure: who waits for the news, and how the work ended.

A book exists only for an exchange in which somebody asks. It does no I/O and reads no clock. It may
call from any thread, because a witness may see the departure in any thread.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Stops"]

Call = Callable[[], None]


class Stops:
    """Who waits for the news of the departure, and how the blocks ended.

    Attributes:
        gone: Whether the client has left, so that work is to be stopped.
        stopped: Whether any work was cut short for it.
        overdue: Whether the clean-up took longer than allowed.
        on_idle: Called when the last block has ended.
    """

    __slots__ = ("_asking", "_blocks", "gone", "on_idle", "overdue", "stopped")

    def __init__(self) -> None:
        self._asking: list[Call] = []
        self._blocks = 0
        self.gone: bool = False
        self.stopped: bool = False
        self.overdue: bool = False
        self.on_idle: Call | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a block is still at work, clean-up included."""
        return self._blocks > 0

    def ask(self, call: Call) -> None:
        """Register a call for the client's departure; it comes at once if that has happened."""
        self._asking.append(call)
        if self.gone:
            call()

    def forget(self, call: Call) -> None:
        """Remove a registered call."""
        # By equality: a bound method is another object each time.
        if call in self._asking:
            self._asking.remove(call)

    def peer_left(self) -> None:
        """A witness has seen the client leave."""
        if self.gone:
            return
        self.gone = True
        for call in tuple(self._asking):
            call()

    def begun(self) -> None:
        """A block has begun."""
        self._blocks += 1

    def over(self) -> None:
        """A block is over."""
        self._blocks -= 1
        if not self._blocks and self.on_idle is not None:
            self.on_idle()

    def may_hide_cancelling(self, *, failed: bool, quiet: bool) -> bool:
        """Whether a cancellation from outside may have been lost in the stopped work.

        A server may cancel a request within moments of the departure, and a block's own error then
        takes the cancellation's place.

        Args:
            failed: Whether the application has raised.
            quiet: Whether what it raised ends here.
        """
        return quiet if failed else self.stopped

    def ended(self, *, cut: bool, overdue: bool = False) -> None:
        """Note how work has ended.

        Args:
            cut: Whether it was cut short because the client has left.
            overdue: Whether the clean-up took longer than allowed.
        """
        self.stopped |= cut
        self.overdue |= overdue
