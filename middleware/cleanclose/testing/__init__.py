"""For your own tests: captured events, and clients that upload or leave.

Nothing here is installed or needed where an application runs. The clients need no middleware:
they try any server, in any language.

- `capture_events`: the events that all middleware of this process sends meanwhile.
- `strict`, `reader`, `http_client`, `curl`: an `Upload` is sent the way different clients do it,
  and the client returns what it has `Seen`, fault by fault. A client never raises because of the
  server; only a connection that cannot be opened raises.
- `leave`: a client that goes before the answer is complete.
- `read_transcript`: names the mistakes in the bytes of a connection that you have read yourself.
"""

from cleanclose.testing.events import CapturedEvents, capture_events
from cleanclose.testing.leaving import leave
from cleanclose.testing.programs import curl, http_client
from cleanclose.testing.raw import reader, strict
from cleanclose.testing.uploads import Abort, Seen, Upload, body_digest, body_pieces
from cleanclose.testing.wire import Fault, Response, Transcript, WireReader, read_transcript

__all__ = [
    "Abort",
    "CapturedEvents",
    "Fault",
    "Response",
    "Seen",
    "Transcript",
    "Upload",
    "WireReader",
    "body_digest",
    "body_pieces",
    "capture_events",
    "curl",
    "http_client",
    "leave",
    "read_transcript",
    "reader",
    "strict",
]
