"""The route that reads its body, among the application's own, so that its error handling applies.

These additions exist only in the process that the doctor started.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from cleanclose.doctor.application import routes

__all__ = ["add_reading_route"]


def _flask(app: Any) -> None:
    request: Any = import_module("flask").request

    def read() -> bytes:
        request.get_data()
        return routes.OK

    app.add_url_rule(routes.READ, "cleanclose_doctor_read", read, methods=["POST"])


def _django(app: Any) -> None:
    response: Any = import_module("django.http").HttpResponse
    exempt: Any = import_module("django.views.decorators.csrf").csrf_exempt
    path: Any = import_module("django.urls").path
    resolver: Any = import_module("django.urls").get_resolver()

    def read(request: Any) -> Any:
        len(request.body)
        return response(routes.OK)

    resolver.url_patterns.insert(0, path(routes.READ.removeprefix("/"), exempt(read)))


_ADD: Final[dict[str, Callable[[Any], None]]] = {
    "Flask": _flask,
    "Django": _django,
}


def add_reading_route(app: Any, framework: str | None) -> bool:
    """Add the route that reads its body to a WSGI application.

    Args:
        app: The application.
        framework: The framework's name.

    Returns:
        Whether that worked. If not, the doctor serves the route around the application.
    """
    add = None if framework is None else _ADD.get(framework)
    if add is None:
        return False
    try:
        add(app)
    except Exception:  # noqa: BLE001 - it takes no more routes, or has served a request
        return False
    return True
