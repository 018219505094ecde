"""Applications that send their request's body on, as it comes: one function for each library."""

# Some of the client libraries are not typed for strict checkers.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import http.client
import importlib
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

__all__ = ["ASYNC_PROXIES", "PROXIES", "URL"]

URL: Final = "TEST_PROXIED"
"""The environment variable with the address that the bodies are sent on to."""
TIMEOUT: Final = 30.0


class _Body:
    """What somebody writes who knows the length: it has `read`, and no more."""

    def __init__(self, stream: Any, length: int) -> None:
        self._stream = stream
        self.len = length

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size if size >= 0 else self.len)
        self.len -= len(data)
        return data


def _requests(url: str, stream: Any, length: int) -> object:
    import requests

    return requests.post(url, data=stream, timeout=TIMEOUT).content


def _requests_with_length(url: str, stream: Any, length: int) -> object:
    import requests

    body: Any = _Body(stream, length)
    return requests.post(url, data=body, timeout=TIMEOUT).content


def _urllib3(url: str, stream: Any, length: int) -> object:
    import urllib3

    return urllib3.PoolManager(retries=False).request("POST", url, body=stream).data


def _httpx(url: str, stream: Any, length: int) -> object:
    import httpx

    def pieces() -> Iterator[bytes]:
        while piece := stream.read(65536):
            yield piece

    return httpx.post(url, content=pieces(), timeout=TIMEOUT, trust_env=False).content


def _http_client(url: str, stream: Any, length: int) -> object:
    connection = http.client.HTTPConnection(url.split("/")[2], timeout=TIMEOUT)
    try:
        connection.request("POST", "/", body=stream, headers={"Content-Length": str(length)})
        return connection.getresponse().read()
    finally:
        connection.close()


def _urllib(url: str, stream: Any, length: int) -> object:
    asked = urllib.request.Request(url, data=stream, headers={"Content-Length": str(length)})
    with urllib.request.urlopen(asked, timeout=TIMEOUT) as response:
        return response.read()


def _boto3(url: str, stream: Any, length: int) -> object:
    # Neither has types.
    boto3: Any = importlib.import_module("boto3")
    config: Any = importlib.import_module("botocore.config")
    storage = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="eu-west-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=config.Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )
    # s3transfer reads the stream in a thread of its own.
    return storage.upload_fileobj(stream, "bucket", "key")


PROXIES: Final[Mapping[str, Callable[[str, Any, int], object]]] = {
    "requests": _requests,
    "requests-length": _requests_with_length,
    "urllib3": _urllib3,
    "httpx": _httpx,
    "http.client": _http_client,
    "urllib": _urllib,
    "boto3": _boto3,
}
"""By library: sends a stream on to an address; the number is the stream's length."""


async def _httpx_async(url: str, pieces: AsyncIterator[bytes]) -> object:
    import httpx

    async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT) as client:
        return (await client.post(url, content=pieces)).content


async def _aiohttp(url: str, pieces: AsyncIterator[bytes]) -> object:
    import aiohttp

    async with aiohttp.ClientSession() as session, session.post(url, data=pieces) as response:
        return await response.read()


ASYNC_PROXIES: Final[Mapping[str, Callable[[str, AsyncIterator[bytes]], Awaitable[object]]]] = {
    "httpx": _httpx_async,
    "aiohttp": _aiohttp,
}
"""The same for what is awaited."""
