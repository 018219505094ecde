"""An upstream that takes whole uploads, and answers 200."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

__all__ = ["UploadSink", "upload_sink"]

_ANSWER: Final = b"stored"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 2
    """Seconds until it gives up waiting for the rest of a body: urllib3 waits for its answer."""

    def do_POST(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError, ValueError):
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                while (line := self.rfile.readline()) and (size := int(line, 16)):
                    self.rfile.read(size + 2)
                self.rfile.readline()
            else:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Length", str(len(_ANSWER)))
            self.end_headers()
            self.wfile.write(_ANSWER)

    do_PUT = do_POST

    def log_message(self, format: str, *args: object) -> None:
        pass


class UploadSink(ThreadingHTTPServer):
    """The server."""

    daemon_threads = True

    @property
    def url(self) -> str:
        """Its address for HTTP clients."""
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """A body that breaks off is what it is for."""


@contextlib.contextmanager
def upload_sink() -> Generator[UploadSink]:
    """An `UploadSink` for the time of a ``with`` block."""
    with UploadSink(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
