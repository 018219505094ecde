"""``install(application)``: the application's ``start_request``, wrapped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, Unpack, overload

from tornado import httputil, web

from cleanclose.core import Outlet, Settings, SettingsOptions
from cleanclose.core.deliver.places import Places
from cleanclose.core.outlets import Reporter
from cleanclose.core.stop import Stoppable
from cleanclose.quiet import install_quiet_logs
from cleanclose.servers import MISSING, find
from cleanclose.surge import make_reporter
from cleanclose.tornado._connection import HeldConnection
from cleanclose.tornado._delegate import Delegate, StartRequest
from cleanclose.tornado._delivery import Setup
from cleanclose.tornado._stop import stop_handlers

__all__ = ["install", "skip"]

Application = TypeVar("Application", bound=httputil.HTTPServerConnectionDelegate)


Called = Callable[[httputil.HTTPServerRequest], None]


@overload
def install(
    application: Application,
    *,
    outlets: Sequence[Outlet] | None = ...,
    stop_work: bool | Callable[[httputil.HTTPServerRequest], bool] | Stoppable = ...,
    **settings: Unpack[SettingsOptions],
) -> Application: ...


@overload
def install(
    application: Called,
    *,
    outlets: Sequence[Outlet] | None = ...,
    stop_work: bool | Callable[[httputil.HTTPServerRequest], bool] | Stoppable = ...,
    **settings: Unpack[SettingsOptions],
) -> httputil.HTTPServerConnectionDelegate: ...


def install(
    application: Any,
    *,
    outlets: Sequence[Outlet] | None = None,
    stop_work: bool | Callable[[httputil.HTTPServerRequest], bool] | Stoppable = False,
    **settings: Unpack[SettingsOptions],
) -> Any:
    """An early response reaches a client which is still uploading, and departures are told.

    An upload over the server's ``max_body_size`` is answered with 413 like any other error. May
    be called before and after ``listen``, and again: the last call's settings are in force.

    Args:
        application: A `tornado.web.Application` or any other
            `tornado.httputil.HTTPServerConnectionDelegate`; or what `tornado.httpserver.HTTPServer`
            takes besides: a callable that gets each request whole, as a
            `tornado.wsgi.WSGIContainer` is.
        outlets: What receives the events, in this order; see `cleanclose.core.Outlet`.
            Default: one `cleanclose.core.StructlogOutlet`.
        stop_work: Which requests' handlers are cancelled as a whole when their client has left:
            True for those with a safe method, a callable for those of them for which it is true,
            or a `cleanclose.core.Stoppable`, which may name unsafe methods. Default: none.
        **settings: The fields of `cleanclose.core.Settings`.

    Returns:
        The same application. For a callable an application that calls it: that one is to be
        served.

    Raises:
        ValueError: A setting is out of its range, or ``stop_work`` is none of these.
    """
    checked = Settings(**settings)
    stop_handlers(application, Stoppable.of(stop_work))
    levels = checked.level_table()
    if checked.quiet_logs:
        install_quiet_logs(levels)
    if not hasattr(application, "start_request"):
        application = _Callable(application)
    start_request: StartRequest = application.start_request
    if isinstance(start_request, _StartRequest):
        start_request = start_request.original
    # HTTPServer looks the method up on the instance for each request.
    application.start_request = _StartRequest(
        application,
        start_request,
        checked,
        make_reporter(outlets, checked),
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


class _Callable(httputil.HTTPServerConnectionDelegate):
    """A callable, made an application: what HTTPServer itself does with one."""

    def __init__(self, called: Called) -> None:
        self._called = called

    def start_request(
        self, server_conn: object, request_conn: httputil.HTTPConnection
    ) -> httputil.HTTPMessageDelegate:
        """Implements `tornado.httputil.HTTPServerConnectionDelegate.start_request`."""
        return _Gathered(self._called, request_conn)


class _Gathered(httputil.HTTPMessageDelegate):
    """One request for a callable, which gets it with its body."""

    def __init__(self, called: Called, connection: httputil.HTTPConnection) -> None:
        self._called = called
        self._connection = connection
        self._request: httputil.HTTPServerRequest | None = None
        self._body = bytearray()

    def headers_received(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
    ) -> None:
        """The request's head is there."""
        assert isinstance(start_line, httputil.RequestStartLine)
        self._request = httputil.HTTPServerRequest(
            connection=self._connection, start_line=start_line, headers=headers
        )

    def data_received(self, chunk: bytes) -> None:
        """A piece of the body is there."""
        self._body += chunk

    def finish(self) -> None:
        """The body is complete."""
        request: Any = self._request
        request.body = bytes(self._body)
        # Tornado's own adapter for callables does: it fills the request's arguments.
        parse = find(request, "_parse_body")
        if parse is not MISSING:
            parse()
        self._called(request)


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
        self._setup = Setup(
            settings=settings, places=Places(settings.max_draining), reporter=reporter
        )

    def __call__(
        self, server_conn: object, request_conn: httputil.HTTPConnection
    ) -> httputil.HTTPMessageDelegate:
        return Delegate(
            self._application,
            self.original,
            self._setup,
            server_conn,
            request_conn,
        )
