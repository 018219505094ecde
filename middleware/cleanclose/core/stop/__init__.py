"""Which work is stopped when its client has left, and what is reported about it."""

from cleanclose.core.stop.book import Stops
from cleanclose.core.stop.rules import SAFE_METHODS, UNSAFE_METHODS, Stoppable
from cleanclose.core.stop.words import ClientLeft

__all__ = ["SAFE_METHODS", "UNSAFE_METHODS", "ClientLeft", "Stoppable", "Stops"]
