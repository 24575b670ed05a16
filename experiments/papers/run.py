"""Runs the papers, compares each claim with what was measured, and keeps the ledger.

    python experiments/papers/run.py --list
    python experiments/papers/run.py --figure=pascanu2013-fig6
    python experiments/papers/run.py --all [--quick | --full] [--overwrite] [--accept]

The exit code is 1 if a run fails, or if a claim that the ledger has as reproduced no longer is;
the ledger then keeps its entry, unless ``--accept`` takes the new verdicts. ``--quick`` takes
seconds a paper and does not change the ledger; ``--full`` is longer, up to the paper's own size.
A finished run of the same code is not repeated, except by ``--overwrite``.
"""

import contextlib
import importlib
import io
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import _ledger
import xarray
from _digest import code_digest
from _page import page, picture
from _paper import Paper

from gradflow import study
from gradflow.locks import locked
from gradflow.paths import write_bytes
from gradflow.spec import check_name
from gradflow.study import Claim
from gradflow.study.figure import render
from gradflow.study.process import run_process
from gradflow.study.provenance import versions

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FLAGS = ("--list", "--all", "--quick", "--full", "--overwrite", "--accept")
HELP = ("--help", "--helpshort", "-h")


class Places(NamedTuple):
    """The folders and files that are written: gallery with ledger, page, and records of runs."""

    gallery: Path = ROOT / "figures" / "papers"
    page: Path = ROOT / "docs" / "papers.md"
    runs: Path = ROOT / "results" / "papers"

    @property
    def ledger(self) -> Path:
        """The committed record of all verdicts."""
        return self.gallery / "ledger.json"


class Request(NamedTuple):
    """What a command line asks for."""

    figures: tuple[str, ...]
    size: str
    overwrite: bool = False
    accept: bool = False
    only_list: bool = False


def papers() -> dict[str, Paper]:
    """All papers, by the names of their files."""
    names = sorted(path.stem for path in HERE.glob("[a-z]*.py") if path.stem != "run")
    return {name: importlib.import_module(name).EXPERIMENT for name in names}


def figures_of(name: str, paper: Paper) -> list[str]:
    """The names by which ``--figure`` finds a file: pascanu2013-fig6."""
    return [f"{name.partition('_')[0]}-{figure}" for figure in paper.figures]


def parse(arguments: Sequence[str]) -> Request:
    """Reads the command line.

    Raises:
      ValueError: For a flag that is not known, no figure to run, or two sizes.
    """
    wanted = [a.removeprefix("--figure=") for a in arguments if a.startswith("--figure=")]
    flags = [a for a in arguments if not a.startswith("--figure=")]
    for flag in flags:
        check_name("flag", flag, (*FLAGS, "--figure=NAME"))
    if {"--quick", "--full"} <= set(flags):
        raise ValueError("Expected one size, got --quick and --full. Remove one of them.")
    if not wanted and not {"--all", "--list"} & set(flags):
        raise ValueError("Expected --figure=NAME, --all or --list, got none. Try --list.")
    size = "quick" if "--quick" in flags else "full" if "--full" in flags else "default"
    options = (f"--{option}" in flags for option in ("overwrite", "accept", "list"))
    return Request(tuple(wanted), size, *options)


def choose(known: dict[str, Paper], figures: Sequence[str]) -> dict[str, Paper]:
    """The papers that have the figures; all of them if none is named.

    Raises:
      ValueError: For a figure that no paper has.
    """
    have = {name: {name, *figures_of(name, paper)} for name, paper in known.items()}
    for figure in figures:
        check_name("figure", figure, set().union(*have.values()))
    return {name: known[name] for name in known if not figures or have[name] & set(figures)}


def reproduce(
    name: str, paper: Paper, code: str, request: Request, places: Places
) -> tuple[_ledger.Entry, xarray.Dataset] | None:
    """Runs one paper, or finds the finished run of this code. Returns None if it fails."""
    workdir = places.runs / name / f"{request.size}-{code}"
    # A paper without a long form is as large as the paper from the start.
    has_no_other = request.size == "full" and not paper.full
    flags = [] if has_no_other or request.size == "default" else [f"--{request.size}"]
    again = ["--overwrite"] if request.overwrite else []
    with contextlib.redirect_stdout(io.StringIO()):
        failed = study.main(paper, [*flags, *again, f"--workdir={workdir}"])
    if failed:
        return None
    try:
        dataset = study.read_dataset(workdir / "result.nc")
        environment = study.read_environment(workdir)
    except (OSError, ValueError) as error:
        print("error:", error, file=sys.stderr)
        return None
    entry = {
        "citation": paper.citation,
        "title": paper.title,
        "size": request.size,
        "code": code,
        "commit": commit_of(environment),
        "seconds": round(environment["seconds"], 1),
        "device": environment["device_kind"],
        "command": " ".join([f"./run.sh papers/{name}", *flags]),
        "figures": list(paper.figures),
        "traps": list(paper.traps),
        "versions": versions(),
        "claims": [study.to_record(claim) for claim in paper.claims(dataset)],
    }
    return entry, dataset


