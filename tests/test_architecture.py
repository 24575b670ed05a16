"""The rules of the house, read from the source: who imports whom, and what importing does."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gradflow"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
SOURCES = [*MODULES.values(), *sorted((ROOT / "experiments").rglob("*.py"))]

# A part of the package may import the parts named beside it, and itself. What nothing is said
# about has no place in the house yet: give it one here.
FOUNDATION = {"cell", "checks", "paths", "spec"}
RUNNING = FOUNDATION | {"cells", "initializers", "unroll"}
MAY_IMPORT = {
    "spec": {"checks"},
    "locks": set(),
    "cores": set(),
    "processes": set(),
    "cell": {"checks"},
    "paths": set(),
    "numerics": set(),
    "checks": set(),
    "devices": {"numerics"},
    "statistics": set(),
    "padding": {"cell"},
    "initializers": FOUNDATION | {"numerics"},
    "cells": FOUNDATION | {"initializers"},
    "presets": FOUNDATION | {"cells", "initializers"},
    "unroll": FOUNDATION | {"numerics", "padding"},
    "structure": FOUNDATION,
    "testing": FOUNDATION | {"structure"},
    "data": {"checks", "paths", "spec"},
    "tasks": FOUNDATION | {"data"},
    "study": {"cores", "locks", "paths", "processes", "spec", "statistics"},
    "flow": RUNNING | {"devices", "numerics", "padding", "statistics"},
    "interop": RUNNING,
    "models": RUNNING,
    "train": RUNNING | {"devices", "flow", "locks", "numerics", "processes", "tasks"},
    "report": RUNNING | {"devices", "flow", "interop", "statistics", "study", "tasks", "train"},
    "__main__": {"cells", "flow", "report", "spec", "study"},
    "gradflow": FOUNDATION
    | {"flow", "interop", "report", "unroll"},  # what the package itself re-exports
}


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else module


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """The full names of all that a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "import_module":
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return frozenset(names)


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
    assert own_imports(MODULES["gradflow.cells.lstm"]) == {
        "cell",
        "cells",
        "checks",
        "initializers",
    }
    assert own_imports(MODULES["gradflow"]) == {"cell", "flow", "interop", "report", "unroll"}
    assert "cells" in importers("jax") and "tasks" in importers("sklearn")


def test_dependencies_point_one_way():
    parts = {module: part_of(module) for module in MODULES}
    unknown = set(parts.values()) - set(MAY_IMPORT)
    assert not unknown, f"Add to MAY_IMPORT what these parts may import: {unknown}"
    offending = {
        module: own_imports(path) - MAY_IMPORT[parts[module]] - {parts[module]}
        for module, path in MODULES.items()
    }
    assert {module: names for module, names in offending.items() if names} == {}


def test_the_page_on_the_architecture_names_every_part():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert {part for part in MAY_IMPORT if f"`{part}`" not in page} == set()


def test_no_part_depends_on_itself_through_others():
    order = list(TopologicalSorter(MAY_IMPORT).static_order())  # raises on a cycle
    assert order.index("cell") < order.index("unroll") < order.index("flow") < order.index("train")


def experiment_modules() -> dict[str, Path]:
    """The modules of the studies by the names that they import each other by."""
    folder = ROOT / "experiments"
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        # A paper is a script whose folder is the one that is imported from.
        found[".".join(parts[1:] if parts[0] == "papers" else parts)] = path
    return found


def test_the_studies_import_each_other_in_no_circle():
    modules = experiment_modules()
    graph = {
        name: {
            module
            for imported_name in imported(path)
            for module in (imported_name, imported_name.rpartition(".")[0])
            if module in modules and module != name
        }
        for name, path in modules.items()
    }
    assert graph["char_lm.study"] >= {"_kit.probes", "char_lm.config", "char_lm.training"}
    list(TopologicalSorter(graph).static_order())  # raises on a circle


