from importlib import import_module
from typing import Any

django: Any = import_module("django")
conf: Any = import_module("django.conf")
conf.settings.configure(
    SECRET_KEY="only for this test", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], DEBUG=False
)
django.setup(set_prefix=False)


def index(request: Any) -> Any:
    return import_module("django.http").HttpResponse(b"Hello\n")


urlpatterns: list[Any] = [import_module("django.urls").path("", index)]
app: Any = import_module("django.core.handlers.wsgi").WSGIHandler()
