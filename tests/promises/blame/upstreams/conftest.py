"""The upstreams: real programs, each started once for the tests of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.harness.brokers import (
    MARIADB,
    REDIS,
    RabbitMq,
    mariadb,
    postgresql,
    postgresql_programs,
    redis_server,
)
from tests.harness.processes import ServerProcess

Require = Callable[[str], str]


@pytest.fixture(scope="module")
def rabbitmq(require_program: Require) -> Iterator[RabbitMq]:
    """A RabbitMQ."""
    for program in RabbitMq.PROGRAMS:
        require_program(program)
    with RabbitMq() as broker:
        yield broker


@pytest.fixture(scope="module")
def redis_port(require_program: Require) -> Iterator[int]:
    """The port of a Redis."""
    require_program(REDIS)
    with redis_server() as server:
        yield server.port


@pytest.fixture
def redis_to_stop(require_program: Require) -> Iterator[ServerProcess]:
    """A Redis that the test may stop."""
    require_program(REDIS)
    with redis_server() as server:
        yield server


@pytest.fixture(scope="module")
def postgresql_port(require_program: Require) -> Iterator[int]:
    """The port of a PostgreSQL."""
    for program in postgresql_programs():
        require_program(program)
    with postgresql() as server:
        yield server.port


@pytest.fixture
def postgresql_to_break(require_program: Require) -> Iterator[ServerProcess]:
    """A PostgreSQL that the test may break."""
    for program in postgresql_programs():
        require_program(program)
    with postgresql() as server:
        yield server


@pytest.fixture(scope="module")
def mariadb_port(require_program: Require) -> Iterator[int]:
    """The port of a MariaDB."""
    for program in MARIADB:
        require_program(program)
    with mariadb() as server:
        yield server.port
