"""The clients that can be had from Python, as a process: one job a line in, one answer out.

Sockets are watched: a library that reads its answer after a failed send hides the reset, and the
matrix shows it all the same. For that every error which leaves a method of :class:`socket.socket`
is written down before the library gets it. Nothing else of the libraries is changed.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import hashlib
import http.client
import importlib
import importlib.metadata
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

from cleanclose.doctor.clients import Outcome, Upload, body_pieces, reader, strict
from cleanclose.doctor.wire import Response

Job = dict[str, Any]
Answer = dict[str, Any]

_METHODS: Final = ("connect", "recv", "recv_into", "send", "sendall", "sendmsg")
_LOST: Final = (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)


class Watch:
    """What happened on the sockets of this process since it was last cleared."""

    def __init__(self) -> None:
        self.connections = 0
        self.resets: list[str] = []

    def clear(self) -> None:
        """Forget."""
        self.connections = 0
        self.resets = []

    def install(self) -> None:
        """Stand in front of the methods of every socket."""
        # What goes through TLS comes by none of the plain socket's methods but connect.
        over_tls = [(ssl.SSLSocket, name) for name in _METHODS if name in vars(ssl.SSLSocket)]
        for owner, name in [(socket.socket, name) for name in _METHODS] + over_tls:
            if owner is socket.socket or name not in ("connect", "sendmsg"):
                setattr(owner, name, self._watched(owner, name))

    def _watched(self, owner: type, name: str) -> Callable[..., Any]:
        original = getattr(owner, name)

        @functools.wraps(original)
        def method(*arguments: Any, **options: Any) -> Any:
            if name == "connect":
                self.connections += 1
            try:
                return original(*arguments, **options)
            except OSError as error:
                if error.errno in _LOST:
                    self.resets.append(f"{name} {errno.errorcode[error.errno]}")
                raise

        return method


WATCH: Final = Watch()
AUTHORITY: Final = os.environ.get("MATRIX_AUTHORITY", "")
"""The file with whom a client has to trust."""


def pieces(job: Job) -> Iterator[bytes]:
    """The body, with the pauses of a slow link."""
    for number, piece in enumerate(body_pieces(job["size"], job["piece"])):
        if number and job["pause"]:
            time.sleep(job["pause"])
        yield bytes(piece)


async def pieces_later(job: Job) -> AsyncIterator[bytes]:
    """The same for asyncio."""
    for number, piece in enumerate(body_pieces(job["size"], job["piece"])):
        if number and job["pause"]:
            await asyncio.sleep(job["pause"])
        yield bytes(piece)


class File:
    """The body as a file whose length is known, as most uploads are."""

    def __init__(self, job: Job) -> None:
        self._pieces = pieces(job)
        self._length: int = job["size"]
        self._rest = b""

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(64 * 1024):
            yield piece

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes; everything if it is negative."""
        parts = [self._rest]
        length = len(self._rest)
        while size < 0 or length < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            parts.append(piece)
            length += len(piece)
        whole = b"".join(parts)
        cut = len(whole) if size < 0 else size
        self._rest = whole[cut:]
        return whole[:cut]


def headers_of(job: Job) -> dict[str, str]:
    """The headers that the case asks for, as application code would set them."""
    headers = {"Transfer-Encoding": "chunked"} if job["chunked"] else {}
    if not job["chunked"]:
        headers["Content-Length"] = str(job["size"])
    if job["close"]:
        headers["Connection"] = "close"
    if job["expect"]:
        headers["Expect"] = "100-continue"
    return headers


def told(status: int, body: bytes) -> Answer:
    """What came of one request."""
    return {"status": status, "length": len(body), "digest": hashlib.sha256(body).hexdigest()}


def failed(error: BaseException) -> Answer:
    """What came instead."""
    names = [type(error).__name__]
    text = str(error)
    return {"error": f"{names[0]}: {text}"[:160] if text else names[0]}


def run_pair(first: Callable[[], Answer], second: Callable[[], Answer]) -> Answer:
    """The upload, and a GET behind it if it had an answer."""
    WATCH.clear()
    try:
        answer: Answer = {"first": first()}
    except Exception as error:  # noqa: BLE001  # whatever a client raises is its answer
        return {"first": failed(error), "resets": WATCH.resets}
    answer["resets"] = list(WATCH.resets)
    before = WATCH.connections
    try:
        answer["next"] = second()
    except Exception as error:  # noqa: BLE001
        answer["next"] = failed(error)
    answer["reused"] = WATCH.connections == before
    return answer


