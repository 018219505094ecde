"""An answer that was kept back whole says how long it is, where nobody else has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from cleanclose.doctor.clients import Upload, strict
from tests.harness.apps import routes
from tests.harness.servers_wsgi import row
from tests.harness.stacks import SERVERS, Stack

if TYPE_CHECKING:
    from tests.harness.serving import Serve

pytestmark = pytest.mark.stacks

STACKS: Final = (
    *(stack for stack in SERVERS if stack.interface == "wsgi"),
    *map(row, ("cheroot", "werkzeug", "wsgiref", "wsgiref-http11", "gevent", "eventlet", "uwsgi")),
)
UPLOAD: Final = Upload(port=0, path=routes.REFUSE_UNSIZED, body_size=8 * 1024 * 1024)


@pytest.mark.parametrize("stack", STACKS, ids=str, scope="module")
def test_an_early_answer_has_a_length(serve: Serve, stack: Stack) -> None:
    server = serve(stack, wrapped=True)
    for path in (routes.REFUSE_UNSIZED, routes.REFUSE, routes.NOTHING):
        outcome = strict(replace(UPLOAD, port=server.port, path=path))
        assert outcome.response is not None, outcome
        head = outcome.raw.partition(b"\r\n\r\n")[0].lower()
        lengths = head.count(b"\r\ncontent-length:")
        if path == routes.NOTHING:
            # wsgiref says 0 of every response without a piece.
            assert outcome.status == 204
            assert lengths == 0 or stack.name.startswith("wsgiref")
            continue
        assert (outcome.status, outcome.response.body) == (413, routes.REFUSAL)
        assert head.count(b"\r\ncontent-type:") == 1
        assert b"\r\ntransfer-encoding:" not in head
        # uWSGI reports the exc_info by which a head is replaced.
        assert lengths == 1 or (stack.name == "uwsgi" and path == routes.REFUSE_UNSIZED)


def test_one_that_comes_in_pieces_has_none(serve: Serve) -> None:
    server = serve(STACKS[0], wrapped=True)
    outcome = strict(Upload(port=server.port, path=routes.REFUSE_STREAMING, body_size=1024 * 1024))
    assert b"content-length" not in outcome.raw.partition(b"\r\n\r\n")[0].lower()
