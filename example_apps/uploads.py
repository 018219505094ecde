"""The rules of the upload service that the example apps share; no framework in here.

The service hands out short-lived upload tokens, streams each upload to disk with its SHA-256
computed on the way, and refuses from the request's headers alone whatever it can: a bad token
(401), a digest that is already stored (409), a body over the limit (413). Those refusals are
what the middleware is for: each is a complete response while the upload is still running.

The apps around it (``uploads_fastapi``, ``uploads_flask``, ``uploads_tornado``) only translate:
headers in, chunks in, status and JSON out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

Clock = Callable[[], float]
"""Seconds since the epoch: :func:`time.time`, except in tests."""

MIB: Final = 1024 * 1024
CHUNK_BYTES: Final = 64 * 1024
DEFAULT_MAX_BYTES: Final = 8 * MIB
DEFAULT_TOKEN_SECONDS: Final = 60.0
TEMPORARY_PREFIX: Final = ".incoming-"

_DIGEST = re.compile(r"[0-9a-f]{64}")
_DIGEST_MEMBER = re.compile(r"(?:^|,)\s*sha-256=([^,;]*)")
_LENGTH = re.compile(r"[0-9]{1,18}")


class Headers(Protocol):
    """What the rules need of a framework's headers: a case-insensitive ``get``."""

    def get(self, key: str, /) -> str | None:
        """Return the value of a field, or None."""
        ...


