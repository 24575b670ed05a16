"""The ledger of all papers: the verdict on every claim, by which code and at what size.

::

    {"pascanu2013": {"citation": ..., "title": ..., "size": "default", "code": "1f0c...",
                     "commit": "66e9ed9...", "seconds": ..., "device": ..., "command": ...,
                     "figures": [...], "traps": [...], "versions": {...},
                     "claims": [{"id": "fig6-wall", ..., "verdict": "reproduced"}, ...]}}
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _digest import code_digest

from gradflow import study
from gradflow.study import Claim
from gradflow.study.store import write_json

Entry = dict[str, Any]
Ledger = dict[str, Entry]

SIZES = ("quick", "default", "full")
"""How large a run is, from the smallest."""


def read(path: Path) -> Ledger:
    """Reads the ledger in a file; an empty one if there is no file.

    Raises:
      ValueError: If the file is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise ValueError(
            f"Expected the ledger in {path}, but it is damaged ({error}). Restore it with git "
            "checkout, or remove it and run all papers again."
        ) from None


def write(path: Path, ledger: Ledger) -> None:
    """Writes the ledger at once, the papers in the order of their names."""
    write_json(path, dict(sorted(ledger.items())))


def claims_of(entry: Entry) -> list[Claim]:
    """The claims of an entry."""
    return [study.from_record(claim) for claim in entry["claims"]]


def changed_since(ledger: Mapping[str, Entry], folder: Path) -> set[str]:
    """The papers that were measured before a later change of the code that measures them."""
    return {
        name
        for name, entry in ledger.items()
        if (folder / f"{name}.py").exists() and code_digest(folder / f"{name}.py") != entry["code"]
    }


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

    An entry that other code measured is always replaced.
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
        if not (folder / f"{name}.py").exists():
            lines.append(f"{name} has an entry and no file")
        ids = [claim["id"] for claim in entry["claims"]]
        lines += [f"{name} has {id} twice" for id in sorted({i for i in ids if ids.count(i) > 1})]
        for claim in claims_of(entry):
            if not claim.measured or not claim.reason:
                lines.append(f"{name} has a verdict on {claim.id} without a measured value")
            if claim.reference is None:
                lines.append(f"{name} has a claim {claim.id} without a reference")
            if claim.figure not in entry["figures"]:
                lines.append(f"{name} has a claim on {claim.figure} and no such figure")
    return lines
