"""The ledger of all papers: what came of every claim, with what code and at what size.

::

    {"pascanu2013": {"citation": ..., "size": "default", "code": "1f0c...", "seconds": ...,
                     "device": ..., "command": ..., "figures": [...], "traps": [...],
                     "versions": {...},
                     "claims": [{"id": "fig6-wall", ..., "verdict": "reproduced"}, ...]}}
"""

import ast
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from _claims import Claim

from gradflow.study.store import write_json

Entry = dict[str, Any]
Ledger = dict[str, Entry]

VERDICTS = "_claims"
"""The module that decides verdicts: it computes nothing that is measured."""

SIZES = ("quick", "default", "full")
"""How large a run is, from the smallest."""


def read(path: Path) -> Ledger:
    """The ledger in a file; an empty one if there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(path: Path, ledger: Ledger) -> None:
    """Writes the ledger at once, the papers in the order of their names."""
    write_json(path, dict(sorted(ledger.items())))


def claims_of(entry: Entry) -> list[Claim]:
    """The claims of an entry."""
    return [Claim(**claim) for claim in entry["claims"]]


def plain_claims(claims: Iterable[Claim]) -> list[dict[str, Any]]:
    """The claims as they are written."""
    return [dataclasses.asdict(claim) for claim in claims]


def code_digest(path: Path) -> str:
    """Eight digits for what a file computes: its lines without docstrings, comments and blanks.

    Those of the modules beside it that it imports count as well, and of what these import.
    """
    code = [
        line for each in _with_imports(path, []) for line in _code_lines(each.read_text("utf-8"))
    ]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()[:8]


def _with_imports(path: Path, found: list[Path]) -> list[Path]:
    if path in found:
        return found
    found = [*found, path]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        beside = path.parent / f"{node.module}.py" if isinstance(node, ast.ImportFrom) else path
        if beside.exists() and beside.stem != VERDICTS:
            found = _with_imports(beside, found)
    return found


def _code_lines(source: str) -> list[str]:
    words = {line for node in ast.walk(ast.parse(source)) for line in _docstring_lines(node)}
    lines = enumerate(source.splitlines(), start=1)
    code = [line for number, line in lines if number not in words and line.strip()]
    return [line for line in code if not line.lstrip().startswith("#")]


def _docstring_lines(node: ast.AST) -> Iterable[int]:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
        return ()
    first = node.body[0] if node.body else None
    if not (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)):
        return ()
    return range(first.lineno, (first.end_lineno or first.lineno) + 1)


def regressions(before: Entry | None, claims: Sequence[Claim], size: str) -> list[str]:
    """The claims that were reproduced and no longer are, one line each.

    A run smaller than the one on record answers only for the claims that hold at every size. A
    claim that has gone counts as well, in a run of the same size or a larger one.
    """
    if before is None:
        return []
    smaller = SIZES.index(size) < SIZES.index(before["size"])
    now = {claim.id: claim for claim in claims}
    lines = []
    for old in claims_of(before):
        if old.verdict != "reproduced" or (smaller and not old.exact):
            continue
        new = now.get(old.id)
        if new is None:
            lines.append(f"{old.id} was reproduced and is no longer measured")
        elif new.verdict != "reproduced":
            lines.append(f"{old.id} was reproduced and is not any more: {new.reason}")
    return lines


def replaces(before: Entry | None, code: str, size: str) -> bool:
    """Whether a run's entry goes into the ledger: not a quick one, and none over a larger one.

    What other code measured counts for nothing.
    """
    if size == "quick":
        return False
    if before is None or before["code"] != code:
        return True
    return SIZES.index(size) >= SIZES.index(before["size"])


def inconsistencies(ledger: Mapping[str, Entry], folder: Path) -> list[str]:
    """What is wrong with a ledger, one line each, against the papers' files in a folder."""
    lines = []
    for name, entry in ledger.items():
        path = folder / f"{name}.py"
        if not path.exists():
            lines.append(f"{name} has an entry and no file")
        elif code_digest(path) != entry["code"]:
            lines.append(f"{name} was measured by other code than is in its file: run it again")
        ids = [claim["id"] for claim in entry["claims"]]
        lines += [f"{name} has {id} twice" for id in sorted({i for i in ids if ids.count(i) > 1})]
        for claim in claims_of(entry):
            if not claim.measured or not claim.reason:
                lines.append(f"{name} has a verdict on {claim.id} without a measured value")
            if claim.figure not in entry["figures"]:
                lines.append(f"{name} has a claim on {claim.figure} and no such figure")
    return lines
