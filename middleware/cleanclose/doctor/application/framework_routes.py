"""The route that reads, as one of the application's own, so that it handles errors as usual.

Each of these is in force for the process that the doctor has started, and nowhere else.
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
    """Give a WSGI application the route that reads its body.

    Args:
        app: The application.
        framework: The framework's name.

    Returns:
        Whether it has it. Otherwise the route has to be served around the application.
    """
    add = None if framework is None else _ADD.get(framework)
    if add is None:
        return False
    try:
        add(app)
    except Exception:  # noqa: BLE001 - it has served a request, or takes no more routes
        return False
    return True
