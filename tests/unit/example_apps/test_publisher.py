"""The publisher: what it answers, and its demo on a real RabbitMQ behind a real nginx."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any, Final
from wsgiref.util import setup_testing_defaults

import pytest

from cleanclose.wsgi import CleanCloseMiddleware
from example_apps import publisher, publisher_demo
from example_apps.publisher import PublisherSettings, make_app
from example_apps.publisher_demo import VARIANTS, Tally
from tests.harness.processes import StartError

pytestmark = pytest.mark.stacks

ORDER: Final = json.dumps({"item": "a book"}).encode()


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What has been published, to nobody."""
    orders: list[bytes] = []

    def publish(_: object, order: bytes) -> None:
        orders.append(order)

    monkeypatch.setattr(publisher.OrderQueue, "publish", publish)
    return orders


def ask(
    method: str, path: str, body: bytes = b"", settings: PublisherSettings | None = None
) -> tuple[str, bytes]:
    statuses: list[str] = []

    def start_response(status: str, *_: object) -> Callable[[bytes], object]:
        statuses.append(status)
        return lambda _: None

    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }
    setup_testing_defaults(environ)
    app = make_app(settings or PublisherSettings(report_seconds=0.01))
    result: Any = app(environ, start_response)
    try:
        answer = b"".join(result)
    finally:
        getattr(result, "close", lambda: None)()
    return statuses[0][:3], answer


def test_an_order_is_published_under_its_number(published: list[bytes]) -> None:
    status, answer = ask("POST", "/orders", ORDER)
    assert status == "201"
    assert [json.loads(order) for order in published] == [
        {"order": json.loads(answer)["order"], "item": "a book"}
    ]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", "400"),
        (b"no json", "400"),
        (b"[]", "400"),
        (b"{}", "400"),
        (b" " * (publisher.MAX_ORDER_BYTES + 1), "413"),
    ],
    ids=["nothing", "no-json", "no-object", "no-item", "too-large"],
)
def test_what_is_no_order(published: list[bytes], body: bytes, status: str) -> None:
    assert ask("POST", "/orders", body)[0] == status
    assert published == []


def test_the_report_and_the_rest() -> None:
    status, report = ask("GET", "/report")
    assert (status, report[:11]) == ("200", b"order,item\n")
    assert json.loads(ask("GET", "/healthz")[1]) == {"status": "ok"}
    assert json.loads(ask("GET", "/counters")[1])["cleanclose_outlet_errors_total"] == 0


def test_settings() -> None:
    assert PublisherSettings.from_environment({}) == PublisherSettings()
    assert PublisherSettings.from_environment(
        {
            "PUBLISHER_BROKER": "amqp://there",
            "PUBLISHER_REPORT_SECONDS": "2.5",
            "PUBLISHER_CATCHALL": "1",
            "CLEANCLOSE": "0",
        }
    ) == PublisherSettings(
        broker="amqp://there", report_seconds=2.5, catchall=True, cleanclose=False
    )


def test_one_line_wraps_it() -> None:
    wrapped, bare = (make_app(PublisherSettings(cleanclose=yes)) for yes in (True, False))
    assert isinstance(wrapped, CleanCloseMiddleware)
    assert type(wrapped.app) is type(bare)


def test_the_demo_prints_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tallies = [Tally(lost=7) for _ in VARIANTS]

    def run(*, rounds: int) -> list[Tally]:
        assert rounds == 1
        return tallies

    monkeypatch.setattr(publisher_demo, "run", run)
    assert publisher_demo.main(["--quick"]) == 1
    out = capsys.readouterr().out
    assert "catchall=False" in out
    assert out.count(" 7 ") == len(VARIANTS)


def test_the_demo_says_what_it_could_not_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*, rounds: int) -> list[Tally]:
        raise StartError("there is no nginx on this machine")

    monkeypatch.setattr(publisher_demo, "run", run)
    assert publisher_demo.main([]) == 1
    assert "there is no nginx" in capsys.readouterr().err
