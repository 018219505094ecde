"""What may be committed: nothing that names one machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.harness.paths import ROOT

# Put together here so that this file does not contain what it looks for.
MACHINE_PATHS = tuple(f"/{name}/" for name in ("work", "home", "root", "Users"))
REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("deb", "debian", "org"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
    )
)


def committed_files() -> list[Path]:
    """List what git tracks or would track; without a repository (an sdist), every file."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            check=True,
            capture_output=True,
        ).stdout.decode()
        paths = [ROOT / name for name in listed.split("\0") if name]
    else:
        paths = [
            path
            for path in ROOT.rglob("*")
            if not any(
                part.startswith(".") or part == "__pycache__"
                for part in path.relative_to(ROOT).parts
            )
        ]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


@pytest.mark.parametrize("kind", ["machine paths", "registry hosts"])
def test_no_trace_of_one_machine(kind: str) -> None:
    words = MACHINE_PATHS if kind == "machine paths" else REGISTRY_HOSTS
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in committed_files()
        for word in words
        if word.encode() in path.read_bytes()
    ]
    assert not found
