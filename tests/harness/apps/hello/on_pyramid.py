from importlib import import_module
from typing import Any


def index(request: Any) -> Any:
    return import_module("pyramid.response").Response("Hello\n")


config: Any = import_module("pyramid.config").Configurator()
config.add_route("index", "/")
config.add_view(index, route_name="index")
app: Any = config.make_wsgi_app()
