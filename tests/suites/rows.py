"""Which suites there are, and how each of them is run."""

from __future__ import annotations

import dataclasses
from typing import Final

__all__ = ["SUITES", "Suite"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """The test suite in a framework's source distribution.

    Args:
        requirement: What pip downloads.
        package: Its name on the package index, where that is not the suite's.
        needs: What the suite needs besides the framework, for pip.
        arguments: What is run: pytest's arguments, or the labels of Django's runner.
        folder: Where, within the source distribution.
        django: Whether it is Django's own runner, and not pytest.
    """

    requirement: str
    package: str | None = None
    needs: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ("tests",)
    folder: str = "."
    django: bool = False


_STARLETTE: Final = Suite(
    requirement="starlette",
    package="starlette",
    needs=(
        "starlette[full]",
        "blockbuster",
        "importlib-metadata",
        "opentelemetry-sdk",
        "pytest-codspeed",
        "trio",
    ),
)

SUITES: Final = {
    "starlette": _STARLETTE,
    # The same, each request in a block.
    "starlette-stop": _STARLETTE,
    "anyio": Suite(
        requirement="anyio",
        needs=(
            "anyio[trio]",
            "blockbuster",
            "exceptiongroup",
            "hypothesis",
            "psutil",
            "pytest-mock",
            "trustme",
            "truststore",
            "uvloop",
        ),
        # What is about tasks, cancelling and waiting, and not about sockets, files or processes.
        arguments=(
            "tests/test_taskgroups.py",
            "tests/test_synchronization.py",
            "tests/test_to_thread.py",
            "tests/test_from_thread.py",
            "tests/test_eventloop.py",
            "tests/test_lowlevel.py",
            "tests/streams/test_memory.py",
        ),
    ),
    "fastapi": Suite(
        requirement="fastapi",
        needs=(
            "fastapi[all]",
            "a2wsgi",
            "anyio[trio]",
            "coverage",
            "dirty-equals",
            "flask",
            "inline-snapshot",
            "logfire",
            "opentelemetry-instrumentation-fastapi",
            "pwdlib[argon2]",
            "pyjwt",
            "pytest-codspeed",
            "python-slugify",
            "sentry-sdk",
            "sqlmodel",
            "strawberry-graphql",
        ),
        # Of the tools that its authors publish with, no application is in there.
        arguments=("tests", "--ignore=tests/test_translate.py"),
    ),
    "uvicorn": Suite(
        requirement="uvicorn",
        needs=(
            "uvicorn[standard]",
            "a2wsgi",
            "cryptography",
            "httpx2",
            "pytest-mock",
            "trustme",
            "wsproto",
        ),
        arguments=("tests", "--ignore=tests/benchmarks"),
    ),
    "flask": Suite(
        requirement="flask",
        needs=("flask[async,dotenv]", "greenlet"),
        # Its command line: no request is served.
        arguments=("tests", "--ignore=tests/test_cli.py"),
    ),
    "werkzeug": Suite(
        requirement="werkzeug",
        needs=("cffi", "cryptography", "ephemeral-port-reserve", "watchdog"),
        # They wait for changes of files, not for responses.
        arguments=("tests", "-k", "not reloader"),
    ),
    "django": Suite(
        requirement="django>=5.2,<6",
        arguments=(
            "asgi",
            "builtin_server",
            "csrf_tests",
            "file_uploads",
            "handlers",
            "httpwrappers",
            "middleware",
            "middleware_exceptions",
            "requests_tests",
            "responses",
            "servers",
            "sessions_tests",
            "staticfiles_tests",
            "test_client",
            "test_client_regress",
            "view_tests",
            "wsgi",
        ),
        folder="tests",
        django=True,
    ),
    "falcon": Suite(requirement="falcon"),
    "bottle": Suite(requirement="bottle", arguments=("test",)),
    "asgiref": Suite(requirement="asgiref", needs=("pytest-asyncio",)),
    "a2wsgi": Suite(requirement="a2wsgi", needs=("starlette", "baize")),
}
"""By name; the order is that of the table in docs/frameworks-suites.md."""
