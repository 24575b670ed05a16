"""The page of all cells, generated from their docstrings and from the record of the zoo."""

import inspect
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import cell_zoo

from gradflow.cells import CELLS
from gradflow.spec import parse_spec

HEAD = """# Cells

{count} cells, by family, each with the equation and the source of its docstring. Every study takes
any of them by `--cell=NAME`, a program by `gradflow.cells.resolve("NAME")`, and `gradflow cells`
lists them with their options. [Add a cell](add_a_cell.md) explains how to write one of your own.
The command `./run.sh tables` generates this page; do not edit it.
"""

MEASURED = """\
The table of a family is what `./run.sh cell_zoo` measures of newly initialised cells with
{hidden_size} units on gaussian inputs. *State* is the part of the carry that the next step reads,
and *blocks* its parts that are independent of each other: 32 of 2 are 32 blocks of two entries. The
factor per step is that of the norm ‖∂s_T/∂s_k‖ of the state, with its 95 % interval over
{num_seeds} seeds. The horizon is the first lag at which the norm is 1e-3 or less, and the regime
that over {num_steps} steps. The figure shows the same numbers.

![Factor per step and horizon of every cell, by family](../figures/cell_zoo.png)
"""


def page(record: Mapping[str, Any] | None) -> str:
    """Writes the page; the measured part is left out where there is no record."""
    families: dict[str, list[str]] = {name: [] for name in (*cell_zoo.FAMILIES, cell_zoo.OTHER)}
    for name in CELLS:
        families[cell_zoo.family(name)].append(name)
    rows = [] if record is None else measured_rows(record["summary"])
    parts = [HEAD.format(count=len(CELLS))]
    if record is not None:
        parts.append(MEASURED.format(**record["config"]))
    for family, names in families.items():
        if names:
            table = _table([row for row in rows if row["family"] == family])
            heading = f"## Family: {family}"
            parts.append("\n".join([heading, "", *table, *map(_entry, names)]))
    return "\n".join(parts)


def measured_rows(summary: Sequence[str]) -> list[dict[str, str]]:
    """Reads the table in the summary of the zoo, whose second line marks the columns."""
    spans = [found.span() for found in re.finditer("-+", summary[1])]
    header, _, *lines = ([line[low:high].strip() for low, high in spans] for line in summary[:-1])
    return [dict(zip(header, line, strict=True)) for line in lines]


def _table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The measured rows of a family, each linked to the entry of its cell."""
    if not rows:
        return []
    lines = ["| cell | state | blocks | factor per step | horizon | regime |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in rows:
        name = parse_spec(row["cell"])[0]
        lines.append(
            f"| [{row['cell']}](#{name}) | {row['state']} | {row['blocks']} | "
            f"{row['factor per step']} | {row['horizon']} | {row['regime'].partition(' (')[0]} |"
        )
    return [*lines, ""]


def _entry(name: str) -> str:
    """A cell: its name, first sentence, first equation and source."""
    text = inspect.getdoc(CELLS[name]) or ""
    first = " ".join(text.partition("\n\n")[0].split())
    equation = re.search(r"::\n\n((?: {4}.*\n|\n)+)", text + "\n")
    source = re.search(r"^Source: (.*?)(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    lines = [f"### {name}", "", first, ""]
    if equation:
        lines += ["```text", textwrap.dedent(equation[1]).strip("\n"), "```", ""]
    if source:
        lines += ["Source: " + " ".join(source[1].split()), ""]
    return "\n".join(lines)