def test_updates_are_made_by_the_library_alone():
    for path in SOURCES:
        if PACKAGE / "train" not in path.parents:
            assert "apply_updates" not in path.read_text(encoding="utf-8"), path


def test_only_those_who_need_a_library_import_it():
    assert importers("matplotlib") <= {"study", "report", "experiments"}
    assert importers("xarray") <= {"flow", "study", "report", "experiments"}
    assert importers("h5netcdf", "absl") <= {"study", "report", "experiments"}
    assert importers("tqdm") <= {"study", "flow"}
    assert importers("flax") <= {"interop", "models", "train", "experiments"}
    assert importers("optax") <= {"train", "experiments"}
    assert importers("sklearn", "statsmodels") <= {"tasks", "experiments"}
    assert importers("tokenizers") <= {"data"}
    assert importers("safetensors") <= {"interop"}
    assert importers("h5py") <= {"study", "interop"}
    assert importers("submitit") == {"study"}
    assert importers("plotly", "jinja2") <= {"report"}
    # Foreign frameworks are imported where a model of theirs is read or watched, and nowhere else.
    assert importers("torch", "keras", "haiku", "equinox", "onnx", "onnxruntime") <= {
        "interop",
        "report",
    }
    assert importers("torch") == {"interop", "report"}
    assert importers("tensorflow", "pandas") == set()


def test_flax_cells_are_for_interop_alone():
    for path in SOURCES:
        if PACKAGE / "interop" in path.parents or "flax" not in path.read_text(encoding="utf-8"):
            continue
        nodes = list(ast.walk(parsed(path)))
        used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        used |= {name.split(".")[-1] for name in imported(path) if name.startswith("flax")}
        assert not {name for name in used if name.endswith("Cell") or name == "RNN"}, path


FOREIGN = ("jax", "jaxlib", "flax", "optax", "numpy", "xarray")


def is_private(name: str) -> bool:
    """Whether a dotted name is not part of a library's public interface."""
    if name.startswith(("jax.core", "jax.interpreters", "jax.experimental.host")):
        return True
    parts = [part for part in name.split(".")[1:] if part != "_replace"]  # of a NamedTuple
    private = [part for part in parts if part.startswith("_")]
    return name.split(".")[0] in FOREIGN and bool(private) and not private[0].startswith("__")


def test_only_public_interfaces_are_used():
    assert is_private("jax._src.core") and not is_private("jax.lax.scan")
    offending = set()
    for path in SOURCES:
        nodes = ast.walk(parsed(path))
        dotted = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
        offending |= {(str(path), name) for name in {*imported(path), *dotted} if is_private(name)}
    assert offending == set()


def public_definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """The public functions, classes and methods of a module, by name."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body, f"{node.name}.")


def test_public_definitions_have_docstrings_and_return_annotations():
    offending = []
    for module, path in MODULES.items():
        tree = parsed(path)
        if not ast.get_docstring(tree):
            offending.append(f"{module} has no docstring")
        for name, node in public_definitions(tree.body):
            if not ast.get_docstring(node):
                offending.append(f"{module}.{name} has no docstring")
            if isinstance(node, ast.FunctionDef) and node.returns is None:
                offending.append(f"{module}.{name} has no return annotation")
    assert offending == []


def body_lines(node: ast.FunctionDef) -> int:
    """Lines of a function below its docstring."""
    has_docstring = ast.get_docstring(node) is not None
    first = node.body[1] if has_docstring and len(node.body) > 1 else node.body[0]
    return node.end_lineno - first.lineno


def test_modules_and_functions_are_short():
    offending = []
    for module, path in MODULES.items():
        if len(path.read_text(encoding="utf-8").splitlines()) > 220:
            offending.append(f"{module} is too long")
        functions = (node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef))
        offending += [f"{module}.{f.name} is too long" for f in functions if body_lines(f) >= 45]
    assert offending == []


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
