"""Tools that look at a running server from the outside.

Their clients live in :mod:`cleanclose.testing`; this package keeps the clients' former names.
"""

from cleanclose.doctor.clients import (
    Outcome,
    Upload,
    body_digest,
    body_pieces,
    curl,
    http_client,
    reader,
    strict,
)
from cleanclose.doctor.wire import Fault, Response, Transcript, WireReader, read_transcript

__all__ = [
    "Fault",
    "Outcome",
    "Response",
    "Transcript",
    "Upload",
    "WireReader",
    "body_digest",
    "body_pieces",
    "curl",
    "http_client",
    "read_transcript",
    "reader",
    "strict",
]
