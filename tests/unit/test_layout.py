"""The house rules that no linter knows: roots, arrows, pins, and what may be committed."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from pathlib import Path

import pytest

import cleanclose.core
from tests.harness.paths import ROOT

MIDDLEWARE = ROOT / "middleware" / "cleanclose"
INTEGRATIONS = ROOT / "integrations" / "cleanclose"
SHIMS = ("asgi", "tornado", "wsgi")
ARROWS: dict[str, tuple[str, ...]] = {
    "core": (),
    "servers": ("core",),
    "linger": ("core",),
    "loops": (),
    "stop": ("core", "servers"),
    "surge": ("core",),
    "quiet": ("core", "servers"),
    **dict.fromkeys(SHIMS, ("core", "servers", "linger", "loops", "stop", "surge", "quiet")),
    "testing": ("core",),
    "doctor": ("core", "servers", "testing", *SHIMS),
    "integrations": ("core",),
}
"""Each package, and which others it may import."""
PACKAGES = {
    name: (INTEGRATIONS if name == "integrations" else MIDDLEWARE) / name for name in ARROWS
}
OLD_NAMES = {("integrations/cleanclose/integrations/stdlib.py", "cleanclose.quiet")}
"""Where old names stand for those of a package that may not be imported there otherwise."""

MOST_OF_A_FILE = 550
MOST_OF_A_FUNCTION = 50
"""Lines."""


@functools.cache
def imported_modules(path: Path, package: str) -> frozenset[str]:
    """Name every module that a file imports, also inside functions, in absolute form."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            found.add(base)
            # `from cleanclose import core` names the module in the alias only.
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return frozenset(found)


def package_imports(name: str) -> dict[str, frozenset[str]]:
    """Map each file of a package to the modules that it imports."""
    folder = PACKAGES[name]
    imports: dict[str, frozenset[str]] = {}
    for path in sorted(folder.rglob("*.py")):
        inner = path.relative_to(folder).parent.parts
        package = ".".join(("cleanclose", name, *inner))
        imports[str(path.relative_to(ROOT))] = imported_modules(path, package)
    return imports


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines)


def test_namespace_has_no_init_file() -> None:
    for root in (MIDDLEWARE, INTEGRATIONS):
        assert not list(root.glob("__init__.py*")), (
            f"{root} must stay a PEP 420 namespace, or one root hides the other"
        )


@pytest.mark.parametrize("name", PACKAGES)
def test_package_is_regular_and_typed(name: str) -> None:
    assert (PACKAGES[name] / "__init__.py").is_file()
    assert (PACKAGES[name] / "py.typed").is_file()


def test_every_package_is_known_here() -> None:
    found = {
        path.name
        for root in (MIDDLEWARE, INTEGRATIONS)
        for path in root.iterdir()
        if path.is_dir() and path.name != "__pycache__"
    }
    assert found == set(PACKAGES)


def test_core_and_its_rooms_import_only_the_standard_library() -> None:
    for name in ("core", "servers", "stop", "surge", "quiet"):
        for path, modules in package_imports(name).items():
            foreign = {
                module
                for module in modules
                if module.split(".")[0] not in sys.stdlib_module_names | {"cleanclose"}
            }
            assert not foreign, f"{path} imports {sorted(foreign)}"


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_import_each_other_along_the_arrows(name: str) -> None:
    allowed = [f"cleanclose.{package}" for package in (name, *ARROWS[name])]
    for path, modules in package_imports(name).items():
        wrong = {
            module
            for module in modules
            if is_in(module, "cleanclose")
            and module != "cleanclose"
            and not any(is_in(module, package) for package in allowed)
            and not any(path == old and is_in(module, new) for old, new in OLD_NAMES)
        }
        assert not wrong, f"{path} imports {sorted(wrong)}"


def test_our_outlets_need_nothing_of_the_core_but_its_front_door() -> None:
    """So what they are made of is there for everybody's."""
    public = {"cleanclose.core", *(f"cleanclose.core.{name}" for name in cleanclose.core.__all__)}
    for path, modules in package_imports("integrations").items():
        wrong = {module for module in modules if is_in(module, "cleanclose.core")} - public
        assert not wrong, f"{path} imports {sorted(wrong)}"


def product_files() -> dict[str, str]:
    return {
        str(path.relative_to(ROOT)): path.read_text("utf-8")
        for folder in PACKAGES.values()
        for path in sorted(folder.rglob("*.py"))
    }


def long_functions(text: str) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= MOST_OF_A_FUNCTION
    }


def test_no_file_of_the_product_is_too_long_to_be_read_at_once() -> None:
    long = {
        path for path, text in product_files().items() if len(text.splitlines()) > MOST_OF_A_FILE
    }
    assert not long


def test_no_function_of_the_product_is_longer_than_a_screen() -> None:
    long = {
        path: found for path, text in product_files().items() if (found := long_functions(text))
    }
    assert not long


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-lowest.txt"])
def test_constraints_are_plain_pins(name: str) -> None:
    lines = (ROOT / name).read_text("utf-8").splitlines()
    assert lines == sorted(set(lines))
    odd = [line for line in lines if not re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9a-z.]*", line)]
    assert not odd


def test_lowest_constraints_are_the_declared_lower_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    lowest = pins("constraints-lowest.txt")
    for requirement in declared:
        if requirement.startswith("cleanclose["):
            continue
        parts = re.fullmatch(r"([a-z0-9-]+)>=([0-9.]+)(?:; .*)?", requirement)
        assert parts, f"{requirement} has no lower bound that can be tested"
        name, bound = parts.groups()
        # A bound of 24.1 is tested with 24.1.0.
        assert re.sub(r"(\.0)+$", "", lowest[name]) == re.sub(r"(\.0)+$", "", bound), requirement


def test_both_constraint_files_pin_the_same_test_tools() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    newest, lowest = pins("constraints.txt"), pins("constraints-lowest.txt")
    # The SDK has one version for each of the API.
    project_needs = {"anyio", "opentelemetry-sdk"}
    for requirement in groups["test"]:
        name = re.split(r"[>\[;]", requirement)[0]
        if name not in project_needs:
            assert lowest[name] == newest[name], name


def test_no_test_module_imports_another() -> None:
    """What two of them need is in tests/harness."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        wrong = {
            module
            for module in imported_modules(path, "tests")
            if re.search(r"^tests\.(unit|promises|tools|conftest)\b|\.test_|\.conftest\b", module)
        }
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_what_users_copy_imports_no_test() -> None:
    for path in sorted((ROOT / "example_apps").rglob("*.py")):
        wrong = [
            module for module in imported_modules(path, "example_apps") if is_in(module, "tests")
        ]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_every_test_has_one_of_three_places() -> None:
    """A test is a unit's, a promise's or a tool's; nothing lies beside these."""
    folders = {"unit", "promises", "tools"}
    beside = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if path.relative_to(ROOT).parts[1] not in folders
    ]
    assert not beside


def test_the_readme_of_the_tests_names_each_part_of_the_harness() -> None:
    words = (ROOT / "tests" / "README.md").read_text("utf-8")
    parts = {path.stem for path in (ROOT / "tests" / "harness").glob("*.py")} - {"__init__"}

    assert parts
    assert {part for part in parts if f"`{part}`" not in words} == set()
