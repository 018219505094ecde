"""The middleware around every application that a framework's own suite calls.

Each function replaces the place where a suite (through the framework's test client, or its
server) takes the application, and nothing else: outermost, where a user would put it. The suite's
own objects keep the application itself.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Final

from cleanclose.asgi import CleanCloseMiddleware as AsgiMiddleware
from cleanclose.asgi import Stoppable, stop_work
from cleanclose.wsgi import CleanCloseMiddleware as WsgiMiddleware

__all__ = ["WRAPPING"]

_WRAPPERS: Final = (AsgiMiddleware, WsgiMiddleware)
_ALL: Final = Stoppable(methods=["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"])
_stopped: Stoppable | bool = False
"""Which requests are blocks that end with their client."""
_KEPT: Final = "_cleanclose_middleware"


def _asgi(app: Any) -> Any:
    """An ASGI 3 application wrapped; whatever else it is, as it is."""
    if isinstance(app, _WRAPPERS) or not _is_asgi_3(app):
        return app
    return AsgiMiddleware(app, stop_work=_stopped or False)


def _is_asgi_3(app: Any) -> bool:
    while isinstance(app, functools.partial):
        app = app.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if inspect.isclass(app):
        return False
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(type(app).__call__)


def _wsgi(app: Any) -> Any:
    return app if isinstance(app, _WRAPPERS) else WsgiMiddleware(app)


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _before_init(owner: Any, wrap: Callable[[Any], Any], name: str = "app") -> None:
    """Let a class's constructor get its application wrapped."""
    original = owner.__init__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        if name in bound.arguments:
            bound.arguments[name] = wrap(bound.arguments[name])
        original(*bound.args, **bound.kwargs)

    owner.__init__ = init


def _after_init(owner: Any, wrap: Callable[[Any], Any]) -> None:
    """Let an object wrap the application that it has found while it was constructed."""
    original = owner.__init__

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.app = wrap(self.app)

    owner.__init__ = init


def _around_call(owner: Any, middleware: Any) -> None:
    """Let every call of an application, which is an object of a class, pass the middleware."""
    original = owner.__call__

    @functools.wraps(original)
    def call(self: Any, *args: Any) -> Any:
        kept: dict[str, Any] = self.__dict__
        if _KEPT not in kept:
            kept[_KEPT] = middleware(functools.partial(original, self))
        return kept[_KEPT](*args)

    owner.__call__ = call


def _httpx(*, asgi: bool = True) -> None:
    for name in ("httpx", "httpx2"):
        try:
            module = _module(name)
        except ImportError:
            continue
        if asgi:
            _before_init(module.ASGITransport, _asgi)
        _before_init(module.WSGITransport, _wsgi)


def _starlette() -> None:
    _before_init(_module("starlette.testclient").TestClient, _asgi)
    _httpx()


def _starlette_stop() -> None:
    global _stopped
    _stopped = _ALL
    _starlette()


def _anyio() -> None:
    """Let each test run in a block of a request, whose client stays."""
    for backend in ("_asyncio", "_trio"):
        owner = _module(f"anyio._backends.{backend}").TestRunner
        owner.run_test = _in_a_block(owner.run_test)


def _in_a_block(run_test: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(run_test)
    def run(self: Any, test: Callable[..., Any], kwargs: dict[str, Any]) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            async with stop_work():
                await test(**kwargs)

        async def request() -> None:
            await AsgiMiddleware(app, outlets=[])(dict(_SCOPE), _stays, _stays)

        run_test(self, request, {})

    return run


async def _stays(message: object = None) -> Any:
    """The server's end of a client that says nothing and stays."""
    await _module("anyio").sleep_forever()


_SCOPE: Final[dict[str, Any]] = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "GET",
    "path": "/",
    "query_string": b"",
    "headers": [],
}


def _uvicorn() -> None:
    for name in (
        "http.h11_impl:H11Protocol",
        "http.httptools_impl:HttpToolsProtocol",
        "websockets.websockets_sansio_impl:WebSocketsSansIOProtocol",
        "websockets.wsproto_impl:WSProtocol",
    ):
        module, _, protocol = name.partition(":")
        _after_init(getattr(_module(f"uvicorn.protocols.{module}"), protocol), _asgi)


def _werkzeug() -> None:
    test = _module("werkzeug.test")
    original = test.run_wsgi_app

    @functools.wraps(original)
    def run_wsgi_app(app: Any, environ: Any, buffered: bool = False) -> Any:
        return original(_wsgi(app), environ, buffered)

    test.run_wsgi_app = run_wsgi_app
    _before_init(_module("werkzeug.serving").BaseWSGIServer, _wsgi)


def _django() -> None:
    _around_call(_module("django.core.handlers.wsgi").WSGIHandler, WsgiMiddleware)
    _around_call(_module("django.core.handlers.asgi").ASGIHandler, AsgiMiddleware)
    handler = _module("django.test.client").ClientHandler
    original = handler.__call__

    @functools.wraps(original)
    def call(self: Any, environ: Any) -> Any:
        # The test client's handler is no WSGI application: it gives Django's response back.
        responses: list[Any] = []

        def app(environ: Any, start_response: Any) -> Iterable[bytes]:
            response = original(self, environ)
            responses.append(response)
            start_response(f"{response.status_code} {response.reason_phrase}", [])
            return []

        def start_response(*_: object) -> Callable[[bytes], object]:
            return lambda data: None

        body = WsgiMiddleware(app)(environ, start_response)
        for _ in body:
            pass
        close = getattr(body, "close", None)
        if close is not None:
            close()
        return responses[0]

    handler.__call__ = call


def _falcon() -> None:
    client = _module("falcon.testing.client")
    for name, wrap in (("simulate_request", None), ("_simulate_request_asgi", _asgi)):
        original = getattr(client, name)
        signature = inspect.signature(original)

        def simulate(
            *args: Any,
            _original: Any = original,
            _signature: Any = signature,
            _wrap: Any = wrap,
            **kwargs: Any,
        ) -> Any:
            bound = _signature.bind(*args, **kwargs)
            app = bound.arguments["app"]
            bound.arguments["app"] = (_wrap or _either)(app)
            return _original(*bound.args, **bound.kwargs)

        functools.update_wrapper(simulate, original)
        setattr(client, name, simulate)
    _module("falcon.testing").simulate_request = client.simulate_request
    _before_init(client.ASGIConductor, _asgi)


def _either(app: Any) -> Any:
    return _asgi(app) if _is_asgi_3(app) else _wsgi(app)


def _bottle() -> None:
    _around_call(_module("bottle").Bottle, WsgiMiddleware)


def _asgiref() -> None:
    _before_init(_module("asgiref.testing").ApplicationCommunicator, _asgi, "application")


WRAPPING: Final[dict[str, Callable[[], None]]] = {
    "starlette": _starlette,
    "starlette-stop": _starlette_stop,
    "anyio": _anyio,
    "fastapi": _starlette,
    "uvicorn": _uvicorn,
    "flask": _werkzeug,
    "werkzeug": _werkzeug,
    "django": _django,
    "falcon": _falcon,
    "bottle": _bottle,
    "asgiref": _asgiref,
    "a2wsgi": _httpx,
}
"""By suite: what wraps its applications."""
