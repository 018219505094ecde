"""Change the core in one place at a time, and see whether a unit test notices: ``make mutants``.

A place that can be changed without any test failing is either not tested or does not matter. The
program prints each of them with its line.

Theory of operation. pytest and everything that the tests import but the module under change is
imported once; each mutant gets a fork of that, in which an import hook compiles the changed
syntax tree in place of the file. So nothing is written, and a mutant costs little more than its
tests.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, cast

from tests.harness.paths import ROOT

_CORE: Final = ROOT / "middleware" / "cleanclose" / "core"
_UNIT: Final = "tests/unit/core"

TESTS: Final[Mapping[str, tuple[str, ...]]] = {
    "deliver.table": (f"{_UNIT}/deliver/test_exchange.py",),
    "deliver.linger": (f"{_UNIT}/deliver/test_linger.py",),
    "deliver.patience": (
        f"{_UNIT}/deliver/test_patience.py",
        f"{_UNIT}/deliver/test_exchange.py",
    ),
    "deliver.early": (f"{_UNIT}/deliver/test_early.py", "tests/unit/asgi"),
    "deliver.framing": (f"{_UNIT}/deliver/test_framing.py", f"{_UNIT}/deliver/test_exchange.py"),
    "conduct": (f"{_UNIT}/test_conduct.py", "tests/unit/asgi", "tests/unit/wsgi"),
    "levels": (f"{_UNIT}/test_levels.py",),
    "blame.calls": (f"{_UNIT}/blame/test_calls.py", "tests/unit/asgi"),
    "blame.websockets": (f"{_UNIT}/blame/test_websockets.py",),
    "blame.blocking": (f"{_UNIT}/blame/test_blocking.py", "tests/unit/wsgi"),
    "blame.closing": (f"{_UNIT}/blame/test_closing.py", "tests/unit/tornado"),
    "deliver.draining": (f"{_UNIT}/deliver/test_draining.py",),
    "deliver.pieces": (f"{_UNIT}/deliver/test_pieces.py",),
    "deliver.limit": (f"{_UNIT}/deliver/test_limit.py",),
    "setup": (f"{_UNIT}/test_setup.py", "tests/unit/asgi/test_middleware.py"),
    "stop.waiting": (f"{_UNIT}/stop", "tests/unit/asgi/test_stop.py"),
    "blame.judge": (f"{_UNIT}/blame", "tests/unit/asgi", "tests/unit/wsgi"),
}
"""Modules of the core, and the unit tests that are to notice a change of them, quick ones first."""

_COMPARED: Final[Mapping[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_COMPUTED: Final[Mapping[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_LIMIT: Final = 240.0
"""Seconds for one mutant's tests; one that needs more has been noticed: it loops."""
_NOTICED: Final = 1
_NO_TEST: Final = 70


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change."""

    line: int
    what: str
    tree: ast.Module


def mutants_of(source: str) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its syntax tree."""
    tree = ast.parse(source)
    skipped = _skipped(tree)
    for place, node in enumerate(ast.walk(tree)):
        if node in skipped:
            continue
        for number, (what, _) in enumerate(_changes(node)):
            changed = copy.deepcopy(tree)
            target = list(ast.walk(changed))[place]
            _replace(changed, target, list(_changes(target))[number][1])
            yield Mutant(
                _line(node),
                f"{what}: {ast.unparse(node)[:70]}",
                ast.fix_missing_locations(changed),
            )


def _line(node: ast.AST) -> int:
    if isinstance(node, ast.match_case):
        return node.pattern.lineno
    line: int = getattr(node, "lineno", 0)
    return line