def commit_of(environment: dict[str, Any]) -> str:
    """Names the commit that a run was made at, and whether files differed from it."""
    commit = environment.get("git_commit") or "unknown"
    return commit[:9] + (" with changes" if environment.get("git_dirty") else "")


def draw(name: str, paper: Paper, dataset: xarray.Dataset, folder: Path) -> None:
    """Writes the picture of each figure of a paper."""
    for figure, make in paper.figures.items():
        with study.figure.style():
            png = render(make(dataset), "png", {"Title": f"{name} {figure}"})
        write_bytes(folder / picture(name, figure), png)


def rows(name: str, entry: _ledger.Entry, figures: Sequence[str]) -> list[dict[str, str]]:
    """The table's rows: paper, claim, reference, measured, verdict, seconds."""
    parts = [figure.partition("-")[2] for figure in figures if figure.startswith(name)]

    def row(claim: Claim) -> dict[str, str]:
        return {
            "paper": name,
            "claim": claim.id,
            "reference": claim.reference.value if claim.reference else "",
            "measured": claim.shown,
            "verdict": claim.shown_verdict(quick=entry["size"] == "quick"),
            "seconds": f"{entry['seconds']:.1f}",
        }

    claims = _ledger.claims_of(entry)
    return [row(claim) for claim in claims if not any(parts) or claim.figure in parts]


def keep(
    name: str,
    paper: Paper,
    entry: _ledger.Entry,
    dataset: xarray.Dataset,
    request: Request,
    places: Places,
) -> list[str]:
    """Puts an entry into the ledger, with its pictures and the page. Returns the regressions."""
    before = _ledger.read(places.ledger).get(name)
    lost = _ledger.regressions(before, _ledger.claims_of(entry), request.size)
    accepted = request.accept or not lost
    if accepted and _ledger.replaces(before, entry["code"], request.size):
        draw(name, paper, dataset, places.gallery)
        # Read again: another process may have written its own paper in the meantime.
        with locked(places.gallery, wait=True):
            ledger = {**_ledger.read(places.ledger), name: entry}
            _ledger.write(places.ledger, ledger)
            write_bytes(places.page, page(ledger, _ledger.changed_since(ledger, HERE)).encode())
    return [] if request.accept else lost


def perform(request: Request, known: dict[str, Paper], places: Places) -> int:
    """Runs what is asked for. Returns the exit code."""
    chosen = choose(known, request.figures)
    if request.only_list:
        lines = [{"figure": f, "paper": p.citation} for n, p in chosen.items()
                 for f in figures_of(n, p)]  # fmt: skip
        print(study.table(lines))
        return 0
    # A file may be edited while another paper runs: take the digests of the imported versions.
    codes = {name: code_digest(HERE / f"{name}.py") for name in chosen}
    table, faults, failed = [], [], []
    for index, (name, paper) in enumerate(chosen.items(), start=1):
        print(f"[{index}/{len(chosen)}] {name}: {paper.title}", flush=True)
        made = reproduce(name, paper, codes[name], request, places)
        if made is None:  # which has been said; among several papers it is repeated at the end
            failed.append(name)
            continue
        table += rows(name, made[0], request.figures)
        faults += [f"{name}: {line}" for line in keep(name, paper, *made, request, places)]
    print("", study.table(table), sep="\n")
    if failed and len(chosen) > 1:
        faults.append(f"{', '.join(failed)} failed")
    for fault in faults:
        print("error:", fault, file=sys.stderr)
    return 1 if faults or failed else 0


def main(arguments: Sequence[str], places: Places | None = None) -> int:
    """Runs as the command line asks. Returns the exit code."""
    if set(HELP) & set(arguments):
        print(__doc__)
        return 0
    try:
        return perform(parse(arguments), papers(), places or Places())
    except ValueError as error:
        print("error:", error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    run_process(partial(main, sys.argv[1:]))
