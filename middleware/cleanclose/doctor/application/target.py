"""Find the user's application and its interface.

Run as a program, it answers for a target in one line of JSON: the doctor never imports the
application into its own process.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import sys
import traceback
from typing import Any, Final, Literal, NamedTuple

from cleanclose.doctor.application.own import has_middleware

__all__ = ["FOUND", "Interface", "Target", "TargetError", "find", "load"]

Interface = Literal["asgi", "wsgi", "tornado"]
FOUND: Final = "cleanclose-doctor-found "
"""How the answer's line begins: an application may print lines of its own when it is imported."""
_FRAMEWORKS: Final = (
    ("fastapi.applications", "FastAPI"),
    ("starlette.applications", "Starlette"),
    ("litestar.app", "Litestar"),
    ("quart.app", "Quart"),
    ("flask.app", "Flask"),
    ("django.core.handlers.asgi", "Django"),
    ("django.core.handlers.wsgi", "Django"),
    ("falcon.asgi.app", "Falcon"),
    ("falcon.app", "Falcon"),
    ("bottle", "Bottle"),
    ("pyramid.router", "Pyramid"),
    ("tornado.web", "Tornado"),
)


class TargetError(Exception):
    """The user's target is not an application; the message is one sentence."""


class Target(NamedTuple):
    """The application, and its interface."""

    app: Any
    interface: Interface
    framework: str | None
    has_middleware: bool
    """Whether it already has cleanclose's middleware in it."""


def load(target: str) -> Any:
    """Import the user's target.

    Args:
        target: ``module:attribute``; the attribute may have dots; a pair of brackets after it
            calls it (an application factory). Without a colon the attribute is ``app``, or
            ``application``.

    Raises:
        TargetError: There is no such module or attribute, or it fails.
    """
    name, _, attribute = target.partition(":")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    found: Any = _module(name)
    if not attribute:
        attribute = "app" if hasattr(found, "app") else "application"
    called = attribute.endswith("()")
    for part in attribute.removesuffix("()").split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise TargetError(f"The module {name} has no {attribute}.") from None
    if not called:
        return found
    try:
        return found()
    except Exception as error:
        raise TargetError(f"{target} failed with {_short(error)}.") from error


def _module(name: str) -> Any:
    if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
        raise TargetError(f"{name!r} is not a module's name: write module:app, without .py.")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise TargetError(f"There is no module {name} here or on Python's path.") from error
        raise TargetError(f"{name} needs the module {error.name}, which is missing.") from error
    except (Exception, SystemExit) as error:
        raise TargetError(f"{name} cannot be imported: {_short(error)}.") from error


def _short(error: BaseException) -> str:
    """Put the exception into one line, with the place in the application that raised it."""
    text = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith("<frozen")]
    place = f" ({os.path.basename(own[-1].filename)}, line {own[-1].lineno})" if own else ""
    return f"{text[:300].rstrip('.')}{place}"


def find(target: str) -> Target:
    """Import the application and find out its interface.

    Args:
        target: See `load`.

    Raises:
        TargetError: The target cannot be imported, or is not an application.
    """
    app = load(target)
    interface = _interface(app)
    if interface is None:
        raise TargetError(f"{target} is neither an ASGI, nor a WSGI, nor a Tornado application.")
    return Target(app, interface, _framework(app), has_middleware(app))


def _framework(app: object) -> str | None:
    modules = {each.__module__ for each in type(app).__mro__}
    return next((name for module, name in _FRAMEWORKS if module in modules), None)


def _interface(app: Any) -> Interface | None:
    if "tornado.web" in sys.modules and isinstance(app, sys.modules["tornado.web"].Application):
        return "tornado"
    if not callable(app) or inspect.isclass(app):
        return None
    function: Any = app
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(app):
        return "asgi"
    # The number of arguments decides the rest. A bound method's signature has no `self`.
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    plain = [each for each in parameters if each.kind in positional]
    required = [each for each in plain if each.default is inspect.Parameter.empty]
    if len(required) == 3:
        return "asgi"
    return "wsgi" if len(required) <= 2 <= len(plain) else None


def _main() -> None:
    try:
        found = find(sys.argv[1])
        answer: dict[str, str | bool | None] = {
            "interface": found.interface,
            "framework": found.framework,
            "has_middleware": found.has_middleware,
        }
        try:
            importlib.import_module(f"cleanclose.{found.interface}")
        except ImportError as error:
            answer["shim_needs"] = error.name
    except TargetError as error:
        answer = {"error": str(error)}
    sys.stdout.flush()
    # On a line of its own, whatever the application wrote before.
    os.write(1, f"\n{FOUND}{json.dumps(answer)}\n".encode())
    # Threads that the application started must not keep this process alive.
    os._exit(0)


if __name__ == "__main__":
    _main()
