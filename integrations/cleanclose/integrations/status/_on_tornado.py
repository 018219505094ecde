"""The page on Tornado, as a handler."""

from __future__ import annotations

from typing import Any

from tornado.web import RequestHandler

from cleanclose.integrations.status.showing import ALLOW, Show

__all__ = ["handler_for"]


def handler_for(show: Show) -> type[RequestHandler]:
    """Make a handler class for one of the application's routes.

    Args:
        show: Makes the page for a client that sends this in ``Accept``.
    """

    class StatusHandler(RequestHandler):
        """The status page."""

        def get(self, *_: Any) -> None:
            """The page; Tornado leaves the body out for HEAD."""
            shown = show(self.request.headers.get("Accept", ""))
            for name, value in shown.headers:
                self.set_header(name, value)
            self.write(shown.body)  # pyright: ignore[reportUnknownMemberType]

        head = get

        def post(self, *_: Any) -> None:
            """Answer any other method without a page, and without Tornado's line about it."""
            self.set_status(405)
            self.set_header("Allow", ALLOW)

        put = patch = delete = options = post

    return StatusHandler
