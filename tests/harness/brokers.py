"""Redis, PostgreSQL and MariaDB for the tests about upstreams.

Each runs with a temporary folder and a loopback port of its own, as the current user where the
program allows it. (RabbitMQ is in `example_apps.staging`: an example app needs it too.)
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Final

from example_apps.staging import RabbitMq
from tests.harness.processes import ServerProcess, find_program
from tests.harness.waiting import until

__all__ = [
    "MARIADB",
    "REDIS",
    "RabbitMq",
    "mariadb",
    "postgresql",
    "postgresql_programs",
    "redis_server",
]

REDIS: Final = "redis-server"
"""The program that `redis_server` needs."""
MARIADB: Final = ("mariadb-install-db", "mariadbd")
"""The programs that `mariadb` needs."""

_STARTING: Final = 60.0


@contextlib.contextmanager
def redis_server() -> Generator[ServerProcess]:
    """A Redis that keeps nothing."""
    with (
        _folder("redis") as folder,
        ServerProcess(
            (_program(REDIS), "--port", "{port}", "--bind", "127.0.0.1", "--save", ""),
            cwd=folder,
            stop_seconds=0.0,
            name="redis",
        ) as server,
    ):
        yield server


def postgresql_programs() -> tuple[str, str]:
    """The programs that `postgresql` needs: Debian has them in a folder for each version."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return tuple(  # type: ignore[return-value]
        str(folders[-1] / name) if folders else name for name in ("initdb", "postgres")
    )


@contextlib.contextmanager
def postgresql() -> Generator[ServerProcess]:
    """A PostgreSQL whose user ``postgres`` needs no password."""
    initdb, postgres = map(_program, postgresql_programs())
    with _folder("postgresql") as folder:
        # It does not run as root.
        other_user = _as_another_user(folder) if os.geteuid() == 0 else ()
        data = folder / "data"
        _run(
            *other_user,
            *(initdb, "--no-sync", "--auth=trust", "--username=postgres", "--no-instructions"),
            *("--encoding=UTF8", "--locale=C", f"--pgdata={data}"),
        )
        with ServerProcess(
            (
                *other_user,
                *(postgres, "-D", str(data), "-p", "{port}", "-h", "127.0.0.1", "-F"),
                *("-k", str(folder), "-c", "shared_buffers=1MB"),
            ),
            ready_seconds=_STARTING,
            stop_seconds=0.0,
            name="postgresql",
        ) as server:
            # It accepts, and refuses, before it has started.
            until(lambda: "ready to accept connections" in server.log_text(), server.log_text)
            yield server


@contextlib.contextmanager
def mariadb() -> Generator[ServerProcess]:
    """A MariaDB whose user ``root`` needs no password."""
    install, mariadbd = map(_program, MARIADB)
    with _folder("mariadb") as folder:
        data = folder / "data"
        # Without this it would not run as root.
        user = ("--user=root",) if os.geteuid() == 0 else ()
        small = ("--innodb-buffer-pool-size=8M", "--innodb-log-file-size=4M", "--skip-log-bin")
        _run(
            *(install, "--no-defaults", *user, *small, f"--datadir={data}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db"),
        )
        with ServerProcess(
            (
                *(mariadbd, "--no-defaults", *user, *small, f"--datadir={data}"),
                *("--port={port}", "--bind-address=127.0.0.1", f"--socket={folder / 'socket'}"),
                f"--pid-file={folder / 'pid'}",
            ),
            ready_seconds=_STARTING,
            stop_seconds=0.0,
            name="mariadb",
        ) as server:
            yield server


@contextlib.contextmanager
def _folder(name: str) -> Generator[Path]:
    with tempfile.TemporaryDirectory(
        prefix=f"cleanclose-{name}-", ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def _as_another_user(folder: Path) -> Sequence[str]:
    shutil.chown(folder, "nobody", "nogroup")
    return (_program("setpriv"), "--reuid=nobody", "--regid=nogroup", "--clear-groups")


def _program(name: str) -> str:
    found = find_program(name)
    assert found is not None, f"there is no {name}"
    return found


def _run(*command: str) -> None:
    done = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_STARTING,
    )
    assert done.returncode == 0, done.stdout
