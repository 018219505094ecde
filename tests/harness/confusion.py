"""What `cleanclose explain` makes of lines that its rules were not written with.

``held_out.jsonl`` holds what servers and proxies wrote about connections that
``python -m tests.harness.staged FILE held-out`` broke: the truth of each is what was done.
``python -m tests.harness.confusion`` brings the table in docs/explain.md up to date.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cleanclose.doctor.explain.entries import entries
from cleanclose.doctor.explain.kinds import KINDS
from cleanclose.doctor.explain.rules import find

LINES: Final = Path(__file__).with_name("held_out.jsonl")
PAGE: Final = Path(__file__).parents[2] / "docs" / "explain.md"
BEGIN: Final = "<!-- generated: confusion, by tests/harness/confusion.py -->"
END: Final = "<!-- end: confusion -->"
SIDES: Final = ("client", "upstream", "server", "unknown")


def cases() -> Iterator[dict[str, Any]]:
    """All that is held out."""
    with LINES.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def counted() -> dict[tuple[str, str], Counter[str]]:
    """By format and truth: how many entries went to which side, and in how many cases none did."""
    table: dict[tuple[str, str], Counter[str]] = {}
    for case in cases():
        row = table.setdefault((case["format"], case["truth"]), Counter())
        found = [find(entry) for entry in entries(case["text"].splitlines())]
        sides = [KINDS[each.kind].side.value for each in found if each is not None]
        row["cases"] += 1
        row.update(sides)
        row["silent"] += not sides
    return table


def table() -> str:
    """The confusion table, in Markdown."""
    columns = ("cases", *SIDES, "silent")
    head = (
        "| log | whose it was | cases | lines called the client's | an upstream's | the server's "
        "own | unknown | cases without a line |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    rows = [
        f"| {form} | {truth} | " + " | ".join(str(row[column]) for column in columns) + " |"
        for (form, truth), row in sorted(counted().items())
    ]
    return "\n".join((head, *rows))


def page_with_table(text: str) -> str:
    """The page with the table as it is now.

    Args:
        text: The page.
    """
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text("utf-8")), "utf-8")
