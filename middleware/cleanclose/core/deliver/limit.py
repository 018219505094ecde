"""How much of a request's body is taken: a server's own limit, answered like any early response."""

from __future__ import annotations

from cleanclose.core.deliver.framing import CHUNKED

__all__ = ["BodyLimit"]


class BodyLimit:
    """The limit for one body. The application may move it as long as the body has not come.

    Args:
        length: The body's length, or `cleanclose.core.deliver.framing.CHUNKED`.
        most: How many bytes of it are taken.
    """

    __slots__ = ("_length", "_most")

    def __init__(self, length: int, most: int) -> None:
        self._length = length
        self._most = most

    def set(self, most: int) -> None:
        """The application has set it. In a chunked body it counts from here on."""
        self._most = most

    @property
    def is_passed_by_length(self) -> bool:
        """Whether the declared length is above it, so that the body need not come at all."""
        return self._length > self._most

    def is_passed_by(self, size: int) -> bool:
        """Whether a chunked body passes it with a piece that has come.

        Args:
            size: The piece's length in bytes. A body with a declared length has been compared.
        """
        if self._length != CHUNKED:
            return False
        self._most -= size
        return self._most < 0
