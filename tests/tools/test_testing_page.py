"""docs/testing.md: its example is a file that pytest runs; and clients that leave."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from cleanclose.testing import Upload, body_pieces, leave
from tests.harness.paths import ROOT


def test_the_example_runs_as_it_stands(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "testing.md").read_text("utf-8")
    mark = "<!-- run by tests/tools/test_testing_page.py -->\n```python\n"
    example = page.partition(mark)[2].partition("\n```")[0]
    assert example
    file = tmp_path / "test_uploads.py"
    file.write_text(example, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


class Listener:
    """A server that answers one connection with a few bytes and notes how it ended."""

    def __init__(self, answer: bytes = b"") -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.came = bytearray()
        self.end = ""
        self.has_head = threading.Event()
        self._answer = answer
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self.socket.accept()
        with connection:
            connection.settimeout(30)
            try:
                while data := connection.recv(65536):
                    self.came += data
                    if b"\r\n\r\n" in self.came and not self.has_head.is_set():
                        connection.sendall(self._answer)
                        self.has_head.set()
                self.end = "fin"
            except ConnectionResetError:
                self.end = "reset"

    def close(self) -> None:
        self._thread.join()
        self.socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener(answer=b"HTTP/1.1 200 OK\r\n")
    yield made
    made.close()


@pytest.mark.parametrize(("how", "end"), [("reset", "reset"), ("close", "fin")])
def test_a_client_leaves_by_a_reset_or_in_good_order(
    listener: Listener, how: Literal["reset", "close"], end: str
) -> None:
    # What is unread would make a reset of any closing.
    upload = Upload(port=listener.port, body_size=300_000, abort_after=1000)
    assert leave(upload, how=how, read=17, when=listener.has_head.wait) == b"HTTP/1.1 200 OK\r\n"
    listener.close()
    assert listener.end == end
    head, _, body = bytes(listener.came).partition(b"\r\n\r\n")
    assert b"Content-Length: 300000" in head
    if how == "close":
        assert body == b"".join(body_pieces(1000))


def test_it_leaves_when_the_moment_has_come(listener: Listener) -> None:
    moments: list[bool] = []

    def when() -> None:
        moments.append(listener.has_head.wait(10) and not listener.end)

    leave(Upload(port=listener.port, method="GET"), when=when)
    assert moments == [True]


def test_a_moment_that_does_not_come_is_an_error(listener: Listener) -> None:
    never = threading.Event()
    with pytest.raises(AssertionError, match="moment"):
        leave(Upload(port=listener.port, method="GET"), when=lambda: never.wait(0.01))
