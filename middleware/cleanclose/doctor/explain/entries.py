"""From lines to entries: find what one log call wrote, in bounded memory.

Most lines say nothing about connections. They cost one search for a few words, and are then
forgotten. Only the last one stays, because a traceback's first line does not say who logged it.
"""

from __future__ import annotations

import dataclasses
import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

__all__ = ["Entry", "entries", "may_matter"]

_HEAD: Final = 60
_TAIL: Final = 240
_WIDEST: Final = 4096
"""How many characters of a traceback's line to keep. JSON lines stay whole."""

_WORDS: Final = (
    # Most frequent first. A regular expression of all of them takes ten times as long.
    *(
        "reset",
        "broken pipe",
        "brokenpipe",
        "disconnect",
        "epipe",
        "econn",
        '" 499 ',
        "prematurely",
    ),
    *(
        "upstream",
        "closed",
        "lost",
        "abort",
        "timed out",
        "caused by",
        'status":499',
        'status": 499',
        'status": "499',
    ),
    *('status":"499', "socket.send()", "worker timeout", "unexpected eof", "nomoredata"),
    *("write error", "wsgi.input", "departed", "undelivered", "truncated_upload"),
    *("upload_drained", "unreadable", "ssl", "end of file", "gone away", "response_flags"),
    *("terminating", "heartbeat", "violation of", "transport error", "failed to close"),
    *("body-read", "hr_read", "hr_write", "without sending", "error while", "traceback"),
    *("http.log.error", "reverse_proxy", "bad gateway", "gateway timeout", "client closed"),
)
"""In lower case."""
_TERMINATION: Final = re.compile(
    # HAProxy's httplog and tcplog: times, status, bytes, cookies, then the state and the queues.
    r" (?:[CSPRLUDIKcs][A-Za-z-]|-[A-Z])(?:[A-Za-z-]{2})? \d+/\d+/\d+/\d+/\+?\d+ "
)
_FLAGS: Final = re.compile(r'" \d{1,3} [A-Z]{2}[A-Z,]* ')
_TRACEBACK: Final = "Traceback (most recent call last):"
_SENTENCES: Final = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
_PREFIX: Final = re.compile(
    # Compose's service name, syslog's time, host and program, a container runtime's time.
    r"(?:[\w.-]+ +\| |(?:\w{3} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)) "
    r"[\w.-]+ [\w./-]+(?:\[\d+\])?: |\d{4}-\d\d-\d\dT[\d:.]+Z (?:stdout|stderr) [FP] )"
)
_EXCEPTION: Final = re.compile(r"[\s|+]*[A-Za-z_][\w.<>]*(?:: .*|:? ?)$")
_ROOT: Final = re.compile(r"(?:ConnectionResetError|BrokenPipeError|TimeoutError)(?:: |$)")
"""The exceptions that transports raise without a frame."""
_NOISE: Final = re.compile(r"\x1b\[[0-9;]*m")


@dataclasses.dataclass(slots=True)
class Entry:
    """What one log call wrote, as far as it matters here.

    Args:
        first: The line that began it, with its prefix.
        lines: The lines of its traceback, without their prefix; empty if it has none.
        is_whole: Whether no line of the traceback is missing.
    """

    first: str
    lines: list[str] = dataclasses.field(default_factory=list[str])
    is_whole: bool = True


def may_matter(line: str) -> bool:
    """Whether a line may be about a connection, and so needs a closer look.

    Args:
        line: One line of any log.
    """
    lower = line.lower()
    for word in _WORDS:
        if word in lower:
            return True
    return _FLAGS.search(line) is not None or _TERMINATION.search(line) is not None


def entries(lines: Iterable[str]) -> Iterator[Entry]:
    """Find the entries that may be about a broken connection, and all tracebacks, in their order.

    Args:
        lines: Lines without their ends.
    """
    last, before_last = "", ""
    waiting: Entry | None = None
    root: str | None = None
    opened: _Traceback | None = None
    for line in lines:
        if "\x1b" in line:
            line = _NOISE.sub("", line)
        if opened is not None:
            if opened.takes(line):
                continue
            yield opened.entry()
            last, before_last, opened = "", "", None
        if not line or line.isspace():
            continue
        if line.endswith(_SENTENCES) and line[:1] != "{":
            # Python prints an exception without frames without the line that begins a traceback.
            root, waiting, last = last, None, before_last
            continue
        if waiting is not None:
            yield waiting
            waiting = None
        if _TRACEBACK in line and line[:1] != "{":
            opened = _Traceback(last, line, root)
        else:
            if may_matter(line):
                waiting = Entry(line)
            if not line[0].isspace():
                # An indented line belongs to the previous one, which has the time.
                last, before_last = line, last
        root = None
    if opened is not None:
        yield opened.entry()
    if waiting is not None:
        yield waiting


class _Traceback:
    """A traceback of which some lines have been read."""

    def __init__(self, last: str, line: str, root: str | None) -> None:
        before, _, _ = line.partition(_TRACEBACK)
        prefix = _PREFIX.match(line)
        self._prefix = prefix.end() if prefix else 0
        own = before[self._prefix :]
        # Tornado's own formatter indents what belongs to a line.
        self._indent = 0 if own.strip() else len(own)
        self._first = line if own.strip(" |+") else last or line
        self._head: list[str] = []
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._is_whole = root is None or _ROOT.match(root) is not None
        self._has_ended = False
        """Whether its exception's own line has come: only blank lines and a chained traceback may
        follow."""
        self._is_chained = False
        """Whether a sentence has announced another traceback."""
        self._keep(_TRACEBACK)
        if root is not None:
            self._keep(root[self._prefix :])
            self._keep(_TRACEBACK)

    def takes(self, line: str) -> bool:
        """Add a line; return False if it belongs to something else."""
        text = line[self._prefix :] if self._prefix and _PREFIX.match(line) else line
        if self._indent and text[: self._indent].isspace():
            text = text[self._indent :]
        if text[:1] in ("", " ", "\t", "|", "+") or text.isspace():
            if _TRACEBACK in text:
                self._has_ended = False
        elif self._has_ended and text.startswith(_SENTENCES):
            self._is_chained = True
        elif self._is_chained and text.startswith(_TRACEBACK):
            self._has_ended = self._is_chained = False
        elif self._has_ended or not _EXCEPTION.match(text):
            return False
        else:
            self._has_ended = True
        self._keep(text)
        return True

    def _keep(self, text: str) -> None:
        text = text[:_WIDEST]
        if len(self._head) < _HEAD:
            self._head.append(text)
            return
        if len(self._tail) == _TAIL:
            self._is_whole = False
        self._tail.append(text)

    def entry(self) -> Entry:
        """The whole."""
        return Entry(self._first, [*self._head, *self._tail], self._is_whole)
