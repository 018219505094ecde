"""What the site needs and the pages do not show: ``make docs`` calls it, by ``mkdocs.yml``.

The pages are written for the forge as well, where they lie beside the code. So a link that leaves
``docs/`` becomes one to the repository, and a folder in the navigation stands for all of its pages:
a new server or decision is there without another line.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final, cast

FOLDER: Final = Path(__file__).parent
REPOSITORY: Final = "https://github.com/cleanclose/cleanclose/blob/main"
_LINK: Final = re.compile(r"(?<=\]\()(\.\.?/[^)\s]*)(?=\))")


def on_config(config: Any) -> Any:
    """Put the pages of folders into the navigation."""
    config["nav"] = _filled(config["nav"])
    return config


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:
    """Let links that leave the folder of the pages lead to the repository."""
    return outward(markdown, page.file.src_uri)


def outward(markdown: str, source: str) -> str:
    """Rewrite the links of one page.

    Args:
        markdown: The page's text.
        source: Its path below ``docs/``, with ``/``.
    """
    here = posixpath.join("docs", posixpath.dirname(source))

    def replaced(found: re.Match[str]) -> str:
        path, _, fragment = found[1].partition("#")
        target = posixpath.normpath(posixpath.join(here, path))
        if target.startswith("docs/") and not target.endswith(".py"):
            return found[1]
        return f"{REPOSITORY}/{target}" + (f"#{fragment}" if fragment else "")

    return _LINK.sub(replaced, markdown)


def _filled(entries: list[object]) -> list[Any]:
    return [_entry(entry) for entry in entries]


def _entry(entry: object) -> Any:
    if not isinstance(entry, dict):
        return entry
    ((title, what),) = cast("dict[str, object]", entry).items()
    if isinstance(what, str) and what.endswith("/"):
        return {title: _pages(what)}
    return {title: _filled(cast("list[object]", what)) if isinstance(what, list) else what}


def _pages(folder: str) -> list[str]:
    names = sorted(path.name for path in (FOLDER / folder).glob("*.md"))
    # The page that stands for the folder comes first.
    names.sort(key=lambda name: name not in ("index.md", "README.md"))
    return [folder + name for name in names]
