"""A certificate for 127.0.0.1, and a client that uploads through TLS."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import trustme

from cleanclose.doctor import body_pieces

__all__ = ["Certificate", "Uploaded", "certificate", "tls_upload"]


@dataclass(frozen=True)
class Certificate:
    """Where a server finds its certificate and key, and whom a client has to trust."""

    chain: Path
    key: Path
    authority: Path

    def context(self, *protocols: str) -> ssl.SSLContext:
        """What a client connects with."""
        context = ssl.create_default_context(cafile=self.authority)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context


def certificate(folder: Path) -> Certificate:
    """Make a certificate in this folder."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    made = Certificate(folder / "chain.pem", folder / "key.pem", folder / "authority.pem")
    authority.cert_pem.write_to_path(made.authority)
    issued.private_key_pem.write_to_path(made.key)
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(made.chain, append=number > 0)
    return made


@dataclass(frozen=True)
class Uploaded:
    """What came of one upload.

    Args:
        status: The response's status; None if it was lost.
        body: The response's body.
        ended_by: How the server ended the connection: with TLS's own farewell (close_notify), or
            without. None if it did not.
        closes: Whether the response announced that it would.
    """

    status: int | None
    body: bytes | None
    ended_by: Literal["close_notify", "fin", "reset"] | None = None
    closes: bool = False


def tls_upload(
    port: int,
    signed: Certificate,
    path: str,
    size: int,
    *,
    close: bool,
    timeout: float = 30.0,
) -> Uploaded:
    """Write everything, then read; a failed send is a loss.

    Args:
        port: The server's port on 127.0.0.1.
        signed: Its certificate.
        path: The request's path.
        size: The body's size in bytes.
        close: Whether to ask for the connection's end.
        timeout: Seconds that each send or receive may take.
    """
    context = signed.context()
    raw = socket.create_connection(("127.0.0.1", port), timeout)
    sock = context.wrap_socket(raw, server_hostname="127.0.0.1", suppress_ragged_eofs=False)
    ask_for = "Connection: close\r\n" if close else ""
    head = f"POST {path} HTTP/1.1\r\nHost: tls\r\nContent-Length: {size}\r\n{ask_for}\r\n"
    with contextlib.closing(sock):
        try:
            sock.sendall(head.encode())
            for piece in body_pieces(size):
                sock.sendall(piece)
            response = http.client.HTTPResponse(sock, method="POST")
            response.begin()
            content = response.read()
        except (OSError, http.client.HTTPException):
            return Uploaded(None, None)
        ended: Literal["close_notify", "fin", "reset"] | None = None
        if response.will_close:
            try:
                ended = None if sock.recv(1) else "close_notify"
            except ssl.SSLEOFError:
                ended = "fin"
            except ConnectionError:
                ended = "reset"
        return Uploaded(response.status, content, ended, response.will_close)
