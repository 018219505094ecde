"""What cheroot does by itself to a connection, and must not do to an early response's."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import pytest
from cheroot.wsgi import Server as CherootServer

from cleanclose.core import Event, UploadDrained
from cleanclose.doctor.clients import Upload, strict
from cleanclose.wsgi import CleanCloseMiddleware
from tests.harness.scenarios import MIB
from tests.harness.waiting import until

pytestmark = pytest.mark.stacks


@pytest.mark.parametrize("length", [True, False], ids=["length", "no-length"])
@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_cheroot_does_not_shut_the_connection_down(chunked: bool, length: bool) -> None:
    """Both directions, it would, and the kernel would answer what still comes with a reset."""
    events: list[Event] = []

    def refuse(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("413 Too Large", [("Content-Length", "2")] if length else [])
        return [b"no"]

    app = CleanCloseMiddleware(refuse, outlets=[events.append])
    server: Any = CherootServer(("127.0.0.1", 0), app, numthreads=2)
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        outcome = strict(Upload(port=server.bind_addr[1], body_size=16 * MIB, chunked=chunked))
        until(lambda: bool(events), "the lingerer's event")
    finally:
        server.stop()
        thread.join()
    assert outcome.response is not None, outcome
    assert (outcome.status, outcome.response.body) == (413, b"no")
    (event,) = events
    assert isinstance(event, UploadDrained)
    if not chunked:
        assert event.bytes_in == 16 * MIB
