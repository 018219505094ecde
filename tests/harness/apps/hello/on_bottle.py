from importlib import import_module
from typing import Any

app: Any = import_module("bottle").Bottle()


@app.get("/")  # type: ignore[untyped-decorator]
def index() -> str:
    return "Hello\n"
