"""A digest of the code that a paper's measurement depends on.

It covers the definitions that the paper's ``run``, ``config`` and ``claims`` reach, in its own
file and in all modules of this project, and nothing else of these modules. A wrong `log_norms`
changes the digest of the papers that measure norms; a change of a figure changes none.
"""

import ast
import copy
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORDED = "gradflow.study"
"""The package that records, draws and prints, and computes nothing that is measured."""


@dataclass(frozen=True, eq=False)
class Module:
    """A parsed file: its definitions by name, and what its imported names stand for."""

    name: str
    definitions: dict[str, list[ast.stmt]]
    imports: dict[str, str]


def code_digest(path: Path) -> str:
    """Eight digits for what a paper's file computes, down to this project's last module."""
    code = sorted(reached(path).items())
    return hashlib.sha256(repr(code).encode()).hexdigest()[:8]


def reached(path: Path) -> dict[str, str]:
    """The code of every definition that the measurement depends on, by its full name.

    Docstrings, annotations, help texts and error messages are left out. So are the texts in what
    only the claims reach: a change of words measures the same.
    """
    module = _parse(path, path.stem)
    parts = _parts(module)
    measured = _follow(module, [parts[part] for part in ("run", "config") if part in parts])
    claimed = _follow(module, [parts["claims"]] if "claims" in parts else [])
    code = {f"{at.name}.{name}": _code(at, name, False) for at, name in claimed}
    return {**code, **{f"{at.name}.{name}": _code(at, name, True) for at, name in measured}}


def _parts(module: Module) -> dict[str, ast.expr]:
    """What the experiment of a module is made of, by keyword."""
    for node in module.definitions.get("EXPERIMENT", []):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            return {part.arg: part.value for part in node.value.keywords if part.arg}
    raise ValueError(
        f"Expected EXPERIMENT = Paper(...) in {module.name}.py, found none. Define it there."
    )


def _follow(module: Module, starts: Iterable[ast.expr]) -> set[tuple[Module, str]]:
    found: set[tuple[Module, str]] = set()
    waiting = [(module, name) for start in starts for name in _names(start)]
    while waiting:
        module, dotted = waiting.pop()
        first, _, rest = dotted.partition(".")
        if first in module.imports:
            full = ".".join(filter(None, [module.imports[first], rest]))
            waiting += [place] if (place := _locate(full)) else []
        elif first in module.definitions and (module, first) not in found:
            found.add((module, first))
            waiting += [(module, name) for name in _used(module, first)]
    return found


@cache
def _used(module: Module, name: str) -> tuple[str, ...]:
    return tuple({used for node in module.definitions[name] for used in _names(node)})


@cache
def _code(module: Module, name: str, texts: bool) -> str:
    nodes = module.definitions[name]
    if not texts:
        nodes = [_WithoutTexts().visit(copy.deepcopy(node)) for node in nodes]
    return "\n".join(map(ast.unparse, nodes))


def _locate(full: str) -> tuple[Module, str] | None:
    """The module of this project that a full name leads to, and the name in it."""
    if f"{full}.".startswith(f"{RECORDED}."):
        return None
    parts = full.split(".")
    for length in range(len(parts) - 1, 0, -1):
        if path := _find(".".join(parts[:length])):
            return _parse(path, ".".join(parts[:length])), ".".join(parts[length:])
    return None


@cache
def _find(name: str) -> Path | None:
    for folder in (ROOT, ROOT / "experiments", ROOT / "experiments" / "papers"):
        stem = folder.joinpath(*name.split("."))
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.is_file():
                return path
    return None


def _parse(path: Path, name: str) -> Module:
    return _parse_version(path, name, path.stat().st_mtime_ns)


@cache
def _parse_version(path: Path, name: str, modified: int) -> Module:
    del modified  # a file that was written again is parsed again
    tree = ast.parse(path.read_text(encoding="utf-8"))
    _WithoutWords().visit(tree)  # changes it in place
    module = Module(name, {}, {})
    for node in tree.body:
        for defined in _defined(node):
            module.definitions.setdefault(defined, []).append(node)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                full = alias.name if alias.asname else alias.name.partition(".")[0]
                module.imports[alias.asname or full] = full
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module.imports[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return module


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))


def _names(node: ast.AST) -> Iterator[str]:
    """The names and dotted names that a node uses."""
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute) and (dotted := _dotted(node)):
        yield dotted
    else:
        for child in ast.iter_child_nodes(node):
            yield from _names(child)


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    inner = _dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{inner}.{node.attr}" if inner and isinstance(node, ast.Attribute) else ""


class _WithoutWords(ast.NodeTransformer):
    """Removes docstrings, annotations, help texts and error messages."""

    def visit(self, node: ast.AST) -> ast.AST | None:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.Raise):
            return ast.Raise()
        if isinstance(node, ast.keyword) and node.arg == "help":
            return None
        return self.generic_visit(node)


class _WithoutTexts(ast.NodeTransformer):
    """Empties every text."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant("") if isinstance(node.value, str) else node
