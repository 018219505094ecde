"""One request with a body: its length, its reading, and the delivery of its response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from cleanclose.core.blame.short_uploads import is_refused
from cleanclose.servers import is_surely_there
from cleanclose.wsgi._witness import ExcInfo, Headers, Write, WsgiWatch, answer_of, code_of

if TYPE_CHECKING:
    from cleanclose.wsgi._delivery import Delivery

__all__ = ["UploadWatch"]


class Deliverer(Protocol):
    """Makes the delivery of a response."""

    def deliver(self, watch: UploadWatch) -> Delivery:
        """The response begins before the body's end."""
        ...


class UploadWatch(WsgiWatch):
    """The same for a request with a body."""

    __slots__ = (
        "body_complete",
        "bytes_in",
        "deliverer",
        "expected_in",
        "has_read",
        "left",
        "serving",
        "stream",
    )

    body_complete: bool
    bytes_in: int
    expected_in: int | None
    stream: Any
    """The server's own ``wsgi.input``."""
    left: int | None
    """Bytes of the body that are still to come; None if only its end tells its length."""
    serving: Deliverer
    has_read: bool
    """Whether the application has begun to read."""
    read_error: Exception | None = None
    """What its reading raised."""
    deliverer: Delivery | None
    """The delivery, once the response begins before the body's end."""

    def start_response(self, status: str, headers: Headers, exc_info: ExcInfo = None) -> Write:
        """Called in place of the server's ``start_response``."""
        if self._ended_unnoticed and is_refused(code_of(status)):
            self.refused = True
            status, headers = answer_of(400)[0]
        try:
            return super().start_response(status, headers, exc_info)
        finally:
            # PEP 3333: the traceback would be a reference cycle.
            exc_info = None

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

    def delivering(self) -> Delivery:
        """The delivery of the response, now that it begins before the body's end."""
        if self.deliverer is None:
            self.deliverer = self.serving.deliver(self)
        return self.deliverer

    def leave_input(self) -> None:
        upload = self.input
        self.deliverer = None
        if upload is not None:
            upload.watch = None
            if self.expected_in is None:
                upload.finish()

    @property
    def left_alone(self) -> bool:
        """Whether the application wants its response left alone."""
        return getattr(self.input, "left_alone", False)