def _skipped(tree: ast.Module) -> set[ast.AST]:
    """What says nothing when it runs: annotations, docstrings, lists of names, enum values."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        match node:
            case ast.AnnAssign():
                parts = [node.annotation]
            case ast.arg():
                parts = [node.annotation]
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                parts = [node.returns, *node.decorator_list]
            case ast.ClassDef():
                parts = [*node.decorator_list]
            case ast.Expr(value=ast.Constant()):
                parts = [node]
            case ast.Assign(targets=[ast.Name(id="__all__" | "__slots__" | "__match_args__")]):
                parts = [node]
            case ast.Assign(targets=[ast.Name()], value=ast.BinOp(op=ast.BitOr())):
                # A type's alias.
                parts = [node]
            case ast.Import() | ast.ImportFrom():
                parts = [node]
            case _:
                pass
        for part in parts:
            if part is not None:
                found.update(ast.walk(part))
    return found


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST | None]]:
    """What a node can be replaced by, and what to call that; None takes it away."""
    match node:
        case ast.Compare(ops=[one]) if type(one) in _COMPARED:
            yield "compares otherwise", _with(node, ops=[_COMPARED[type(one)]()])
        case ast.BoolOp():
            other: ast.boolop = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield "and for or", _with(node, op=other)
            for left_out in range(len(node.values)):
                values = [each for place, each in enumerate(node.values) if place != left_out]
                yield "a condition less", _with(node, values=values) if values[1:] else values[0]
        case ast.UnaryOp(op=ast.Not()):
            yield "no not", node.operand
        case ast.BinOp() if type(node.op) in _COMPUTED:
            yield "computes otherwise", _with(node, op=_COMPUTED[type(node.op)]())
        case ast.AugAssign() if type(node.op) in _COMPUTED:
            yield "computes otherwise", _with(node, op=_COMPUTED[type(node.op)]())
        case ast.Constant(value=bool() as flag):
            yield "the other truth", ast.Constant(not flag)
        case ast.Constant(value=int() | float() as number):
            yield "another number", ast.Constant(number + 1)
        case ast.If() | ast.IfExp() | ast.While():
            yield "if not", _with(node, test=ast.UnaryOp(ast.Not(), node.test))
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            yield "returns None", ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call() | ast.Await()):
            yield "not called", ast.Pass()
        case ast.Assign(targets=[ast.Attribute()]) | ast.AugAssign():
            yield "not set", ast.Pass()
        case ast.match_case(pattern=pattern, guard=guard):
            if guard is not None:
                yield "no guard", _with(node, guard=None)
            if not (isinstance(pattern, ast.MatchAs) and pattern.pattern is None):
                yield "never the case", _with(node, guard=ast.Constant(False))
        case ast.Dict(keys=keys) if len(keys) > 1:
            for left_out in range(len(keys)):
                kept = [place for place in range(len(keys)) if place != left_out]
                yield (
                    f"no row {_row(keys[left_out])}",
                    _with(
                        node,
                        keys=[keys[place] for place in kept],
                        values=[node.values[place] for place in kept],
                    ),
                )
        case ast.Set(elts=elements) if len(elements) > 1:
            for left_out, element in enumerate(elements):
                rest = [each for place, each in enumerate(elements) if place != left_out]
                yield f"no {ast.unparse(element)}", _with(node, elts=rest)
        case _:
            return


def _row(key: ast.expr | None) -> str:
    return "**" if key is None else ast.unparse(key)


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def _with(node: Any, **fields: object) -> Any:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _replace(tree: ast.AST, target: ast.AST, other: ast.AST | None) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is target:
                setattr(parent, name, other)
                return
            nodes = cast("list[object]", value) if isinstance(value, list) else []
            if any(each is target for each in nodes):
                setattr(parent, name, [other if each is target else each for each in nodes])
                return
    raise AssertionError("the node is not in its tree")


class _Instead(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives the changed module to whoever imports it."""

    def __init__(self, name: str, path: str, tree: ast.Module) -> None:
        self.name = name
        self.path = path
        self.tree = tree

    def find_spec(
        self, fullname: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.tree, self.path, "exec"), vars(module))


def _outcome(module: str, mutant: Mutant, tests: Sequence[str]) -> int:
    """Run the tests against a mutant in a fork; 0 if none of them has noticed it."""
    child = os.fork()
    if child == 0:
        try:
            _run(module, mutant, tests)
        finally:
            # Something in the import has failed: the change has been noticed.
            os._exit(_NOTICED)
    deadline = time.monotonic() + _LIMIT
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return abs(os.waitstatus_to_exitcode(status))
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return _NOTICED


def _run(module: str, mutant: Mutant, tests: Sequence[str]) -> None:
    os.setpgid(0, 0)
    quiet = os.open(os.devnull, os.O_RDWR)
    for number in (1, 2):
        os.dup2(quiet, number)
    name = f"cleanclose.core.{module}"
    path = str(_CORE.joinpath(*module.split(".")).with_suffix(".py"))
    sys.meta_path.insert(0, _Instead(name, path, mutant.tree))
    import pytest

    options = (
        "-x",
        "-q",
        "--assert=plain",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-m",
        "not full",
    )
    code = int(pytest.main([*options, *tests]))
    os._exit(_NO_TEST if code in (4, 5) else code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print which mutants live; 1 if there are any.

    Args:
        arguments: The command line.
    """
    parser = argparse.ArgumentParser(prog="tests.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=", ".join(TESTS))
    parser.add_argument("--line", type=int, help="only the mutants of this line")
    options = parser.parse_args(arguments)
    os.environ.setdefault("CLEANCLOSE_EXAMPLES", "20")
    # It takes long, and does not import the core.
    importlib.import_module("pytest")
    alive = 0
    for module in options.modules or TESTS:
        alive += _tried(module, options.line)
    return 1 if alive else 0


def _tried(module: str, line: int | None) -> int:
    source = _CORE.joinpath(*module.split(".")).with_suffix(".py").read_text("utf-8")
    alive = tried = 0
    unchanged = _outcome(module, Mutant(0, "", ast.parse(source)), TESTS[module])
    if unchanged:
        print(f"{module}: the tests fail without any change ({unchanged})", flush=True)
        return 1
    for mutant in mutants_of(source):
        if line is not None and mutant.line != line:
            continue
        tried += 1
        if _outcome(module, mutant, TESTS[module]) == 0:
            alive += 1
            print(f"{module}:{mutant.line}: {mutant.what}", flush=True)
    print(f"{module}: {tried - alive} of {tried} mutants noticed", flush=True)
    return alive


if __name__ == "__main__":
    sys.exit(main())
