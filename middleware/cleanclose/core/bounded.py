"""Texts that a client chooses, made safe to write down: bounded in length and in characters."""

from __future__ import annotations

from typing import Final

__all__ = ["MOST_OF_A_TEXT", "bounded"]

MOST_OF_A_TEXT: Final = 200
"""How many characters an event keeps of any text that a client can choose: its method, its address
if a proxy's header gives it, its ids, the route if a framework makes it from the path. Ids in use
are shorter: a UUID has 36, a ``traceparent`` 55."""

_CUT: Final = "..."
_INSTEAD: Final = "?"


def bounded(text: str) -> str:
    """Make a client's text safe for a log, a terminal or a page.

    Printable characters stay, by `str.isprintable`: so no control characters (C0, DEL, C1), no
    separators of lines and paragraphs, no overrides of the direction, no lone surrogates. Each of
    these is a question mark. What is too long ends with three dots.

    Args:
        text: Any text.

    Returns:
        At most `MOST_OF_A_TEXT` characters.
    """
    if len(text) > MOST_OF_A_TEXT:
        text = text[: MOST_OF_A_TEXT - len(_CUT)] + _CUT
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _INSTEAD for each in text)
