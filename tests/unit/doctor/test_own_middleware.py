"""Where an application has the middleware in it already."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from starlette.applications import Starlette
from tornado.web import Application

from cleanclose.asgi import CleanCloseMiddleware as AsgiMiddleware
from cleanclose.doctor.application.own import has_middleware, put_inside
from cleanclose.tornado import install
from cleanclose.wsgi import CleanCloseMiddleware as WsgiMiddleware


def flask(*, wrapped: bool) -> Any:
    app: Any = Flask("some")
    if wrapped:
        app.wsgi_app = WsgiMiddleware(app.wsgi_app)
    return app


def starlette(*, wrapped: bool) -> Any:
    app = Starlette()
    if wrapped:
        app.add_middleware(AsgiMiddleware)
    return app


def around(*, wrapped: bool) -> Any:
    return AsgiMiddleware(starlette(wrapped=False)) if wrapped else starlette(wrapped=False)


def tornado(*, wrapped: bool) -> Any:
    return install(Application()) if wrapped else Application()


@pytest.mark.parametrize("make", [flask, starlette, around, tornado])
def test_it_is_seen(make: Any) -> None:
    assert has_middleware(make(wrapped=True))
    assert not has_middleware(make(wrapped=False))


@pytest.mark.parametrize("make", [flask, starlette, around])
def test_something_can_be_put_inside(make: Any) -> None:
    assert put_inside(make(wrapped=True), lambda inner: inner)
    assert not put_inside(make(wrapped=False), lambda inner: inner)


def test_what_is_put_inside_stands_between_the_middleware_and_the_application() -> None:
    app = flask(wrapped=True)
    seen: list[Any] = []

    def wrap(inner: Any) -> Any:
        seen.append(inner)
        return "instead"

    put_inside(app, wrap)
    assert app.wsgi_app.app == "instead"
    assert seen[0].__self__ is app
