"""The rules of the example upload service, without any framework."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from example_apps import uploads
from example_apps.uploads import Refusal, Token, UploadService, UploadSettings

BODY = b"one small file"
DIGEST = hashlib.sha256(BODY).hexdigest()
START = 1_000_000.0


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(tmp_path: Path, clock: Clock) -> UploadService:
    settings = UploadSettings(
        folder=tmp_path / "files", secret=b"a secret", max_bytes=100, token_seconds=60
    )
    return UploadService(settings, clock)


def names(service: UploadService) -> list[str]:
    return sorted(path.name for path in service.settings.folder.iterdir())


def authorized(service: UploadService, **fields: str) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {service.issue_token().value}"}
    return headers | {name.replace("_", "-"): value for name, value in fields.items()}


def store(service: UploadService, body: bytes = BODY, **fields: str) -> uploads.StoredFile:
    with service.begin(authorized(service, **fields)) as upload:
        upload.write(body[:5])
        upload.write(body[5:])
        return upload.finish()


def refusal_of(service: UploadService, headers: dict[str, str]) -> Refusal:
    with pytest.raises(Refusal) as caught, service.begin(headers):
        pass
    return caught.value


class TestTokens:
    def test_a_fresh_token_admits(self, service: UploadService) -> None:
        with service.begin(authorized(service)):
            pass

    def test_it_says_when_it_expires(self, service: UploadService) -> None:
        assert service.issue_token().expires == START + 60

    def test_two_tokens_differ(self, service: UploadService) -> None:
        assert service.issue_token() != service.issue_token()

    def test_it_admits_up_to_its_last_moment(self, service: UploadService, clock: Clock) -> None:
        headers = authorized(service)
        clock.now = START + 59.9
        with service.begin(headers):
            pass

    def test_an_expired_one_is_refused(self, service: UploadService, clock: Clock) -> None:
        headers = authorized(service)
        clock.now = START + 60
        refusal = refusal_of(service, headers)
        assert refusal.status == HTTPStatus.UNAUTHORIZED
        assert "expired" in refusal.detail
        assert refusal.headers == {"WWW-Authenticate": "Bearer"}

    def test_an_upload_under_way_may_outlive_its_token(
        self, service: UploadService, clock: Clock
    ) -> None:
        with service.begin(authorized(service)) as upload:
            clock.now = START + 3600
            upload.write(BODY)
            assert upload.finish().digest == DIGEST

    def test_another_service_does_not_know_it(
        self, service: UploadService, clock: Clock, tmp_path: Path
    ) -> None:
        other = UploadService(UploadSettings(folder=tmp_path, secret=b"another"), clock)
        assert refusal_of(other, authorized(service)).status == HTTPStatus.UNAUTHORIZED

    def test_a_later_expiry_breaks_the_signature(self, service: UploadService) -> None:
        token = service.issue_token().value
        expires, rest = token.split(".", 1)
        forged = {"Authorization": f"Bearer {int(expires) + 3600}.{rest}"}
        assert refusal_of(service, forged).status == HTTPStatus.UNAUTHORIZED

    @pytest.mark.parametrize(
        "field",
        [
            None,
            "",
            "Bearer",
            "Bearer ",
            "Bearer nonsense",
            "Bearer ..",
            "Bearer 99999999999..",
            "Bearer schl\u00fcssel.\u00fc.\u00fc",
            "Bearer \udcff.\udcff.\udcff",
            "Basic {token}",
        ],
    )
    def test_anything_else_is_refused(self, service: UploadService, field: str | None) -> None:
        headers: dict[str, str] = {}
        if field is not None:
            headers["Authorization"] = field.format(token=service.issue_token().value)
        assert refusal_of(service, headers).status == HTTPStatus.UNAUTHORIZED

    def test_the_scheme_has_no_case(self, service: UploadService) -> None:
        with service.begin({"Authorization": f"bearer {service.issue_token().value}"}):
            pass

    def test_as_json(self) -> None:
        assert Token(value="v", expires=7).as_json() == {"token": "v", "expires": 7}


class TestRefusalsFromTheHeaders:
    def test_over_the_limit(self, service: UploadService) -> None:
        refusal = refusal_of(service, authorized(service, Content_Length="101"))
        assert refusal.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        assert names(service) == []

    def test_at_the_limit(self, service: UploadService) -> None:
        with service.begin(authorized(service, Content_Length="100")):
            pass

    @pytest.mark.parametrize("length", ["-1", "+5", "5 5", "1_0", "\u0665", "", "9" * 30])
    def test_a_malformed_length(self, service: UploadService, length: str) -> None:
        refusal = refusal_of(service, authorized(service, Content_Length=length))
        assert refusal.status == HTTPStatus.BAD_REQUEST

    def test_a_bad_token_is_told_before_anything_else(self, service: UploadService) -> None:
        assert refusal_of(service, {"Content-Length": "101"}).status == HTTPStatus.UNAUTHORIZED

    @pytest.mark.parametrize("name", ["Repr_Digest", "Content_Digest"])
    def test_already_stored(self, service: UploadService, name: str) -> None:
        store(service)
        headers = authorized(service, **{name: uploads.format_digest(DIGEST)})
        refusal = refusal_of(service, headers)
        assert refusal.status == HTTPStatus.CONFLICT
        assert refusal.headers == {"Location": f"/files/{DIGEST}"}
        assert names(service) == [DIGEST]


class TestStreaming:
    def test_an_accepted_upload(self, service: UploadService) -> None:
        stored = store(
            service, Content_Length=str(len(BODY)), Repr_Digest=uploads.format_digest(DIGEST)
        )
        assert stored.digest == DIGEST
        assert stored.size == len(BODY)
        assert stored.location == f"/files/{DIGEST}"
        assert stored.path.read_bytes() == BODY
        assert names(service) == [DIGEST]

    def test_nothing_is_visible_before_the_end(self, service: UploadService) -> None:
        with service.begin(authorized(service)) as upload:
            upload.write(BODY)
            assert [name.startswith(uploads.TEMPORARY_PREFIX) for name in names(service)] == [True]
            with pytest.raises(Refusal):
                service.find(DIGEST)

    def test_an_empty_file(self, service: UploadService) -> None:
        assert store(service, b"").size == 0

    def test_a_body_without_a_length_is_counted(self, service: UploadService) -> None:
        with service.begin(authorized(service)) as upload:
            upload.write(b"x" * 100)
            with pytest.raises(Refusal) as caught:
                upload.write(b"x")
        assert caught.value.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        assert names(service) == []

    def test_the_wrong_content(self, service: UploadService) -> None:
        with pytest.raises(Refusal) as caught:
            store(service, b"something else", Repr_Digest=uploads.format_digest(DIGEST))
        assert caught.value.status == HTTPStatus.UNPROCESSABLE_ENTITY
        assert names(service) == []

    def test_a_body_cut_short(self, service: UploadService) -> None:
        with pytest.raises(Refusal) as caught:
            store(service, BODY, Content_Length=str(len(BODY) + 1))
        assert caught.value.status == HTTPStatus.BAD_REQUEST
        assert names(service) == []

    def test_stored_already_and_not_announced(self, service: UploadService) -> None:
        store(service)
        with pytest.raises(Refusal) as caught:
            store(service)
        assert caught.value.status == HTTPStatus.CONFLICT
        assert names(service) == [DIGEST]

    def test_a_client_that_leaves(self, service: UploadService) -> None:
        def body() -> Iterator[bytes]:
            yield BODY
            raise ConnectionResetError

        def receive() -> None:
            with service.begin(authorized(service)) as upload:
                for chunk in body():
                    upload.write(chunk)

        with pytest.raises(ConnectionResetError):
            receive()
        assert names(service) == []

    def test_discarding_twice_or_after_the_end(self, service: UploadService) -> None:
        upload = service.begin(authorized(service))
        upload.write(BODY)
        upload.finish()
        upload.discard()
        upload.discard()
        assert names(service) == [DIGEST]

    def test_the_same_file_from_many_at_once(self, service: UploadService) -> None:
        barrier = threading.Barrier(4)
        results: list[str] = []

        def upload_one() -> None:
            barrier.wait(5)
            try:
                results.append(store(service).digest)
            except Refusal as refusal:
                results.append(str(int(refusal.status)))

        threads = [threading.Thread(target=upload_one) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert set(results) <= {DIGEST, "409"}
        assert DIGEST in results
        assert names(service) == [DIGEST]


class TestFind:
    def test_it_describes_the_file(self, service: UploadService) -> None:
        store(service)
        found = service.find(DIGEST)
        assert found.size == len(BODY)
        assert found.headers["Repr-Digest"] == uploads.format_digest(DIGEST)

    @pytest.mark.parametrize(
        "digest", ["0" * 64, "", "..", "../files", DIGEST.upper(), DIGEST + "\n", DIGEST[:-1]]
    )
    def test_everything_else_is_not_found(self, service: UploadService, digest: str) -> None:
        store(service)
        with pytest.raises(Refusal) as caught:
            service.find(digest)
        assert caught.value.status == HTTPStatus.NOT_FOUND


class TestDigestFields:
    def test_round_trip(self) -> None:
        assert uploads.parse_digest(uploads.format_digest(DIGEST)) == DIGEST

    def test_the_example_of_rfc_9530(self) -> None:
        # Appendix D: the JSON text {"hello": "world"} and a line feed.
        digest = hashlib.sha256(b'{"hello": "world"}\n').hexdigest()
        field = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
        assert uploads.parse_digest(field) == digest

    @pytest.mark.parametrize(
        "field", [None, "", "sha-512=:AAAA:", "sha-256-x=:AAAA:", "unixsum=30637"]
    )
    def test_fields_without_a_sha_256_are_ignored(self, field: str | None) -> None:
        assert uploads.parse_digest(field) is None

    @pytest.mark.parametrize("template", ["sha-512=:AAAA:, {}", "{},sha-512=:AAAA:", "{};q=1"])
    def test_it_is_found_among_others(self, template: str) -> None:
        field = template.format(uploads.format_digest(DIGEST))
        assert uploads.parse_digest(field) == DIGEST

    @pytest.mark.parametrize(
        "value",
        [
            "",
            ":",
            "::",
            DIGEST,
            f":{DIGEST}:",
            ":AAAA:",
            ":@@@@:",
            ":" + base64.b64encode(bytes(31)).decode() + ":",
            ":" + base64.b64encode(bytes(33)).decode() + ":",
            ":\u00fc:",
        ],
    )
    def test_malformed_ones_are_refused(self, value: str) -> None:
        with pytest.raises(Refusal) as caught:
            uploads.parse_digest(f"sha-256={value}")
        assert caught.value.status == HTTPStatus.BAD_REQUEST


class TestSettings:
    @pytest.fixture
    def temporary(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        return tmp_path

    def test_the_defaults(self, temporary: Path) -> None:
        settings = UploadSettings.from_environment({})
        assert settings.folder.parent == temporary
        assert settings.folder.stat().st_mode & 0o077 == 0
        assert len(settings.secret) == 32
        assert settings.max_bytes == 8 * 1024 * 1024
        assert settings.token_seconds == 60
        assert settings.cleanclose

    def test_the_default_secret_is_new_each_time(self, temporary: Path) -> None:
        first, second = (UploadSettings.from_environment({}) for _ in range(2))
        assert first.secret != second.secret
        assert first.folder != second.folder

    def test_from_the_environment(self, tmp_path: Path) -> None:
        settings = UploadSettings.from_environment(
            {
                "UPLOADS_FOLDER": str(tmp_path),
                "UPLOADS_SECRET": "s",
                "UPLOADS_MAX_BYTES": "5",
                "UPLOADS_TOKEN_SECONDS": "2.5",
                "CLEANCLOSE": "0",
            }
        )
        assert settings == UploadSettings(
            folder=tmp_path, secret=b"s", max_bytes=5, token_seconds=2.5, cleanclose=False
        )

    def test_nonsense_is_told_at_the_start(self) -> None:
        with pytest.raises(ValueError, match="many"):
            UploadSettings.from_environment({"UPLOADS_FOLDER": "x", "UPLOADS_MAX_BYTES": "many"})
