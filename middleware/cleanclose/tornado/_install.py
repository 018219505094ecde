"""``install(application)``: the application's ``start_request``, wrapped."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, Unpack, cast, overload

from tornado import httpserver, httputil, web

from cleanclose.core import Outlet, Settings, SettingsOptions
from cleanclose.core.deliver.early import leave_alone
from cleanclose.core.stop import Stoppable
from cleanclose.quiet import quieten
from cleanclose.servers.tornado import can_be_watched
from cleanclose.surge import make_reporter
from cleanclose.tornado._delegate import Delegate, Mounted
from cleanclose.tornado._stop import stop_handlers
from cleanclose.tornado._witness import TornadoSetup, TornadoWatch

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
    """Deliver early responses to clients that are still uploading, and report departures.

    An upload over the server's ``max_body_size`` gets a 413 like any other error. Call it before or
    after ``listen``. You may call it again: the last call's settings apply.

    Args:
        application: A `tornado.web.Application`, even one among the rules of another router or
            application; any other `tornado.httputil.HTTPServerConnectionDelegate`, for example a
            `tornado.httpserver.HTTPServer`; or a callable that gets each request whole, for example
            a `tornado.wsgi.WSGIContainer`. If one is mounted in another, the outer one's settings
            apply.
        outlets: What receives the events, in this order; see `cleanclose.core.Outlet`.
            Default: one `cleanclose.core.StructlogOutlet`.
        stop_work: Which requests' handlers are cancelled as a whole when their client has left.
            True: those with a safe method. A callable: those of them for which it returns true. A
            `cleanclose.core.Stoppable` may name unsafe methods, too. Default: none.
        **settings: The fields of `cleanclose.core.Settings`.

    Returns:
        The same application. For a callable, an application that calls it: serve that one.

    Raises:
        TypeError: The application is none of these, for example a class.
        ValueError: A setting is out of its range, or ``stop_work`` is none of these.
    """
    checked = Settings(**settings)
    application = _checked(application)
    is_server = isinstance(application, httpserver.HTTPServer)
    served: Any = application.request_callback if is_server else application
    stop_handlers(served, Stoppable.of(stop_work))
    quieten(checked)
    setup = TornadoSetup.of(checked, make_reporter(outlets, checked), application=served)
    # Each is looked up on the instance for each request.
    application.start_request = _StartRequest(application.start_request, setup)
    if isinstance(application, web.Application):
        vars(application)["find_handler"] = _FindHandler(application.find_handler, setup)
    return application


def _checked(application: Any) -> Any:
    if isinstance(application, type):
        raise TypeError(f"install() takes the application itself, not its class {application!r}")
    if not hasattr(application, "start_request"):
        if not callable(application):
            raise TypeError(f"install() takes what HTTPServer takes, not {application!r}")
        # It wraps the callable, and listens nowhere.
        application = httpserver.HTTPServer(cast("Called", application))
    return application


def skip(handler: web.RequestHandler) -> None:
    """Leave this request's response alone: send it as if nothing were installed.

    Call it before the response begins. It has no effect if nothing is installed.

    Args:
        handler: The request's handler.
    """
    watch: object = getattr(handler.request.connection, "watch", None)
    if isinstance(watch, TornadoWatch):
        leave_alone(watch)


class _Replacement:
    """Replaces one of the application's methods.

    Args:
        found: The method, or what has replaced it before: the last call's settings apply.
        setup: What all requests share.
    """

    def __init__(self, found: Any, setup: TornadoSetup) -> None:
        self.original: Any = found.original if isinstance(found, type(self)) else found
        self.setup = setup


class _StartRequest(_Replacement):
    """Replaces the application's ``start_request``."""

    def __call__(
        self, server_conn: object, request_conn: httputil.HTTPConnection
    ) -> httputil.HTTPMessageDelegate:
        if not _is_to_be_watched(request_conn):
            delegate: httputil.HTTPMessageDelegate = self.original(server_conn, request_conn)
            return delegate
        return Delegate(self.original, self.setup, server_conn, request_conn)


class _FindHandler(_Replacement):
    """Replaces ``find_handler``: another router asks an `Application` only for that."""

    def __call__(self, request: httputil.HTTPServerRequest, **kwargs: Any) -> Any:
        if not _is_to_be_watched(request.connection):
            return self.original(request, **kwargs)
        find_handler = functools.partial(self.original, request, **kwargs)
        return Mounted(find_handler, self.setup, request)


def _is_to_be_watched(connection: object) -> bool:
    # Where one application has another among its rules, nearly every connection is watched already.
    return getattr(connection, "watch", None) is None and can_be_watched(connection)
