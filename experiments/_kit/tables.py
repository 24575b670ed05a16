"""The tables of the documentation, generated from the committed records.

What lies between the markers ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` of a document is
generated; the text around them is written by hand. The gallery's page and those of the
cells and the papers are generated whole.
"""

import json
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _kit import cells_page
from _kit.gallery import FOLDER, ROOT, SECTIONS, gallery
from gradflow import study
from gradflow.study.flags import parse
from gradflow.study.gallery import recorded

GALLERY_HEAD = """# Gallery

`./run.sh figures` draws these again. Beside each picture lies a JSON file with its claims and their
numbers, its configuration and the versions that it was made with; times are wall time on two CPU
cores. `./run.sh tables` generates this page from these files; do not edit it.
"""

EARLIER = "(Measured with an earlier configuration; the command measures anew.)"
"""Stands beside a record of a study that was changed and not run again."""


def documents() -> dict[Path, str]:
    """The text of every document with generated parts, by its file."""
    sys.path.append(str(FOLDER / "papers"))  # the papers' files import each other by name
    import _ledger
    import _page

    ledger = _ledger.read(ROOT / "figures" / "papers" / "ledger.json")
    blocks = {section: studies_table(section) for section in SECTIONS}
    blocks["papers"] = "\n".join([_page.headline(ledger), "", *_page.rows(ledger)])
    changed = _ledger.changed_since(ledger, FOLDER / "papers")
    index, readme = FOLDER / "README.md", ROOT / "README.md"
    return {
        index: fill(index.read_text(encoding="utf-8"), blocks),
        readme: fill(readme.read_text(encoding="utf-8"), {"headline": _page.headline(ledger)}),
        ROOT / "figures" / "README.md": gallery_page(ROOT / "figures"),
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


def studies_table(section: str) -> str:
    """The table of a section: for each picture its study, claims, command, figure and time."""
    lines = ["| study | claims | command | figure | time |", "|---|---|---|---|---|"]
    before = ""
    for name, (one, picture) in gallery().items():
        if one.section == section and (record := read_record(name)):
            link = f"[{one.name}]({_source(one.name)})" if one.name != before else ""
            figure, seconds = f"[{name}](../figures/{name}.png)", f"{record['seconds']:.0f} s"
            command = f"`{_command(one, picture)}`"
            found = _claims_cell(record, one.title)
            found += f"<br>{EARLIER}" * is_earlier(one, picture, record)
            cells = (link, found, command, figure, seconds)
            lines.append("| " + " | ".join(cells) + " |")
            before = one.name
    return "\n".join(lines)


def gallery_page(folder: Path) -> str:
    """The gallery as Markdown: each picture with its question, command, claims and summary."""
    sections = [_gallery_section(name, folder) for name in gallery()]
    return "\n".join([GALLERY_HEAD, *filter(None, sections)])


def read_record(name: str, folder: Path = ROOT / "figures") -> dict[str, Any] | None:
    """Reads the record behind a picture; None if there is none."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _source(name: str) -> str:
    return f"{name}.py" if (FOLDER / f"{name}.py").exists() else f"{name}/"


def _command(one: study.Experiment, picture: study.Picture) -> str:
    return f"./run.sh {shlex.join([one.name, *picture.flags])}"


def is_earlier(one: study.Experiment, picture: study.Picture, record: Mapping[str, Any]) -> bool:
    """Whether a record was measured with another configuration than its command has today."""
    wanted = recorded(one.resolve(parse(one, picture.flags).given, quick=False))
    return "quick" not in record and record["config"] != wanted


def _claims_of(record: Mapping[str, Any]) -> list[study.Claim]:
    return [study.from_record(claim) for claim in record["claims"]]


def _claims_cell(record: Mapping[str, Any], title: str) -> str:
    quick = "quick" in record
    lines = [
        f"**{c.shown_verdict(quick=quick)}**: {c.statement} Measured: {c.shown}."
        for c in _claims_of(record)
    ]
    return ("<br>".join(lines) or title).replace("|", "\\|")


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


def _gallery_section(name: str, folder: Path) -> str:
    record = read_record(name, folder)
    if record is None:
        return ""
    one, picture = gallery()[name]
    lines = [f"## {name}", "", headline(record, one.title), "", f"![{name}]({name}.png)", ""]
    lines += [f"`{_command(one, picture)}` ({record['seconds']:.0f} s)", ""]
    lines += [EARLIER, ""] * is_earlier(one, picture, record)
    for claim in _claims_of(record):
        verdict = claim.shown_verdict(quick="quick" in record)
        lines += [f"- **{verdict}**: {claim.statement} Measured: {claim.shown}. "
                  f"Criterion: {claim.criterion}."]  # fmt: skip
    lines += [""] * bool(record["claims"])
    if record["summary"]:
        lines += ["```", *record["summary"], "```", ""]
    return "\n".join(lines)
