"""The page of the reproduced papers, written from the ledger."""

from collections import Counter
from collections.abc import Collection, Iterable
from typing import get_args

from _ledger import Entry, Ledger, claims_of

from gradflow.study import Claim
from gradflow.study.claims import Kind, Reference

HEAD = """# Papers

Published numbers and statements about gradient flow, compared with what was measured here.
[Studies](studies.md) are questions of this project's own.
`./run.sh tables` generates this page from `figures/papers/ledger.json`; do not edit it.

A reference is *published* where the paper or its authors' code prints it, *derived* where it
follows from the paper's equations, and a *regression* where it is an earlier measurement of ours,
which tests this code and no paper. *Qualitatively reproduced*: the original is a picture without
numbers, or the numbers differ and the behaviour agrees. Times are wall time; *cpu* is two cores.
The size of a run is in its command: `./run.sh papers/run --full` is the longer form of those that
train. [experiments/papers](../experiments/papers/run.py) has one file for each paper, or for a part
of one that runs by itself. `./run.sh papers/run --list` lists the figures, and
`./run.sh papers/run --all --quick` checks the claims that hold at every size.
"""

VERDICTS = ("reproduced", "qualitatively reproduced", "not reproduced")

CHANGED = " The code that it depends on has changed since."
"""What the page says of an entry that was measured before a later change of the code."""


def page(ledger: Ledger, changed: Collection[str] = ()) -> str:
    """The whole page: the count of verdicts, and a section for each paper.

    Args:
      ledger: The entries.
      changed: The papers that were measured before a later change of the code.
    """
    sections = (_section(name, entry, name in changed) for name, entry in ledger.items())
    tables = (*_counts(ledger), "", *_rows(ledger))
    return "\n".join([HEAD, headline(ledger), "", *tables, "", *sections])


def headline(ledger: Ledger) -> str:
    """One sentence: how many of the published claims are reproduced."""
    counts = _count(ledger, "published")
    yes, nearly, no = (counts[verdict] for verdict in VERDICTS)
    return (
        f"Of {counts.total()} published claims, {yes} are reproduced, {nearly} are qualitatively "
        f"reproduced and {no} are not reproduced."
    )


def picture(name: str, figure: str) -> str:
    """The file name of a figure: pascanu2013-fig6.png."""
    return f"{name.partition('_')[0]}-{figure}.png"


def _rows(ledger: Ledger) -> list[str]:
    """The table of all papers: script, title and published verdicts."""
    lines = ["| script | what it reproduces | published claims |", "|---|---|---|"]
    for name, entry in ledger.items():
        counts = _count({name: entry}, "published")
        found = ", ".join(f"{counts[one]} {one}" for one in VERDICTS if counts[one])
        cells = (f"[{name}](#{name})", entry["title"].replace("|", "\\|"), found or "none")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _count(ledger: Ledger, kind: str) -> Counter[str]:
    claims = (claim for entry in ledger.values() for claim in claims_of(entry))
    return Counter(claim.verdict for claim in claims if _reference(claim).kind == kind)


def _counts(ledger: Ledger) -> list[str]:
    lines = [f"| reference | claims | {' | '.join(VERDICTS)} |", "|---|---|---|---|---|"]
    for kind in get_args(Kind):
        counts = _count(ledger, kind)
        cells = [kind, str(counts.total()), *(str(counts[verdict]) for verdict in VERDICTS)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _reference(claim: Claim) -> Reference:
    assert claim.reference is not None, "every claim of a paper has a reference"
    return claim.reference


def _section(name: str, entry: Entry, changed: bool) -> str:
    claims = claims_of(entry)
    pictures = [picture(name, figure) for figure in entry["figures"]]
    lines = [f"## {name}", "", f"{entry['citation']}", "", entry["title"], ""]
    for one in pictures:
        figure = one.removesuffix(".png")
        lines += [f"![{entry['title']}](../figures/papers/{one})", ""]
        lines += [f"*{figure}*, drawn by `./run.sh papers/run --figure={figure}`", ""]
    lines += ["| claim | reference | measured | counts as reproduced | verdict |"]
    lines += ["|---|---|---|---|---|", *map(_row, claims), ""]
    lines += ["Sources:", "", *_bullets(f"`{c.id}`: {_reference(c).source}" for c in claims)]
    if entry["traps"]:
        lines += ["", "Traps:", "", *_bullets(entry["traps"])]
    return "\n".join([*lines, "", _origin(name, entry) + CHANGED * changed, ""])


def _origin(name: str, entry: Entry) -> str:
    where = f" on {entry['device']}" if "device" in entry else ""
    seconds = f"{entry['seconds']:.0f} s{where}"
    script = f"[{name}.py](../experiments/papers/{name}.py)"
    return f"`{entry['command']}` ({seconds}, {script}), measured at commit {entry['commit']}."


def _row(claim: Claim) -> str:
    reference = _reference(claim)
    cells = (
        f"`{claim.id}` {claim.statement}",
        f"{reference.value} ({reference.kind})",
        claim.shown,
        claim.criterion,
        f"**{claim.verdict}**: {claim.reason}",
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _bullets(lines: Iterable[str]) -> list[str]:
    return [f"- {line}" for line in lines]