def use_http_client(job: Job) -> Answer:
    """``http.client`` as ordinary code uses it: a failed send is a loss."""
    connection: http.client.HTTPConnection
    if job["tls"]:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", job["port"], timeout=job["timeout"], context=trusting()
        )
    else:
        connection = http.client.HTTPConnection("127.0.0.1", job["port"], timeout=job["timeout"])

    def ask(method: str, path: str, **options: Any) -> Answer:
        connection.request(method, path, **options)
        response = connection.getresponse()
        return told(response.status, response.read())

    try:
        return run_pair(
            lambda: ask(
                "POST",
                job["path"],
                body=pieces(job),
                headers=headers_of(job),
                encode_chunked=job["chunked"],
            ),
            lambda: ask("GET", job["next"]),
        )
    finally:
        connection.close()


def use_urllib(job: Job) -> Answer:
    """``urllib.request``, which closes after each response."""
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusting())
    )

    def ask(request: urllib.request.Request | str) -> Answer:
        try:
            with opener.open(request, timeout=job["timeout"]) as response:
                return told(response.status, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return told(error.code, error.read())

    upload = urllib.request.Request(
        url(job, "path"), data=pieces(job), headers=headers_of(job), method="POST"
    )
    return run_pair(lambda: ask(upload), lambda: ask(url(job, "next")))


def use_requests(job: Job) -> Answer:
    """``requests``, with a session."""
    requests: Any = importlib.import_module("requests")
    with requests.Session() as session:
        session.trust_env = False
        session.verify = AUTHORITY

        def ask(method: str, path: str, **options: Any) -> Answer:
            response = session.request(method, path, timeout=job["timeout"], **options)
            return told(response.status_code, response.content)

        headers = headers_of(job)
        # It makes them itself, from what it can find out about the body.
        headers.pop("Content-Length", None)
        headers.pop("Transfer-Encoding", None)
        return run_pair(
            lambda: ask(
                "POST",
                url(job, "path"),
                data=pieces(job) if job["chunked"] else File(job),
                headers=headers,
            ),
            lambda: ask("GET", url(job, "next")),
        )


def use_httpx(job: Job) -> Answer:
    """``httpx``, with a client."""
    httpx: Any = importlib.import_module("httpx")
    verify = trusting() if job["tls"] else False
    with httpx.Client(timeout=job["timeout"], trust_env=False, verify=verify) as client:

        def ask(method: str, path: str, **options: Any) -> Answer:
            response = client.request(method, path, **options)
            return told(response.status_code, response.content)

        return run_pair(
            lambda: ask("POST", url(job, "path"), content=pieces(job), headers=headers_of(job)),
            lambda: ask("GET", url(job, "next")),
        )


def use_aiohttp(job: Job) -> Answer:
    """``aiohttp``, with a session."""
    aiohttp: Any = importlib.import_module("aiohttp")
    headers = headers_of(job)
    # It sets the first two by itself.
    for name in ("Expect", "Transfer-Encoding"):
        headers.pop(name, None)

    # One loop for both requests: the session belongs to it.
    with asyncio.Runner() as runner:

        async def open_session() -> Any:
            limit = aiohttp.ClientTimeout(total=job["timeout"])
            connector = aiohttp.TCPConnector(ssl=trusting())
            return aiohttp.ClientSession(timeout=limit, connector=connector)

        async def ask(method: str, path: str, **options: Any) -> Answer:
            async with session.request(method, path, **options) as response:
                return told(response.status, await response.read())

        session = runner.run(open_session())
        upload = {"data": pieces_later(job), "headers": headers, "expect100": bool(job["expect"])}
        try:
            return run_pair(
                lambda: runner.run(ask("POST", url(job, "path"), **upload)),
                lambda: runner.run(ask("GET", url(job, "next"))),
            )
        finally:
            runner.run(session.close())


def use_raw(send: Callable[[Upload], Outcome], job: Job) -> Answer:
    """The project's own raw clients."""
    WATCH.clear()
    outcome = send(
        Upload(
            port=job["port"],
            path=job["path"],
            body_size=job["size"],
            chunked=job["chunked"],
            connection_close=job["close"],
            expect=job["expect"],
            pause=job["pause"],
            piece_size=job["piece"],
            timeout=job["timeout"],
            follow_up="after",
            follow_up_path=job["next"],
            listen=0.05,
        )
    )
    response = outcome.response
    answer: Answer = {"first": _told_by(response, outcome), "resets": WATCH.resets}
    if not outcome.transcript.clean:
        answer["faults"] = [str(fault) for fault in outcome.transcript.faults]
    if outcome.followed_up:
        answer["next"] = _told_by(outcome.second, outcome)
        answer["reused"] = True
    elif outcome.closed_by == "timeout":
        answer["faults"] = [*answer.get("faults", ()), "the connection was not closed"]
    return answer


def _told_by(response: Response | None, outcome: Outcome) -> Answer:
    if response is None:
        return {"error": str(outcome)}
    return told(response.status, response.body)


class Curl:
    """The program. Its two requests are one command, so that it can use a connection again."""

    def __init__(self) -> None:
        self.folder = Path(os.environ["MATRIX_FOLDER"])
        self.outputs = [self.folder / f"{name}-{os.getpid()}" for name in ("first", "next")]

    def _body(self, job: Job) -> Path:
        body = self.folder / f"body-{job['size']}"
        if not body.exists():
            # Several of these processes share the file: it is there when it is whole.
            mine = body.with_suffix(f".{os.getpid()}")
            with mine.open("wb") as file:
                file.writelines(body_pieces(job["size"]))
            mine.replace(body)
        return body

    def use(self, job: Job) -> Answer:
        """Run it once."""
        outputs = self.outputs
        for output in outputs:
            output.unlink(missing_ok=True)
        write_out = ["--write-out", "%{json}\\n", "--max-time", str(job["timeout"])]
        command = ["curl", "--verbose", "--silent", "--http1.1", "--noproxy", "*", *write_out]
        command += ["--cacert", AUTHORITY, "--request", "POST", "--output", str(outputs[0])]
        command += ["--upload-file", str(self._body(job))]
        command += ["--header", f"Expect:{' 100-continue' if job['expect'] else ''}"]
        if job["expect"] == "patient":
            command += ["--expect100-timeout", "2"]
        if job["chunked"]:
            command += ["--header", "Transfer-Encoding: chunked"]
        if job["close"]:
            command += ["--header", "Connection: close"]
        if job["pause"]:
            command += ["--limit-rate", str(round(job["piece"] / job["pause"]))]
        command += [url(job, "path"), "--next", "--verbose", "--silent", "--noproxy", "*"]
        command += [*write_out, "--cacert", AUTHORITY, "--output", str(outputs[1])]
        command += [url(job, "next")]
        result = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
        lines = result.stdout.decode("utf-8", "replace").splitlines()
        log = result.stderr.decode("utf-8", "replace")
        resets = re.findall(r"(?:Send|Recv) failure: (?:Connection reset by peer|Broken pipe)", log)
        first, second = (
            self._told(lines[number] if number < len(lines) else "{}", output)
            for number, output in enumerate(outputs)
        )
        answer: Answer = {"first": first, "resets": resets}
        if "error" not in first:
            answer["next"] = second
            answer["reused"] = second.pop("connects", None) == 0
        return answer

    def _told(self, line: str, output: Path) -> Answer:
        seen = json.loads(line)
        if seen.get("exitcode") or not seen.get("response_code"):
            return {"error": f"curl exit {seen.get('exitcode')}: {seen.get('errormsg')}"}
        body = output.read_bytes() if output.exists() else b""
        return {**told(seen["response_code"], body), "connects": seen["num_connects"]}


def url(job: Job, key: str) -> str:
    """The address of the upload, or of what comes next."""
    return f"http{'s' if job['tls'] else ''}://127.0.0.1:{job['port']}{job[key]}"


def trusting() -> ssl.SSLContext:
    """What a client connects over TLS with."""
    return ssl.create_default_context(cafile=AUTHORITY)


def main() -> None:
    """Answer jobs until there are no more."""
    WATCH.install()
    clients: dict[str, Callable[[Job], Answer]] = {
        "raw strict": functools.partial(use_raw, strict),
        "raw reading": functools.partial(use_raw, reader),
        "http.client": use_http_client,
        "urllib": use_urllib,
        "requests": use_requests,
        "httpx": use_httpx,
        "aiohttp": use_aiohttp,
    }
    versions = {"http.client": sys.version.split()[0], "urllib": sys.version.split()[0]}
    missing: dict[str, str] = {}
    for name in ("requests", "httpx", "aiohttp"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing[name] = f"{name} is not installed"
    if shutil.which("curl") is None:
        missing["curl"] = "there is no curl program"
    else:
        clients["curl"] = Curl().use
        printed = subprocess.run(("curl", "--version"), capture_output=True, check=True, text=True)
        versions["curl"] = printed.stdout.split()[1]
    _say({"versions": versions, "missing": missing})
    for line in sys.stdin:
        job: Job = json.loads(line)
        _say(clients[job["client"]](job))


def _say(answer: Answer) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
