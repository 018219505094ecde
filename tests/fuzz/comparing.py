"""What was played bare and wrapped, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

__all__ = ["compare"]


def compare(
    conversations: Iterable[object],
    outcomes: Iterable[Sequence[Any]],
    check: Callable[..., None],
) -> None:
    """Look at what came of each conversation.

    Args:
        conversations: What was to happen.
        outcomes: What has, for each of them.
        check: Compares; called with a conversation and all of its outcome.

    Raises:
        AssertionError: The check's, with the conversation as a note.
    """
    for conversation, outcome in zip(conversations, outcomes, strict=True):
        try:
            check(conversation, *outcome)
        except AssertionError as error:
            error.add_note(f"{conversation}")
            raise
