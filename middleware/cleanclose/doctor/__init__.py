"""Tools that look at a running server from the outside.

:mod:`cleanclose.doctor.wire` reads all the bytes of a connection and names what is wrong with
them; :mod:`cleanclose.doctor.clients` sends uploads the way different clients do. Both need
nothing but the standard library, and both are independent of the middleware: they try any
server, in any language.
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
