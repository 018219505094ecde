"""An application that already has the middleware: where it is, and how to get inside of it.

The doctor's routes must stand inside the middleware, or they would show the bare server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

__all__ = ["has_middleware", "put_inside"]

_DEEPEST: Final = 20
_INNER: Final = ("wsgi_app", "asgi_app", "app", "application")
"""The attributes in which frameworks and middleware keep what they call."""

Wrap = Callable[[Any], Any]


def _is_ours(kind: Any) -> bool:
    module = str(getattr(kind, "__module__", ""))
    return module.startswith(("cleanclose.asgi", "cleanclose.wsgi", "cleanclose.tornado"))


def _find(app: Any) -> Any:
    """Find our middleware's object through everything around it; None without one."""
    for _ in range(_DEEPEST):
        if _is_ours(app.__class__):
            return app
        attributes: dict[str, Any] = getattr(app, "__dict__", {})
        inner = [attributes[name] for name in _INNER if callable(attributes.get(name))]
        if not inner:
            return None
        app = inner[0]
    return None


def _declared(app: Any) -> int | None:
    """Find our place in a Starlette application's list; None without one."""
    declared: list[Any] = getattr(app, "user_middleware", None) or []
    places = [number for number, each in enumerate(declared) if _is_ours(getattr(each, "cls", 0))]
    return places[-1] if places else None


def has_middleware(app: Any) -> bool:
    """Whether the application has the middleware in it, as far as the doctor can see.

    Args:
        app: The application.
    """
    start_request: Any = getattr(app, "start_request", None)
    if _is_ours(start_request.__class__):
        return True
    return _find(app) is not None or _declared(app) is not None


class _Inserted:
    """An entry of Starlette's list."""

    def __init__(self, app: Any, wrap: Wrap) -> None:
        self._app = wrap(app)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


def put_inside(app: Any, wrap: Wrap) -> bool:
    """Put something between an application and its own middleware.

    Args:
        app: The application.
        wrap: Takes what the middleware calls, and returns what it shall call instead.

    Returns:
        Whether that worked.
    """
    place = _declared(app)
    if place is not None:
        entry: Any = app.user_middleware[place].__class__
        app.user_middleware.insert(place + 1, entry(_Inserted, wrap=wrap))
        return True
    found = _find(app)
    if found is None or not callable(getattr(found, "app", None)):
        return False
    found.app = wrap(found.app)
    return True
