"""Records about a peer that was gone before its handshake."""

from __future__ import annotations

import logging
import socket
import ssl
from typing import Any

import pytest

from cleanclose.core import Phase, Side, Verdict
from cleanclose.core.blame.records import verdict_of_record
from cleanclose.servers.gunicorn import ROOM
from tests.harness.leavers import leave

HANDSHAKE = """
def accept(context, sock, logger, server_side):
    try:
        context.wrap_socket(sock, server_side=server_side)
    except OSError as error:
        logger.warning("Invalid request from ip=127.0.0.1: %s", str(error))
"""


@pytest.mark.parametrize(
    ("module", "server_side", "lowered"),
    [("gunicorn.sock", True, True), ("gunicorn.sock", False, False), ("elsewhere", True, False)],
)
def test_a_peer_that_is_gone_before_the_handshake(
    module: str, *, server_side: bool, lowered: bool
) -> None:
    namespace: dict[str, Any] = {"__name__": module}
    exec(HANDSHAKE, namespace)
    protocol = ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    verdicts: list[Verdict | None] = []

    def look(record: logging.LogRecord) -> bool:
        verdicts.append(verdict_of_record(record, ROOM.loggers[record.name]))
        return False

    logger = logging.getLogger("gunicorn.error")
    logger.addFilter(look)
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            accepted, _ = listener.accept()
            client.sendall(b"hello")
            leave(client, "rst")
            namespace["accept"](context, accepted, logger, server_side)
    finally:
        logger.removeFilter(look)
    (verdict,) = verdicts
    assert (verdict is not None) is lowered
    if verdict is not None:
        assert (verdict.side, verdict.phase) == (Side.CLIENT, Phase.TLS_HANDSHAKE)
