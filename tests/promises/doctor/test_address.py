"""`cleanclose doctor URL` on real servers and proxies of this machine."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

from tests.harness.apps import routes
from tests.harness.command import cleanclose
from tests.harness.servers_asgi import with_certificate
from tests.harness.serving import Serve
from tests.harness.stacks import Stack, stack
from tests.harness.tls import certificate

ROOT: Final = Path(__file__).parents[3]

pytestmark = pytest.mark.timeout(120)


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return cleanclose("doctor", *arguments, seconds=100)


def report(finished: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert finished.returncode in (0, 1), finished.stderr
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


def test_a_wrapped_server_loses_nothing(serve: Serve) -> None:
    server = serve(stack("uvicorn-h11"))
    finished = doctor(f"{server.url}{routes.REFUSE}", "--json")
    found = report(finished)
    assert (finished.returncode, found["findings"]) == (0, [])
    assert {case["status"] for case in found["cases"]} == {413}
    assert found["small_request"] == {"status": 413}
    assert {case["made_by"]["name"] for case in found["cases"]} == {None}


@pytest.mark.negative_control
def test_a_bare_server_loses_the_answer(serve: Serve) -> None:
    server = serve(stack("tornado"), wrapped=False)
    finished = doctor(f"{server.url}{routes.REFUSE}", "--json")
    found = report(finished)
    assert finished.returncode == 1
    (finding,) = found["findings"]
    assert finding["id"] == "early-answer-lost"
    assert {"strict", "close", "chunked", "slow"} <= set(finding["cases"])
    reading = next(case for case in found["cases"] if case["id"] == "reading")
    assert (reading["status"], reading["early"]) == (413, True)


@pytest.mark.negative_control
def test_the_proxys_own_error_is_told_from_the_applications_answer(
    serve: Serve, require_program: Callable[[str], str]
) -> None:
    require_program("nginx")
    bare = serve.behind_nginx(serve(stack("tornado"), wrapped=False), buffering=False)
    found: dict[str, Any] = {}
    findings: list[dict[str, Any]] = []
    # A race between nginx' writing and the server's reset, so it is run until it is lost.
    for _ in range(10):
        found = report(doctor(f"{bare.url}{routes.REFUSE}", "--json"))
        assert "nginx" in found["proxies"]
        findings += [each for each in found["findings"] if each["id"] == "bad-gateway"]
        if findings:
            break
    (finding,) = findings
    assert "an error of nginx instead of the application's answer (413" in finding["sentence"]
    gateway = [case for case in found["cases"] if case["status"] == 502]
    assert gateway
    assert all(case["made_by"]["name"] == "nginx" for case in gateway)
    assert all(case["made_by"]["sure"] for case in gateway)


def test_behind_nginx_a_wrapped_server_loses_nothing(
    serve: Serve, require_program: Callable[[str], str]
) -> None:
    require_program("nginx")
    proxy = serve.behind_nginx(serve(stack("tornado")), buffering=True)
    finished = doctor(f"{proxy.url}{routes.REFUSE}")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "On the way: nginx" in finished.stdout
    assert "No findings." in finished.stdout


def test_an_application_that_reads_everything_is_told_so(serve: Serve) -> None:
    server = serve(stack("uvicorn-h11"))
    found = report(doctor(f"{server.url}{routes.ACCEPT}", "--json", "--body-size=300K"))
    assert found["findings"] == []
    assert "only after the whole upload" in found["notes"][0]


class Redirects(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(308)
        self.send_header("Location", "https://elsewhere.example/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Generator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Redirects) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def assert_trouble(finished: subprocess.CompletedProcess[str], sentence: str) -> None:
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert sentence in finished.stderr
    assert finished.stderr.startswith("Error: ")
    assert finished.stderr.count("\n") == 1


def test_a_redirect_is_not_followed() -> None:
    with serving() as port:
        finished = doctor(f"http://127.0.0.1:{port}/")
    assert_trouble(finished, "redirects to https://elsewhere.example/: use that one.")


def test_a_certificate_that_nobody_has_signed(tmp_path: Path) -> None:
    signed = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed.chain, signed.key)
    with serving(context) as port:
        finished = doctor(f"https://127.0.0.1:{port}/")
    assert_trouble(finished, "is not valid: unable to get local issuer certificate.")


def test_tls_with_a_server_that_has_none() -> None:
    with serving() as port:
        finished = doctor(f"https://127.0.0.1:{port}/")
    assert_trouble(finished, "The TLS handshake with 127.0.0.1")


def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        finished = doctor(f"http://127.0.0.1:{bound.getsockname()[1]}/")
    assert_trouble(finished, "Connection refused")


def test_a_server_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        finished = doctor(f"http://127.0.0.1:{port}/", "--timeout=0.5")
    assert_trouble(finished, "did not answer a small request within 0.5 s.")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://no-such-host.invalid/", "There is no host named no-such-host.invalid."),
        ("http://127.0.0.1:99999/", "is not a URL."),
        ("https:///path", "has no host"),
        ("http://somebody:secret@127.0.0.1/", "has a user's name in it"),
        ("http://127.0.0.1/a b", "percent-encode"),
    ],
)
def test_an_address_that_cannot_be_asked(url: str, sentence: str) -> None:
    assert_trouble(doctor(url), sentence)


@pytest.fixture
def over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A gunicorn with a certificate that the command trusts."""
    signed = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(signed.authority))
    return with_certificate(stack("gunicorn-gthread"), signed)


def test_over_tls_a_wrapped_server_loses_nothing(over_tls: Stack, serve: Serve) -> None:
    server = serve(over_tls)
    finished = doctor(f"https://127.0.0.1:{server.port}{routes.REFUSE}", "--json")
    found = report(finished)
    assert (finished.returncode, found["findings"]) == (0, [])
    assert {case["status"] for case in found["cases"]} == {413}


@pytest.mark.negative_control
def test_over_tls_a_bare_server_loses_the_answer(over_tls: Stack, serve: Serve) -> None:
    server = serve(over_tls, wrapped=False)
    finished = doctor(f"https://127.0.0.1:{server.port}{routes.REFUSE}")
    assert finished.returncode == 1
    assert "error: early-answer-lost" in finished.stdout
    assert max(map(len, finished.stdout.splitlines())) <= 80
    assert "\x1b" not in finished.stdout


def test_a_redirect_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signed = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(signed.authority))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed.chain, signed.key)
    with serving(context) as port:
        finished = doctor(f"https://127.0.0.1:{port}/")
    assert_trouble(finished, "redirects to https://elsewhere.example/")


def test_the_document_has_the_keys_that_the_page_has(serve: Serve) -> None:
    """docs/doctor.md promises that none of them goes away."""
    server = serve(stack("uvicorn-h11"))
    found = report(doctor(f"{server.url}{routes.ACCEPT}", "--json", "--body-size=300K"))
    assert found.keys() == {
        *("version", "kind", "target", "notes", "findings", "small_request", "proxies", "cases")
    }
    assert (found["version"], found["kind"]) == (1, "address")
    assert found["cases"][0].keys() == {
        *("id", "title", "status", "made_by", "early", "bytes_sent", "body_size", "error", "hung"),
        "seconds",
    }
    assert found["cases"][0]["made_by"].keys() == {"name", "sure", "evidence"}
