"""Who is at the other end of a WSGI server's connection, on a real one."""

from __future__ import annotations

import socket

from cleanclose.servers import ClientConnection


def test_whether_the_client_itself_is_at_the_other_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client:
            accepted, (address, port) = listener.accept()
            with accepted, client:
                connection = ClientConnection(None, accepted.fileno(), None)
                assert connection.is_peer(address, str(port))
                assert connection.is_peer(address, None)
                assert not connection.is_peer(address, "1")
                assert not connection.is_peer("192.0.2.1", None)
        assert not connection.is_peer(address, str(port))
