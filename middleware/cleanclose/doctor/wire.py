"""Former names of what reads a connection, which now lives in `cleanclose.testing`."""

from cleanclose.testing.wire import (
    Ending,
    Fault,
    Framing,
    Response,
    Transcript,
    WireReader,
    read_transcript,
)

__all__ = ["Ending", "Fault", "Framing", "Response", "Transcript", "WireReader", "read_transcript"]
