"""What a user gets: the sdist and the wheel, each installed into an empty environment."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.isolation import as_started
from tests.harness.paths import ROOT

CONSTRAINTS = ROOT / "constraints.txt"
PACKAGES = ("asgi", "core", "doctor", "integrations", "tornado", "wsgi")
# What a package may ask for when its extra is not installed.
EXTRA_MODULES: dict[str, set[str]] = {
    "asgi": {"anyio", "starlette"},
    "core": set(),
    "doctor": {"click", "rich"},
    "integrations": set(),
    "tornado": {"tornado"},
    "wsgi": {"werkzeug"},
}

# What each extra is for, and so has to bring all that it needs by itself.
ALONE: dict[str, tuple[str, ...]] = {
    "asgi": ("asgi",),
    "doctor": ("doctor.main",),
    "opentelemetry": ("integrations.opentelemetry",),
    "prometheus": ("integrations.prometheus",),
    "sentry": ("integrations.sentry",),
    "tornado": ("tornado", "integrations.tornado"),
    "wsgi": ("wsgi",),
}

# Building and installing go through the package index, which may be slow to answer.
pytestmark = [
    pytest.mark.distribution,
    pytest.mark.full,
    pytest.mark.slow,
    pytest.mark.timeout(600),
]


@dataclass(frozen=True, kw_only=True)
class Environment:
    """An environment that knows nothing of this checkout."""

    folder: Path

    @property
    def python(self) -> Path:
        scripts = "Scripts" if sys.platform == "win32" else "bin"
        return self.folder / scripts / "python"

    def pip(self, *arguments: str) -> str:
        # The outer pip installs for the inner environment, so that one holds nothing, not
        # even pip.
        return run(sys.executable, "-m", "pip", "--python", str(self.python), *arguments)

    def install(self, requirement: str) -> None:
        self.pip(
            "install",
            "--quiet",
            "--no-cache-dir",
            "--constraint",
            str(CONSTRAINTS),
            "--build-constraint",
            str(CONSTRAINTS),
            requirement,
        )

    def installed(self) -> set[str]:
        listed = json.loads(self.pip("list", "--format=json"))
        return {entry["name"].lower() for entry in listed}

    def run_code(self, code: str) -> str:
        # -I keeps the current folder and PYTHONPATH out: only what was installed counts.
        return run(str(self.python), "-I", "-c", code, cwd=self.folder)


def run(*command: str, cwd: Path = ROOT) -> str:
    finished = subprocess.run(
        command,
        cwd=cwd,
        env=as_started(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, (
        f"{' '.join(command)} failed:\n{finished.stdout}\n{finished.stderr}"
    )
    return finished.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build the sdist, and the wheel from that sdist as an index's users would."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT))
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    return {"sdist": sdist, "wheel": wheel}


@pytest.fixture(scope="module", params=["wheel", "sdist"])
def bare(
    request: pytest.FixtureRequest,
    built: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Environment:
    """An environment with the built file and what it pulls in by itself."""
    environment = Environment(folder=tmp_path_factory.mktemp(f"bare-{request.param}"))
    venv.create(environment.folder, with_pip=False)
    environment.install(str(built[request.param]))
    return environment


@pytest.fixture(scope="module")
def with_all_extras(
    built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    environment = Environment(folder=tmp_path_factory.mktemp("all"))
    venv.create(environment.folder, with_pip=False)
    environment.install(f"{built['wheel']}[all]")
    return environment


def test_wheel_holds_both_roots_and_nothing_else(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        names = wheel.namelist()
    # A wheel's file name and its metadata folder begin with the same name and version.
    metadata = "-".join(built["wheel"].name.split("-")[:2]) + ".dist-info"
    assert {name.split("/")[0] for name in names} == {"cleanclose", metadata}
    for package in PACKAGES:
        assert f"cleanclose/{package}/__init__.py" in names
        assert f"cleanclose/{package}/py.typed" in names
    assert "cleanclose/__init__.py" not in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_sdist_can_be_worked_on(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert names >= {
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "constraints.txt",
        "constraints-lowest.txt",
        "docs/index.md",
        "example_apps/uploads.py",
        "pyproject.toml",
        "tests/tools/test_distribution.py",
    }
    assert not [name for name in names if "__pycache__" in name or name.startswith(".venv")]


def test_only_structlog_comes_along(bare: Environment) -> None:
    assert bare.installed() == {"cleanclose", "structlog"}


@pytest.mark.parametrize("package", PACKAGES)
def test_without_extras_at_most_the_framework_is_missing(bare: Environment, package: str) -> None:
    missing = bare.run_code(
        "try:\n"
        f"    import cleanclose.{package}\n"
        "except ModuleNotFoundError as exc:\n"
        "    print(exc.name)\n"
    ).strip()
    assert not missing or missing.split(".")[0] in EXTRA_MODULES[package]


@pytest.mark.parametrize("package", PACKAGES)
def test_py_typed_is_installed(bare: Environment, package: str) -> None:
    # find_spec imports the namespace only, so a missing framework does not matter here.
    found = bare.run_code(
        "import importlib.util, pathlib\n"
        f"spec = importlib.util.find_spec('cleanclose.{package}')\n"
        "print(pathlib.Path(spec.origin).with_name('py.typed').is_file())\n"
    )
    assert found.strip() == "True"


def test_all_packages_import_with_all_extras(with_all_extras: Environment) -> None:
    names = ", ".join(f"cleanclose.{package}" for package in PACKAGES)
    printed = with_all_extras.run_code(f"import {names}\nprint(cleanclose.core.__file__)\n")
    assert Path(printed.strip()).is_relative_to(with_all_extras.folder)


@pytest.mark.parametrize("extra", ALONE)
def test_each_extra_is_enough_by_itself(extra: str, built: dict[str, Path], tmp_path: Path) -> None:
    environment = Environment(folder=tmp_path)
    venv.create(environment.folder, with_pip=False)
    environment.install(f"{built['wheel']}[{extra}]")
    names = ", ".join(f"cleanclose.{module}" for module in ALONE[extra])
    printed = environment.run_code(f"import {names}\nprint(cleanclose.core.__file__)\n")
    assert Path(printed.strip()).is_relative_to(environment.folder)


def test_core_imports_no_framework(with_all_extras: Environment) -> None:
    # Here every framework could be imported, so that their absence proves something.
    frameworks = {name for names in EXTRA_MODULES.values() for name in names}
    printed = with_all_extras.run_code(
        "import sys\n"
        "before = set(sys.modules)\n"
        "import cleanclose.core\n"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})\n"
    )
    loaded = set(printed.split())
    assert "cleanclose" in loaded
    assert loaded.isdisjoint(frameworks)
