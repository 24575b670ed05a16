"""The page of all cells, generated from their docstrings and from the record of the zoo."""

import inspect
import re
import textwrap
from collections.abc import Mapping
from typing import Any

import cell_zoo

from gradflow.cells import CELLS

HEAD = """# Cells

{count} cells, by family, each with the equation and the source of its docstring. Every study takes
any of them by `--cell=NAME`, a program by `gradflow.cells.resolve("NAME")`, and `gradflow cells`
lists them with their options. [add_a_cell.md](add_a_cell.md) adds one of your own. The command
`./run.sh tables` generates this page; do not edit it.
"""

MEASURED = """## At initialisation

What `./run.sh cell_zoo` measures: the state of each cell, the blocks that it falls into, which are
independent of each other, and how the norm of its Jacobian changes with the lag.

```
{table}
```
"""


def page(record: Mapping[str, Any] | None) -> str:
    """Writes the page; the measured part is left out where there is no record."""
    families: dict[str, list[str]] = {name: [] for name in (*cell_zoo.FAMILIES, cell_zoo.OTHER)}
    for name in CELLS:
        families[cell_zoo.family(name)].append(name)
    parts = [HEAD.format(count=len(CELLS))]
    for family, names in families.items():
        if names:
            parts.append(
                "\n".join([f"## {family[0].upper()}{family[1:]}", "", *map(_entry, names)])
            )
    if record is not None:
        parts.append(MEASURED.format(table="\n".join(record["summary"])))
    return "\n".join(parts)


def _entry(name: str) -> str:
    """A cell: its name, first sentence, first equation and source."""
    text = inspect.getdoc(CELLS[name]) or ""
    first = " ".join(text.partition("\n\n")[0].split())
    equation = re.search(r"::\n\n((?: {4}.*\n|\n)+)", text + "\n")
    source = re.search(r"^Source: (.*?)(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    lines = [f"### {name}", "", first, ""]
    if equation:
        lines += ["```", textwrap.dedent(equation[1]).strip("\n"), "```", ""]
    if source:
        lines += ["Source: " + " ".join(source[1].split()), ""]
    return "\n".join(lines)
