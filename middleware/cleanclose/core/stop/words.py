"""The exception for work that nobody waits for any more."""

from __future__ import annotations

__all__ = ["ClientLeft"]


class ClientLeft(Exception):
    """The client of this request has left, and the work for it was stopped.

    Raised by `cleanclose.core.raise_if_gone`, and at the end of a ``stop_work()`` block that was
    cut short. An application need not catch it: as long as the exchange has a witness, the
    middleware takes it for the client's, like a framework's own exception for a departure.
    """

    def __init__(self, message: str = "the client has left") -> None:
        super().__init__(message)
