"""Views that more than one of the Flask applications has."""

from __future__ import annotations

from flask import request

__all__ = ["read", "refuse"]


def read() -> str:
    """Read the body, and tell its length."""
    return str(len(request.get_data()))


def refuse() -> tuple[str, int]:
    """413, from the headers alone."""
    return "too much", 413
