"""A client that leaves at a moment that the test chooses, not after some time."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Literal

from cleanclose.testing.raw import RESET
from cleanclose.testing.uploads import Upload, framed_pieces, head_of, pieces_until_abort

__all__ = ["leave"]


def leave(
    upload: Upload,
    *,
    how: Literal["reset", "close"] = "reset",
    read: int = 0,
    when: Callable[[], object] | None = None,
) -> bytes:
    """Send a request, wait for the moment, and leave before the answer's end.

    A server that has not read the request by then never sees it. So pass as ``when`` something that
    depends on the handler, such as the ``wait`` of a `threading.Event` that the handler sets.

    Args:
        upload: The request. Its ``abort_after`` is how many bytes of the body are sent; None for
            all of them. Of the manners of sending only ``chunked``, ``raw_body`` and
            ``piece_size`` count, and ``timeout`` (seconds, for each single step).
        how: With a reset, or in good order with a FIN. Default: a reset.
        read: How many bytes of the answer to read first. Default 0.
        when: Called after that; the client leaves when it returns. Default: at once.

    Returns:
        The bytes of the answer that were read: fewer than ``read`` if the server closed first.

    Raises:
        AssertionError: ``when`` returned False, as `threading.Event.wait` does when its time is
            up.
        OSError: The connection cannot be opened, or the server left first.
        TimeoutError: The server stopped reading, or stopped answering.
    """
    with socket.create_connection((upload.host, upload.port), upload.timeout) as sock:
        sock.sendall(head_of(upload))
        pieces = framed_pieces(upload) if upload.abort_after is None else pieces_until_abort(upload)
        for piece, _ in pieces:
            sock.sendall(piece)
        answer = bytearray()
        while len(answer) < read and (data := sock.recv(read - len(answer))):
            answer += data
        if when is not None and when() is False:
            raise AssertionError("the moment to leave has not come")
        if how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        return bytes(answer)
