"""The documentation: what is generated is up to date, what is linked is there."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from cleanclose.core import Settings
from tests.harness.paths import ROOT

PAGES = sorted(
    path
    for folder in (ROOT, *(ROOT / "docs" / name for name in ("", "decisions", "servers")))
    for path in folder.glob("*.md")
)

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def without_code(page: Path) -> str:
    return CODE.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """The fragments that headings give, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }


def test_there_are_pages() -> None:
    assert {"README.md", "docs/index.md", "docs/settings.md"} <= {name_of(page) for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(without_code(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        if fragment and target.suffix == ".md":
            assert fragment in anchors(target), f"{link}: there is no such heading"


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link).resolve() for link in LINK.findall(without_code(index))}
    pages = {page for page in PAGES if page.parent == index.parent and page != index}
    assert pages <= linked


def test_the_list_of_decisions_is_complete() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(
        r"^\| \[(\d{4})\]\(([^)]+)\) \| (.+) \|$",
        (folder / "README.md").read_text("utf-8"),
        re.MULTILINE,
    )
    records = sorted(folder.glob("[0-9]*.md"))
    assert [name for _, name, _ in listed] == [path.name for path in records]
    for (number, name, title), path in zip(listed, records, strict=True):
        assert name.startswith(number)
        text = path.read_text("utf-8")
        assert text.startswith(f"# {number}: {title}\n\n**Status:** ")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Why", "Decision", "Price"]


def test_the_limits_that_security_promises_are_the_defaults() -> None:
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, re.MULTILINE))
    settings = Settings()
    limits = [
        field.name
        for field in dataclasses.fields(Settings)
        if type(getattr(settings, field.name)) in (int, float)
    ]
    assert sorted(rows) == sorted(limits)
    for name, told in rows.items():
        value = getattr(settings, name)
        assert said(value) == told.split()[0], f"{name} is {value!r}, SECURITY.md says {told}"


def said(value: float) -> str:
    """How a table writes a limit, without its unit."""
    if isinstance(value, int) and value % (1024 * 1024) == 0:
        return f"{value // (1024 * 1024)}"
    return f"{value:,g}"
