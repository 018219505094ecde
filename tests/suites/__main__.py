"""Frameworks' own test suites, bare and wrapped: ``python -m tests.suites [NAME …]``.

The sources come from the package index, into an environment of their own. Each suite is run
twice; a test that the bare application passes and the wrapped one does not is a difference. It is
mended, or docs/frameworks-suites.md names it with the reason.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from typing import Final

from tests.suites.rows import SUITES, Suite

_ROOT: Final = pathlib.Path(__file__).parents[2]
_HERE: Final = pathlib.Path(__file__).parent
_PAGE: Final = _ROOT / "docs" / "frameworks-suites.md"
_MINUTES: Final = 40


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Args:
        passed: The names of the tests that passed.
        failed: The names of those that did not.
    """

    passed: frozenset[str]
    failed: frozenset[str]


class Environment:
    """The environment of the suites, and their sources.

    Args:
        folder: Where both are.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self._sources = folder / "sources"

    def make(self) -> None:
        """Make it, if it is not there."""
        if not self.python.exists():
            subprocess.run([sys.executable, "-m", "venv", self.folder], check=True)
            self.install(
                "-e", f"{_ROOT}[asgi,wsgi]", "pytest<9.2", "pytest-timeout", "pytest-xdist"
            )

    def install(self, *arguments: str) -> None:
        """Let pip install something."""
        self._pip("install", *arguments)

    def fetch(self, name: str, suite: Suite) -> pathlib.Path:
        """Get a suite's source distribution, and what it needs, installed.

        Returns:
            The folder of its sources.
        """
        folder = self._sources / name
        installed = folder / "installed"
        package = suite.package or name
        if not folder.exists():
            self._pip(
                *("download", "--no-deps", "--no-binary", package),
                *("--dest", str(folder), suite.requirement),
            )
            (archive,) = folder.glob("*.tar.gz")
            with tarfile.open(archive) as opened:
                opened.extractall(folder, filter="data")
        (source,) = (each for each in folder.iterdir() if each.is_dir())
        if not installed.exists():
            self.install(f"{package}=={source.name.rpartition('-')[2]}", *suite.needs)
            installed.touch()
        return source

    def _pip(self, command: str, *arguments: str) -> None:
        subprocess.run([self.python, "-m", "pip", command, "--quiet", *arguments], check=True)

    def run(self, name: str, suite: Suite, source: pathlib.Path, *, wrapped: bool) -> Outcome:
        """Run a suite.

        Args:
            name: The framework's name.
            suite: Its suite.
            source: Where its sources are.
            wrapped: Whether its applications are wrapped.
        """
        environment = dict(os.environ)
        # Where pytest finds them, so does whatever imports the framework before it.
        path = (_HERE / "site", source / suite.folder)
        environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
        if wrapped:
            environment["CLEANCLOSE_SUITE"] = name
        report = self.folder / f"{name}-{'wrapped' if wrapped else 'bare'}.xml"
        report.unlink(missing_ok=True)
        command = _django_command(suite) if suite.django else _pytest_command(suite, report)
        done = subprocess.run(
            [self.python, *command],
            cwd=source / suite.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=60 * _MINUTES,
            check=False,
        )
        report.with_suffix(".log").write_text(done.stdout, encoding="utf-8")
        if suite.django:
            return outcome_of_django(done.stdout)
        return outcome_of_pytest(report, done.stdout)


def _pytest_command(suite: Suite, report: pathlib.Path) -> list[str]:
    return [
        *("-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider"),
        *("-p", "older_pytest", "--continue-on-collection-errors"),
        # The wrapped classes import what pytest would rewrite.
        *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
        *("--timeout=120", f"--junitxml={report}", *suite.arguments),
    ]


def _django_command(suite: Suite) -> list[str]:
    return ["runtests.py", "--parallel=1", "-v", "2", *suite.arguments]


def outcome_of_pytest(report: pathlib.Path, said: str) -> Outcome:
    """Read a report of pytest.

    Args:
        report: Its file, as JUnit writes it.
        said: What pytest has printed, for who wants to know why there is none.

    Raises:
        SystemExit: There is no report.
    """
    if not report.exists():
        raise SystemExit(f"pytest has written no report:\n{said[-2000:]}")
    passed, failed = set[str](), set[str]()
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            failed.add(name)
        elif case.find("skipped") is None:
            passed.add(name)
    return Outcome(frozenset(passed - failed), frozenset(failed))


# What is logged meanwhile stands before the "ok".
_DJANGO_PASSED: Final = re.compile(
    r"^test\w* \(([\w.]+)\)(?:\n[^\n]*)? \.\.\. (?:(?!test\w* \()[^\n]*\n)*?ok$", re.MULTILINE
)
_DJANGO_FAILED: Final = re.compile(r"^(?:FAIL|ERROR): \w+ \(([\w.]+)\)", re.MULTILINE)


def outcome_of_django(said: str) -> Outcome:
    """Read the output of Django's runner (``-v 2``).

    Args:
        said: What it has printed.

    Raises:
        SystemExit: It has not come to an end.
    """
    failed = frozenset(_DJANGO_FAILED.findall(said))
    if not re.search(r"^Ran \d+ tests? in", said, re.MULTILINE):
        raise SystemExit(f"Django's tests have not come to an end:\n{said[-2000:]}")
    return Outcome(frozenset(_DJANGO_PASSED.findall(said)) - failed, failed)


def _meant() -> str:
    return _PAGE.read_text(encoding="utf-8") if _PAGE.exists() else ""


def _compare(environment: Environment, name: str) -> bool:
    """Run one suite both ways.

    Returns:
        Whether there is no difference but those that the page names.
    """
    suite = SUITES[name]
    source = environment.fetch(name, suite)
    bare = environment.run(name, suite, source, wrapped=False)
    wrapped = environment.run(name, suite, source, wrapped=True)
    differences = sorted(bare.passed - wrapped.passed)
    print(f"| {source.name} | {len(bare.passed)} | {len(wrapped.passed)} | {len(differences)} |")
    meant = _meant()
    unexplained = [each for each in differences if f"`{each}`" not in meant]
    for each in unexplained:
        print(f"  {each}")
    sys.stdout.flush()
    return not unexplained


def main() -> int:
    """Run the suites that the command line names, or all of them.

    Returns:
        The exit status: 1 if there is a difference that nobody has explained.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SUITES))
    parser.add_argument("--folder", type=pathlib.Path, default=_ROOT / ".venv-suites")
    arguments = parser.parse_args()
    names: list[str] = arguments.names or list(SUITES)
    if unknown := set(names) - set(SUITES):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    environment = Environment(arguments.folder)
    environment.make()
    print("| suite | passed bare | passed wrapped | differences |\n| --- | --- | --- | --- |")
    unexplained = [name for name in names if not _compare(environment, name)]
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