class Refusal(Exception):
    """The service says no: a status, a sentence for the client, and perhaps headers."""

    def __init__(
        self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})

    def as_json(self) -> dict[str, str]:
        """Return the body of the response."""
        return {"detail": self.detail}


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadSettings:
    """Where uploads go, how large they may be, and how tokens are signed."""

    folder: Path
    """Holds the stored files, each named by its digest, and the temporary ones."""
    secret: bytes
    """Signs the tokens. Processes that serve the same clients must share it."""
    max_bytes: int = DEFAULT_MAX_BYTES
    """The largest body that is accepted."""
    token_seconds: float = DEFAULT_TOKEN_SECONDS
    """How long a token can start an upload; one that is under way may outlive it."""
    cleanclose: bool = True
    """Whether the app is wrapped in the cleanclose middleware."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the settings from environment variables.

        ``UPLOADS_FOLDER`` (default: a new temporary folder), ``UPLOADS_SECRET`` (random),
        ``UPLOADS_MAX_BYTES`` (8 MiB), ``UPLOADS_TOKEN_SECONDS`` (60), ``CLEANCLOSE`` (1; 0 for
        the bare app). The defaults of folder and secret suit one process: set both for several.
        """
        return cls(
            folder=Path(environ.get("UPLOADS_FOLDER") or tempfile.mkdtemp(prefix="uploads-")),
            secret=environ.get("UPLOADS_SECRET", "").encode() or secrets.token_bytes(32),
            max_bytes=int(environ.get("UPLOADS_MAX_BYTES", DEFAULT_MAX_BYTES)),
            token_seconds=float(environ.get("UPLOADS_TOKEN_SECONDS", DEFAULT_TOKEN_SECONDS)),
            cleanclose=environ.get("CLEANCLOSE", "1") != "0",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """Permission to start an upload, until ``expires`` (seconds since the epoch)."""

    value: str
    expires: int

    def as_json(self) -> dict[str, str | int]:
        """Return the body of the response."""
        return {"token": self.value, "expires": self.expires}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A complete upload under its final name."""

    digest: str
    size: int
    path: Path

    @property
    def headers(self) -> dict[str, str]:
        """Headers for the response that serves the file."""
        return {
            "Content-Type": "application/octet-stream",
            "Repr-Digest": format_digest(self.digest),
        }

    @property
    def location(self) -> str:
        """The path of the URL that serves the file."""
        return f"/files/{self.digest}"

    def as_json(self) -> dict[str, str | int]:
        """Return the body of the response that confirms the upload."""
        return {"digest": self.digest, "size": self.size}


class Upload:
    """One upload on its way to disk. Use it as a context manager.

    Leaving the context removes the temporary file unless :meth:`finish` has stored it, so a
    client that goes away half-way leaves nothing behind, whatever exception says so.
    """

    def __init__(
        self, settings: UploadSettings, *, declared: int | None, expected: str | None
    ) -> None:
        self._settings = settings
        self._declared = declared
        self._expected = expected
        self._received = 0
        self._hash = hashlib.sha256()
        # The same folder as the final name: a rename is atomic only within one file system.
        descriptor, name = tempfile.mkstemp(dir=settings.folder, prefix=TEMPORARY_PREFIX)
        self._file = os.fdopen(descriptor, "wb")
        self._path = Path(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.discard()

    def write(self, chunk: bytes) -> None:
        """Take the next piece of the body; refuse (413) when it passes the limit."""
        self._received += len(chunk)
        if self._received > self._settings.max_bytes:
            raise _too_large(self._settings.max_bytes)
        self._hash.update(chunk)
        self._file.write(chunk)

    def finish(self) -> StoredFile:
        """Check the whole body and give the file its final name."""
        # Some WSGI servers hand a body that was cut short to the application as if it were
        # whole; Content-Length is then the only witness.
        if self._declared is not None and self._received != self._declared:
            raise Refusal(
                HTTPStatus.BAD_REQUEST,
                f"the body ended after {self._received} of {self._declared} bytes",
            )
        digest = self._hash.hexdigest()
        if self._expected is not None and digest != self._expected:
            raise Refusal(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"the body's SHA-256 is {digest}, not the announced {self._expected}",
            )
        target = self._settings.folder / digest
        if target.exists():
            raise _already_stored(digest)
        self._file.flush()
        # Without it a crash can leave the final name on an empty file.
        os.fsync(self._file.fileno())
        self._file.close()
        # Two equal uploads may both come this far. The second rename replaces the file by one
        # with the same content, so what each client reads is true.
        self._path.replace(target)
        return StoredFile(digest=digest, size=self._received, path=target)

    def discard(self) -> None:
        """Remove the temporary file; without effect after :meth:`finish` or a second time."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class UploadService:
    """Issues tokens, admits or refuses uploads, and finds stored files."""

    def __init__(self, settings: UploadSettings, clock: Clock = time.time) -> None:
        self.settings = settings
        self._clock = clock
        settings.folder.mkdir(parents=True, exist_ok=True)

    def issue_token(self) -> Token:
        """Issue a token. Here anybody may ask; a real service puts its own login in front."""
        expires = int(self._clock() + self.settings.token_seconds)
        claims = f"{expires}.{secrets.token_urlsafe(9)}"
        return Token(value=f"{claims}.{self._signature(claims)}", expires=expires)

    def begin(self, headers: Headers) -> Upload:
        """Admit an upload, or refuse it before a byte of its body has been read."""
        self._check_token(headers.get("Authorization"))
        declared = _declared_length(headers.get("Content-Length"))
        if declared is not None and declared > self.settings.max_bytes:
            raise _too_large(self.settings.max_bytes)
        expected = parse_digest(headers.get("Repr-Digest") or headers.get("Content-Digest"))
        if expected is not None and (self.settings.folder / expected).exists():
            raise _already_stored(expected)
        return Upload(self.settings, declared=declared, expected=expected)

    def find(self, digest: str) -> StoredFile:
        """Find a stored file by its digest (64 hexadecimal digits), or refuse (404)."""
        # The pattern also keeps path separators out of the file name.
        if _DIGEST.fullmatch(digest):
            path = self.settings.folder / digest
            if path.is_file():
                return StoredFile(digest=digest, size=path.stat().st_size, path=path)
        raise Refusal(HTTPStatus.NOT_FOUND, "no such file")

    def _check_token(self, authorization: str | None) -> None:
        scheme, _, value = (authorization or "").partition(" ")
        claims, _, signature = value.strip().rpartition(".")
        # Compared as bytes: compare_digest rejects non-ASCII strings, and clients send any.
        if scheme.lower() != "bearer" or not hmac.compare_digest(
            signature.encode(errors="replace"), self._signature(claims).encode()
        ):
            raise _unauthorized("a valid upload token is required; ask POST /tokens for one")
        if int(claims.partition(".")[0]) <= self._clock():
            raise _unauthorized("the upload token has expired; ask POST /tokens for a new one")

    def _signature(self, claims: str) -> str:
        mac = hmac.digest(
            self.settings.secret, b"upload-token:" + claims.encode(errors="replace"), "sha256"
        )
        return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def log_to_stderr() -> None:
    """Write every library's records to standard error, unless logging is configured already."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


def format_digest(digest: str) -> str:
    """Write a hexadecimal SHA-256 as the value of a digest field (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(digest)).decode()}:"


def parse_digest(field: str | None) -> str | None:
    """Read the SHA-256 in a digest field (RFC 9530) as hexadecimal digits.

    A field without one says nothing that this service can check and is ignored, as the RFC
    asks; a malformed one is refused (400).
    """
    member = _DIGEST_MEMBER.search(field or "")
    if member is None:
        return None
    value = member.group(1).strip()
    try:
        if not (len(value) > 1 and value.startswith(":") and value.endswith(":")):
            raise ValueError(value)
        raw = base64.b64decode(value[1:-1], validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if len(raw) != hashlib.sha256().digest_size:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the sha-256 in the digest field is malformed")
    return raw.hex()


def _declared_length(field: str | None) -> int | None:
    if field is None:
        return None
    if not _LENGTH.fullmatch(field):
        raise Refusal(HTTPStatus.BAD_REQUEST, "the Content-Length is malformed")
    return int(field)


def _too_large(limit: int) -> Refusal:
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"an upload may have at most {limit} bytes")


def _already_stored(digest: str) -> Refusal:
    return Refusal(
        HTTPStatus.CONFLICT, "this file is already stored", {"Location": f"/files/{digest}"}
    )


def _unauthorized(detail: str) -> Refusal:
    return Refusal(HTTPStatus.UNAUTHORIZED, detail, {"WWW-Authenticate": "Bearer"})
