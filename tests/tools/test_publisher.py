"""The publisher's demo on a real RabbitMQ behind a real nginx."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from example_apps import publisher_demo
from tests.harness.brokers import RabbitMq

pytestmark = pytest.mark.stacks


@pytest.mark.slow
@pytest.mark.full
def test_the_demo(require_program: Callable[[str], str]) -> None:
    for program in (*RabbitMq.PROGRAMS, "nginx"):
        require_program(program)
    tallies = publisher_demo.run(rounds=1)
    default, bare, wrapped = tallies

    # The control: each of them loses the order. It is an error where nobody hides it ...
    assert [tally.lost for tally in tallies] == [1, 1, 1]
    assert [tally.errors for tally in tallies] == [0, 1, 1]
    assert [tally.unlabelled for tally in tallies] == [1, 0, 0]
    # ... and where somebody does, the clients' tracebacks are like those of the order.
    assert default.loud > 0
    assert not default.events
    assert not bare.events

    assert wrapped.right, wrapped
    assert wrapped.hung_up == 8
    assert wrapped.events == {"client_departed": 5, "truncated_upload": 3, "upstream_reset": 1}
    assert wrapped.upstream == "pika, missed heartbeats"
