"""The environment variables between the doctor and the process with the application."""

from __future__ import annotations

from typing import Final

__all__ = ["TARGET", "WRAPPED"]

TARGET: Final = "CLEANCLOSE_DOCTOR_TARGET"
"""``module:app``, as the user wrote it."""
WRAPPED: Final = "CLEANCLOSE_DOCTOR_WRAPPED"
"""``1`` puts the middleware around it."""
