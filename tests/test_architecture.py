"""The rules of the house, read from the source: who imports whom, and what importing does."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gradflow"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
SOURCES = [*MODULES.values(), *sorted((ROOT / "experiments").rglob("*.py"))]

# A part of the package may import the parts named beside it, and itself. What nothing is said
# about has no place in the house yet: give it one here.
FOUNDATION = {"cell", "spec"}
RUNNING = FOUNDATION | {"cells", "initializers", "unroll"}
MAY_IMPORT = {
    "spec": set(),
    "cell": set(),
    "lapack": set(),
    "statistics": set(),
    "jaxprs": set(),
    "padding": {"cell"},
    "initializers": FOUNDATION | {"lapack"},
    "cells": FOUNDATION | {"initializers"},
    "presets": FOUNDATION | {"cells", "initializers"},
    "planner": {"cell", "jaxprs"},
    "unroll": FOUNDATION | {"padding", "planner"},
    "parallel": FOUNDATION | {"unroll"},
    "structure": FOUNDATION,
    "testing": FOUNDATION | {"structure"},
    "data": {"spec"},
    "tasks": FOUNDATION | {"data"},
    "study": {"spec", "statistics"},
    "flow": RUNNING | {"jaxprs", "lapack", "padding", "statistics"},
    "interop": RUNNING,
    "models": RUNNING,
    "train": RUNNING | {"flow", "jaxprs", "lapack", "tasks"},
    "gradflow": FOUNDATION | {"unroll"},  # what the package itself re-exports
}


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def imported(path: Path) -> Iterator[str]:
    """The full names of all that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(*packages: str) -> set[str]:
    """The files that import any of the packages, by their first part: cells, study, ..."""
    return {
        part_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        if PACKAGE in path.parents
        else "experiments"
        for path in SOURCES
        if any(name == p or name.startswith(f"{p}.") for name in imported(path) for p in packages)
    }


def own_imports(path: Path) -> set[str]:
    """The parts of gradflow that a file imports."""
    names = (name for name in imported(path) if name.split(".")[0] == "gradflow")
    return {
        part if part in MAY_IMPORT or name in MODULES else "gradflow"
        for name in names
        for part in [part_of(name)]
    }


def test_the_sources_are_found():
    assert {"gradflow", "gradflow.cell", "gradflow.cells.lstm", "gradflow.testing"} <= set(MODULES)
    assert own_imports(MODULES["gradflow.cells.lstm"]) == {"cell", "cells", "initializers"}
    assert own_imports(MODULES["gradflow"]) == {"cell", "unroll"}
    assert "cells" in importers("jax") and "tasks" in importers("sklearn")


@pytest.mark.parametrize("module", MODULES)
def test_dependencies_point_one_way(module):
    part = part_of(module)
    assert part in MAY_IMPORT, f"say in MAY_IMPORT what gradflow.{part} may import"
    assert own_imports(MODULES[module]) <= MAY_IMPORT[part] | {part}


def test_no_part_depends_on_itself_through_others():
    order = list(TopologicalSorter(MAY_IMPORT).static_order())  # raises on a cycle
    assert order.index("cell") < order.index("unroll") < order.index("flow") < order.index("train")


def test_only_those_who_need_a_library_import_it():
    assert importers("matplotlib") <= {"study", "experiments"}
    assert importers("xarray", "h5netcdf", "tqdm", "absl") <= {"study", "experiments"}
    assert importers("flax") <= {"interop", "models", "train", "experiments"}
    assert importers("optax") <= {"train", "experiments"}
    assert importers("sklearn", "statsmodels") <= {"tasks", "experiments"}
    assert importers("tokenizers") <= {"data"}
    assert importers("safetensors") <= {"interop"}
    assert importers("torch", "tensorflow", "keras", "haiku", "equinox", "pandas") == set()


def test_flax_cells_are_for_interop_alone():
    for path in SOURCES:
        if PACKAGE / "interop" in path.parents or "flax" not in path.read_text(encoding="utf-8"):
            continue
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        used |= {name.split(".")[-1] for name in imported(path) if name.startswith("flax")}
        assert not {name for name in used if name.endswith("Cell") or name == "RNN"}, path


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_public_interfaces_are_used(path):
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    dotted = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
    for name in {*imported(path), *dotted}:
        assert not name.startswith(("jax.core", "jax.interpreters", "jax.experimental.host")), name
        parts = [part for part in name.split(".")[1:] if part != "_replace"]  # of a NamedTuple
        private = [part for part in parts if part.startswith("_")]
        foreign = name.split(".")[0] in ("jax", "jaxlib", "flax", "optax", "numpy", "xarray")
        assert not (foreign and private and not private[0].startswith("__")), name


def public_definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """The public functions, classes and methods of a module, by name."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body, f"{node.name}.")


@pytest.mark.parametrize("module", MODULES)
def test_what_is_public_says_what_it_is_and_returns(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has no docstring"
    for name, node in public_definitions(tree.body):
        assert ast.get_docstring(node), f"{name} has no docstring"
        if isinstance(node, ast.FunctionDef):
            assert node.returns is not None, f"{name} has no return annotation"


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_functions_are_short(module):
    source = MODULES[module].read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 220
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            has_docstring = ast.get_docstring(node) is not None
            first = node.body[1] if has_docstring and len(node.body) > 1 else node.body[0]
            assert node.end_lineno - first.lineno < 45, f"{node.name} is too long"


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_everything_changes_nothing():
    assert run_python(
        f"""
import importlib, os, warnings, jax
before = dict(jax.config.values), dict(os.environ), list(warnings.filters)
for name in {list(MODULES)}:
    importlib.import_module(name)
after = dict(jax.config.values), dict(os.environ), list(warnings.filters)
changed = [{{k for k in a if a[k] != b.get(k)}} for a, b in zip(before[:2], after[:2])]
print(changed, len(after[2]) - len(before[2]), before[0] != {{}})
"""
    ).split() == ["[set(),", "set()]", "0", "True"]


def test_importing_is_cheap():
    heavy = {"matplotlib", "xarray", "sklearn", "h5netcdf", "pandas", "tqdm", "flax", "optax"}
    code = "import sys, gradflow, gradflow.cells, gradflow.tasks, gradflow.testing; "
    assert run_python(code + f"print({heavy} & set(sys.modules))") == "set()\n"
