"""Former names of the clients, which now live in `cleanclose.testing`."""

from cleanclose.testing.programs import curl, http_client
from cleanclose.testing.raw import reader, strict
from cleanclose.testing.uploads import (
    SMUGGLED_PATH,
    Abort,
    Seen,
    Upload,
    body_digest,
    body_pieces,
)

__all__ = [
    "SMUGGLED_PATH",
    "Abort",
    "Outcome",
    "Upload",
    "body_digest",
    "body_pieces",
    "curl",
    "http_client",
    "reader",
    "strict",
]

Outcome = Seen
"""The former name of `cleanclose.testing.Seen`."""
