"""Each example app, wrapped, on its real server: what the rules say is what the client gets."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cleanclose.doctor.clients import Abort, Outcome, Upload, body_digest, body_pieces, strict
from example_apps.demo import EXAMPLES, Example
from example_apps.staging import ServerProcess
from example_apps.uploads import (
    MIB,
    TEMPORARY_PREFIX,
    UploadService,
    UploadSettings,
    format_digest,
)
from tests.harness.waiting import until

LIMIT = MIB
SMALL = 100_000
LARGE = 16 * MIB

pytestmark = pytest.mark.timeout(90)


class Site:
    """A running example and what a client needs to talk to it."""

    def __init__(self, server: ServerProcess, settings: UploadSettings) -> None:
        self.server = server
        self.settings = settings

    def send(self, method: str, path: str, **fields: Any) -> Outcome:
        """Send one request with the strict client, and look at all that came back."""
        outcome = strict(
            Upload(
                port=self.server.port, method=method, path=path, listen=0.05, timeout=30, **fields
            )
        )
        assert outcome.transcript.clean, str(outcome)
        return outcome

    def upload(self, size: int, *, token: str | None = None, **fields: Any) -> Outcome:
        """Upload a generated body of this size."""
        token = token or self.token()
        headers = (("Authorization", f"Bearer {token}"), *fields.pop("headers", ()))
        return self.send("PUT", "/files", headers=headers, body_size=size, **fields)

    def token(self) -> str:
        """Ask the service for a token."""
        outcome = self.send("POST", "/tokens")
        assert outcome.status == 201, str(outcome)
        token: str = json_of(outcome)["token"]
        return token

    def counters(self) -> dict[str, int]:
        """Ask the service for its counters."""
        counters: dict[str, int] = json_of(self.send("GET", "/counters"))
        return counters

    def departures(self) -> int:
        """How many clients have left."""
        name = "cleanclose_departures_total"
        return sum(value for key, value in self.counters().items() if key.startswith(name))

    def digests(self) -> set[str]:
        """The names of the stored files."""
        return {path.name for path in self.settings.folder.iterdir() if len(path.name) == 64}

    def temporary_files(self) -> list[str]:
        """The names of uploads that have neither been stored nor removed."""
        return [path.name for path in self.settings.folder.glob(f"{TEMPORARY_PREFIX}*")]

    def wait_for(self, temporary_files: int) -> None:
        """Wait until there is this number of temporary files."""
        until(
            lambda: len(self.temporary_files()) == temporary_files,
            lambda: f"{self.temporary_files()}\n{self.log}",
        )

    @property
    def log(self) -> str:
        """What the server has written, for messages of failed assertions."""
        return self.server.log_text()


def json_of(outcome: Outcome) -> Any:
    assert outcome.response is not None, str(outcome)
    return json.loads(outcome.response.body)


def start(example: Example, folder: Path, *, wrapped: bool) -> Iterator[Site]:
    settings = UploadSettings(
        folder=folder, secret=b"a secret", max_bytes=LIMIT, cleanclose=wrapped
    )
    with example.server(settings) as server:
        yield Site(server, settings)


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda example: example.package)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    yield from start(request.param, tmp_path_factory.mktemp("files"), wrapped=True)


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda example: example.package)
def bare_site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    yield from start(request.param, tmp_path_factory.mktemp("files"), wrapped=False)


def test_health(site: Site) -> None:
    assert json_of(site.send("GET", "/healthz")) == {"status": "ok"}


@pytest.mark.parametrize(("chunked", "size"), [(False, SMALL), (True, SMALL + 1), (False, LIMIT)])
def test_upload_and_download(site: Site, chunked: bool, size: int) -> None:
    digest = body_digest(size)
    announced = (("Repr-Digest", format_digest(digest)),)
    stored = site.upload(size, chunked=chunked, headers=announced)
    assert stored.status == 201, f"{stored}\n{site.log}"
    assert json_of(stored) == {"digest": digest, "size": size}
    assert stored.response is not None
    assert stored.response.header("location") == f"/files/{digest}"

    served = site.send("GET", f"/files/{digest}")
    assert served.status == 200
    assert served.response is not None
    assert served.response.body == b"".join(body_pieces(size))
    assert served.response.header("repr-digest") == format_digest(digest)
    assert served.response.header("content-type") == "application/octet-stream"
    assert site.temporary_files() == []


def test_post_is_the_same_as_put(site: Site) -> None:
    headers = (("Authorization", f"Bearer {site.token()}"),)
    assert site.send("POST", "/files", headers=headers, body_size=11).status == 201


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_401_without_a_token(site: Site, size: int) -> None:
    refused = site.send("PUT", "/files", body_size=size)
    assert refused.status == 401, str(refused)
    assert refused.response is not None
    assert refused.response.header("www-authenticate") == "Bearer"
    assert "token" in json_of(refused)["detail"]


@pytest.mark.parametrize("chunked", [False, True])
def test_401_for_an_expired_token(site: Site, chunked: bool) -> None:
    past = UploadService(site.settings, clock=lambda: time.time() - 3600)
    refused = site.upload(LARGE, token=past.issue_token().value, chunked=chunked)
    assert refused.status == 401, str(refused)
    assert "expired" in json_of(refused)["detail"]


def test_409_for_a_digest_that_is_stored(site: Site) -> None:
    digest = body_digest(50_000)
    announced = (("Content-Digest", format_digest(digest)),)
    assert site.upload(50_000, headers=announced).status == 201
    again = site.upload(50_000, headers=announced)
    assert again.status == 409, str(again)
    assert again.response is not None
    assert again.response.header("location") == f"/files/{digest}"


@pytest.mark.parametrize("connection_close", [False, True])
def test_413_from_the_length(site: Site, connection_close: bool) -> None:
    refused = site.upload(LARGE, connection_close=connection_close)
    assert refused.status == 413, str(refused)
    assert str(LIMIT) in json_of(refused)["detail"]


def test_413_for_chunks_that_pass_the_limit(site: Site) -> None:
    refused = site.upload(LARGE, chunked=True)
    assert refused.status == 413, str(refused)
    assert str(LIMIT) in json_of(refused)["detail"]
    site.wait_for(temporary_files=0)


def test_422_for_the_wrong_content(site: Site) -> None:
    announced = (("Repr-Digest", format_digest("0" * 64)),)
    refused = site.upload(SMALL + 2, headers=announced)
    assert refused.status == 422, str(refused)
    assert body_digest(SMALL + 2) not in site.digests()
    assert site.temporary_files() == []


def test_400_for_a_malformed_digest(site: Site) -> None:
    assert site.upload(SMALL, headers=(("Repr-Digest", "sha-256=abc"),)).status == 400


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_leaves_half_way(site: Site, chunked: bool, how: Abort) -> None:
    before = site.digests()
    departed = site.departures()
    site.upload(900_000, chunked=chunked, abort_after=500_000, abort_how=how)
    # Before, the server may still have been about to begin.
    until(lambda: site.departures() > departed, site.counters)
    site.wait_for(temporary_files=0)
    assert site.digests() == before
    assert site.send("GET", "/healthz").status == 200


@pytest.mark.parametrize("path", ["/files/" + "0" * 64, "/files/..", "/files/%2e%2e%2fsecret"])
def test_404(site: Site, path: str) -> None:
    assert site.send("GET", path).status == 404


def test_the_counters_count(site: Site) -> None:
    name = 'cleanclose_early_responses_total{outcome="delivered"}'
    before = site.counters()[name]
    assert site.upload(LARGE).status == 413
    until(lambda: site.counters()[name] != before)
    assert site.counters()[name] == before + 1


def test_bare_it_is_the_same_service(bare_site: Site) -> None:
    assert bare_site.upload(SMALL).status == 201
    assert bare_site.send("PUT", "/files").status == 401
    assert not any(bare_site.counters().values())
