"""One request with a body: its length, its reading, and the delivery of its response."""

from __future__ import annotations

from typing import Any

from cleanclose.servers import has_read_rest, is_surely_there
from cleanclose.wsgi._delivery import Delivery
from cleanclose.wsgi._witness import ExcInfo, Headers, Write, WsgiWatch, code_of

__all__ = ["UploadWatch"]


class UploadWatch(WsgiWatch):
    """The same for a request with a body."""

    __slots__ = (
        "body_complete",
        "bytes_in",
        "deliverer",
        "expected_in",
        "has_read",
        "left",
        "stream",
    )

    body_complete: bool
    bytes_in: int
    expected_in: int | None
    left: int | None
    stream: Any
    """The server's own ``wsgi.input``."""
    deliverer: Delivery | None
    """The delivery, once the response begins before the body's end."""
    has_read: bool

    def begin(self, status: str, headers: Headers, exc_info: ExcInfo = None) -> Write:
        """What the application has as ``start_response``."""
        if not self.body_complete:
            return self.delivering().start_response(status, headers, exc_info)
        if exc_info is not None or not is_surely_there(self.environ):
            return WsgiWatch.start_response(self, status, headers, exc_info)
        # The same, for nearly every request whose body has been read.
        start_response = self.server_start_response
        self._server_write = start_response(status, headers)
        self._status = status
        self._headers = headers
        if "werkzeug.request" in self.environ:
            self._request = self.environ["werkzeug.request"]
        return self

    def start_response(self, status: str, headers: Headers, exc_info: ExcInfo = None) -> Write:
        """Called in place of the server's ``start_response``."""
        refusal = self.refusal(code_of(status))
        if refusal is not None:
            status, headers, _ = refusal
        try:
            return super().start_response(status, headers, exc_info)
        finally:
            # PEP 3333: the traceback would be a reference cycle.
            exc_info = None

    def delivering(self) -> Delivery:
        """The delivery of the response, now that it begins before the body's end."""
        if self.deliverer is None:
            # Nobody has closed a list: it would be the response to a body that was read.
            assert self.ending is not None
            self.deliverer = Delivery(self, self.ending.setup)
        return self.deliverer

    def leave_input(self) -> None:
        upload = self.input
        self.deliverer = None
        if upload is not None:
            upload.finish(self)

    def has_server_read(self) -> bool:
        return has_read_rest(self.stream, self.server)
