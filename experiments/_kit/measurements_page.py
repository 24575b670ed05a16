"""The page of all measurements of the documentation's site, with a picture of each."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measurements

from _kit.gallery import ROOT
from gradflow import study
from gradflow.flow import CATALOGUE
from gradflow.flow.measurement import Measurement
from gradflow.paths import write_bytes
from gradflow.report.drawing import draw_page
from gradflow.study.figure import render, style

HEAD = """# Every measurement

The pictures show an LSTM of 16 units on 60 steps of noise: the median over 4 seeds, and 10 to 90 %
of them. The code runs after these lines:

```python
import jax
import jax.numpy as jnp

import gradflow
from gradflow.cells import lstm

cell = lstm(8, 16)
params = cell.init(jax.random.key(0))
inputs = jax.random.normal(jax.random.key(1), (60, 8))
```
"""

NEEDS = {
    None: ("", ""),
    "gates": ("", "It needs a cell with gates."),
    "lstm": ("", "It needs an LSTM: a carry with the fields h and c."),
    "loss": (", loss=lambda h: jnp.sum(h[-1] ** 2)", "It needs a loss of the outputs h_1 ... h_T."),
    "losses": (
        ", losses=lambda h: jnp.sum(h**2, axis=1)",
        "It needs a loss at every step: T numbers from the outputs h_1 ... h_T.",
    ),
    "lags": (", lags=[1, 10, 50]", "It needs a choice of lags."),
}
"""The options of `gradflow.measure` by what a measurement needs, and the sentence about it."""

FLAGS = (f"--what={','.join(CATALOGUE)}", "--num_seeds=4")
"""The run of the study `measurements` that the pictures show."""


def write(folder: Path, workdir: Path) -> None:
    """Writes the page and its pictures; a finished run in the working directory is read again.

    Raises:
      RuntimeError: If the run fails, whose message is on standard error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if study.main(measurements.EXPERIMENT, [*FLAGS, f"--workdir={workdir}"]):
        raise RuntimeError("Expected the study of measurements to run. Its error is printed above.")
    dataset = study.read_dataset(workdir / "result.nc")
    for name, entry in CATALOGUE.items():
        if entry.kind != "matrices":  # which are not drawn by themselves
            with style():
                picture = render(draw_page(dataset, [name], ""), "png", {"Title": name})
            _write_if_new(folder / f"{name}.png", picture)
    _write_if_new(folder / "index.md", page().encode())


def page() -> str:
    """Writes the page from the catalogue."""
    prose = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
    warnings = pitfalls(prose)
    entries = (_entry(name, one, warnings.get(name, [])) for name, one in CATALOGUE.items())
    return "\n".join([HEAD, *entries])


def pitfalls(prose: str) -> dict[str, list[str]]:
    """The headings of docs/measurements.md that concern a measurement, by its name.

    Raises:
      ValueError: If a line that begins with "Concerns" names a measurement that does not exist.
    """
    found: dict[str, list[str]] = {}
    for heading, line in re.findall(r"^### (.*)\n\n\*Concerns (.*)\.\*$", prose, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", line):
            if name not in CATALOGUE:
                raise ValueError(
                    f"Expected the names of measurements below {heading!r}, got {name!r}. Correct "
                    "the line that begins with Concerns."
                )
            found.setdefault(name, []).append(heading)
    return found


def code(name: str) -> str:
    """The call that computes a measurement, after the lines at the head of the page."""
    options, _ = NEEDS[CATALOGUE[name].needs]
    return f'found = gradflow.measure(cell, params, inputs, what=["{name}"]{options})'


def _entry(name: str, entry: Measurement, headings: list[str]) -> str:
    lines = [f"## {name}", "", "```text", entry.equation, "```", ""]
    if entry.kind != "matrices":
        lines += [f"![{name} of an LSTM]({name}.png)", ""]
    lines += ["| variable | dimensions | units |", "|---|---|---|"]
    for one in entry.variables:
        units = "dimensionless" if one.units == "1" else one.units
        lines.append(f"| `{one.name}` | ({', '.join(one.dims)}) | {units} |")
    lines += ["", "```python", code(name), "```", ""]
    sentences = [
        f"The function is {_link(entry.function)}.",
        f"{_link(entry.read)} computes this from its result." if entry.read else "",
        NEEDS[entry.needs][1],
        "`gradflow.flow.in_chunks` takes it for very long sequences." if entry.along else "",
    ]
    lines += [" ".join(filter(None, sentences)), ""]
    if headings:
        links = (f"[{one}](../measurements.md#{slug(one)})" for one in headings)
        lines += [f"When it misleads: {'; '.join(links)}.", ""]
    return "\n".join(lines)


def _link(function: Callable[..., Any]) -> str:
    return f"{{py:obj}}`gradflow.flow.{function.__name__}`"


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _write_if_new(path: Path, data: bytes) -> None:
    """Keeps an unchanged file with its time, by which Sphinx knows that a page has not changed."""
    if not path.exists() or path.read_bytes() != data:
        write_bytes(path, data)
