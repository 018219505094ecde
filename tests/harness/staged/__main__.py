"""Stage everything and write what came, a JSON line each.

``python -m tests.harness.staged FILE seen|held-out [NAME...]``, from the root of a
checkout. Runs of one line are cut to three: granian and asyncio write some thousands of times.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.harness.paths import ROOT
from tests.harness.staged.proxies import PROXIES, staged_behind
from tests.harness.staged.servers import SERVERS, Lines, staged_on

_OWN: Final = re.compile(r"[^\s\"']*?/(site-packages|lib/python3\.\d+)/")


def without_a_machine(text: str) -> str:
    """A log's text without the paths of the machine that it comes from."""
    text = text.replace(f"{ROOT}/", "/srv/shop/")

    def shortened(found: re.Match[str]) -> str:
        folder = "lib/python3.11/site-packages" if found[1] == "site-packages" else found[1]
        return f"/usr/{folder}/"

    return _OWN.sub(shortened, text)


def few(text: str) -> str:
    """A text with at most three of the same line in a row."""
    kept: list[str] = []
    for line in text.splitlines():
        if kept[-3:] != [line] * 3:
            kept.append(line)
    return "\n".join(kept)


def _staged(name: str, part: str) -> Iterator[Lines]:
    return staged_on(name, part) if name in SERVERS else staged_behind(name, part)


def main() -> None:
    """Stage, and write."""
    path, part, *names = sys.argv[1:]
    with Path(path).open("w", encoding="utf-8") as out:

        def write(lines: Lines) -> None:
            text = without_a_machine(few(lines.text))
            out.write(json.dumps(lines._replace(text=text)._asdict()) + "\n")

        for name in names or [*SERVERS, *PROXIES]:
            print(name, file=sys.stderr)
            for lines in _staged(name, part):
                write(lines)


if __name__ == "__main__":
    main()
