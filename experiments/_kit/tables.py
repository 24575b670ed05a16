"""The tables of the documentation, generated from the committed records.

What lies between the markers ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` of a document is
generated; the text around them is written by hand. The pages of the cells and of the papers are
generated whole.
"""

import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _kit import cells_page
from _kit.gallery import FOLDER, ROOT, SECTIONS, gallery
from gradflow import study
from gradflow.study.flags import parse
from gradflow.study.gallery import recorded

QUICK_HEAD = "# Gallery of quick runs\n"

EARLIER = "(Measured with an earlier configuration; the command measures anew.)"
"""Stands beside a record of a study that was changed and not run again."""


def documents() -> dict[Path, str]:
    """The text of every document with generated parts, by its file."""
    sys.path.append(str(FOLDER / "papers"))  # the papers' files import each other by name
    import _ledger
    import _page

    ledger = _ledger.read(ROOT / "figures" / "papers" / "ledger.json")
    changed = _ledger.changed_since(ledger, FOLDER / "papers")
    studies, readme = ROOT / "docs" / "studies.md", ROOT / "README.md"
    blocks = {section: section_of_studies(section) for section in SECTIONS}
    return {
        studies: fill(studies.read_text(encoding="utf-8"), blocks),
        readme: fill(readme.read_text(encoding="utf-8"), {"headline": _page.headline(ledger)}),
        ROOT / "docs" / "cells.md": cells_page.page(read_record("cell_zoo")),
        ROOT / "docs" / "papers.md": _page.page(ledger, changed),
    }


def fill(text: str, blocks: Mapping[str, str]) -> str:
    """Replaces what lies between the markers of each block.

    Raises:
      ValueError: If the text lacks the markers of a block.
    """
    for name, block in blocks.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        pattern = re.compile(f"({re.escape(begin)}).*?({re.escape(end)})", re.S)
        if not pattern.search(text):
            raise ValueError(f"Expected the lines {begin.strip()} and {end}. Add them.")
        text = pattern.sub(lambda found, block=block: f"{found[1]}{block}\n{found[2]}", text)
    return text


def section_of_studies(section: str) -> str:
    """A section of the page of studies: a table of its pictures, and an entry for each."""
    names = [name for name, (one, _) in gallery().items() if one.section == section]
    found = [(name, record) for name in names if (record := read_record(name))]
    rows = ["| study | question | verdicts | time |", "|---|---|---|---|"]
    for name, record in found:
        one, _ = gallery()[name]
        seconds = f"{record['seconds']:.0f}\N{NO-BREAK SPACE}s"
        cells = (f"[{name}](#{name})", one.title, _verdicts(record), seconds)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    entries = (_entry(name, record, "../figures/") for name, record in found)
    return "\n".join([*rows, "", *entries]).rstrip("\n")


def gallery_page(folder: Path) -> str:
    """The pictures of quick runs as a page in their folder."""
    found = [(name, record) for name in gallery() if (record := read_record(name, folder))]
    return "\n".join([QUICK_HEAD, *(_entry(name, record, "") for name, record in found)])


def read_record(name: str, folder: Path = ROOT / "figures") -> dict[str, Any] | None:
    """Reads the record behind a picture; None if there is none."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _source(name: str) -> str:
    file = FOLDER / f"{name}.py"
    return file.name if file.exists() else f"{name}/study.py"


def _command(one: study.Experiment, picture: study.Picture) -> str:
    return f"./run.sh {shlex.join([one.name, *picture.flags])}"


def is_earlier(one: study.Experiment, picture: study.Picture, record: Mapping[str, Any]) -> bool:
    """Whether a record was measured with another configuration than its command has today."""
    wanted = recorded(one.resolve(parse(one, picture.flags).given, quick=False))
    return "quick" not in record and record["config"] != wanted


def _claims_of(record: Mapping[str, Any]) -> list[study.Claim]:
    return [study.from_record(claim) for claim in record["claims"]]


def _verdicts(record: Mapping[str, Any]) -> str:
    quick = "quick" in record
    counts = Counter(claim.shown_verdict(quick=quick) for claim in _claims_of(record))
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "none"


def headline(record: Mapping[str, Any], title: str) -> str:
    """Writes a record's title from its first claim, so that it cannot contradict the verdict.

    Args:
      record: The record behind a picture.
      title: What stands in its place where nothing was claimed, or the run was a quick one.
    """
    if not record["claims"] or "quick" in record:
        return title
    first = _claims_of(record)[0]
    doubt = "" if first.verdict == "supported" else f"{first.verdict.capitalize()}: "
    return f"{doubt}{first.statement}"


def _entry(name: str, record: Mapping[str, Any], pictures: str) -> str:
    """A picture with its headline, its question, the command, the claims and the summary."""
    one, picture = gallery()[name]
    title = headline(record, one.title)
    lines = [f"### {name}", "", title, "", f"![{one.title}]({pictures}{name}.png)", ""]
    if title != one.title:
        lines += [f"*{one.title}*", ""]
    lines += [f"`{_command(one, picture)}` ({record['seconds']:.0f} s, "
              f"[{_source(one.name)}](../experiments/{_source(one.name)}))", ""]  # fmt: skip
    lines += [EARLIER, ""] * is_earlier(one, picture, record)
    for claim in _claims_of(record):
        verdict = claim.shown_verdict(quick="quick" in record)
        lines += [f"- **{verdict}**: {claim.statement} Measured: {claim.shown}. "
                  f"Criterion: {claim.criterion}."]  # fmt: skip
    lines += [""] * bool(record["claims"])
    if record["summary"]:
        lines += ["```text", *record["summary"], "```", ""]
    return "\n".join(lines)
