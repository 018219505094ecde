"""``install(application)``: the application's ``start_request``, wrapped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, Unpack

from tornado import httputil, web

from cleanclose.core import (
    Outlet,
    Places,
    Reporter,
    Settings,
    SettingsOptions,
)
from cleanclose.integrations.stdlib import install_quiet_logs
from cleanclose.tornado._connection import HeldConnection
from cleanclose.tornado._delegate import Delegate, StartRequest

__all__ = ["install", "skip"]

Application = TypeVar("Application", bound=httputil.HTTPServerConnectionDelegate)


def install(
    application: Application,
    *,
    outlets: Sequence[Outlet] | None = None,
    **settings: Unpack[SettingsOptions],
) -> Application:
    """An early response reaches a client which is still uploading, and departures are told.

    An upload over the server's ``max_body_size`` is answered with 413 like any other error. May
    be called before and after ``listen``, and again: the last call's settings are in force.

    Args:
        application: A `tornado.web.Application` or any other
            `tornado.httputil.HTTPServerConnectionDelegate`.
        outlets: What receives the events, in this order; see `cleanclose.core.Outlet`.
            Default: one `cleanclose.core.StructlogOutlet`.
        **settings: The fields of `cleanclose.core.Settings`.

    Returns:
        The same application.

    Raises:
        ValueError: A setting is out of its range.
    """
    checked = Settings(**settings)
    levels = checked.level_table()
    if checked.quiet_logs:
        install_quiet_logs(levels)
    start_request: StartRequest = application.start_request
    if isinstance(start_request, _StartRequest):
        start_request = start_request.original
    # HTTPServer looks the method up on the instance for each request.
    application.start_request = _StartRequest(  # type: ignore[method-assign]
        application,
        start_request,
        checked,
        Reporter(outlets, levels=levels, surge=checked.surge_detector()),
    )
    return application


def skip(handler: web.RequestHandler) -> None:
    """Leave this request's response alone: send it as if nothing were installed.

    Call it before the response begins. Without effect where nothing is installed.

    Args:
        handler: The request's handler.
    """
    connection: Any = handler.request.connection
    if isinstance(connection, HeldConnection):
        connection.leave_alone()


class _StartRequest:
    """What stands in for the application's method."""

    def __init__(
        self,
        application: httputil.HTTPServerConnectionDelegate,
        original: StartRequest,
        settings: Settings,
        reporter: Reporter,
    ) -> None:
        self.original = original
        self._application = application
        self._settings = settings
        self._reporter = reporter
        self._places = Places(reading=settings.max_draining, inside=settings.max_lingering)

    def __call__(
        self, server_conn: object, request_conn: httputil.HTTPConnection
    ) -> httputil.HTTPMessageDelegate:
        return Delegate(
            self._application,
            self.original,
            self._settings,
            self._places,
            self._reporter,
            server_conn,
            request_conn,
        )
