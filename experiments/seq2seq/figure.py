"""The figure of the study."""

from collections.abc import Iterator

import numpy as np
import xarray
from _kit import curves, outcomes, probes

from gradflow import study
from gradflow.spec import parse_spec
from gradflow.study.figure import Axes, Figure
from seq2seq.results import STAGES


def figure(dataset: xarray.Dataset) -> Figure:
    """Accuracy by update; the flow through both halves, before and after; examples; the probes."""
    maps = probes.rows(dataset)
    heights = (2.6, 2.6, 1.8, *(probes.ROW_HEIGHT for _ in maps))
    fig = study.figure.empty(7.0, sum(heights))
    parts = fig.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    top, middle, bottom, *rest = parts
    left, right = top.subplots(1, 2)
    _draw_accuracy(left, right, dataset)
    _draw_flow(middle.subplots(1, 2, sharey=True), dataset)
    _draw_examples(bottom.subplots(), dataset)
    networks = {
        f"encoder, {cell}": dataset.sel(cell=cell) for cell in map(str, dataset.cell.values)
    }
    probes.draw_rows(rest, dataset, networks, state="s")
    return fig


def _looks(dataset: xarray.Dataset) -> Iterator[tuple[str, xarray.Dataset, dict]]:
    for index, cell in enumerate(map(str, dataset.cell.values)):
        look = study.figure.cell_style(parse_spec(cell)[0], index) | {"label": cell}
        yield cell, dataset.sel(cell=cell), look


def _draw_accuracy(left: Axes, right: Axes, dataset: xarray.Dataset) -> None:
    for _, data, look in _looks(dataset):
        study.figure.band(left, data["update"], 100 * data.sequences, "seed", **look)
        study.figure.band(right, data["update"], 100 * (1 - data.free), "seed", **look)
        forced = 100 * (1 - data.forced.median("seed"))
        right.plot(data["update"], forced, color=look["color"], lw=0.8, alpha=0.9)
    left.set(
        xlabel="update",
        ylabel="correct sequences (%)",
        ylim=(-3, 103),
        title="Held out: median and 10–90 % over seeds",
    )
    left.legend()
    right.set(
        xlabel="update",
        ylabel="wrong characters (%)",
        ylim=(0, None),
        title="Free-running; thin: teacher forcing",
    )


def _draw_flow(panels: np.ndarray, dataset: xarray.Dataset) -> None:
    for ax, stage in zip(panels, STAGES, strict=True):
        for _, data, look in _looks(dataset):
            norms = data.log_adjoint.sel(stage=stage).median("sequence") / curves.NATS
            study.figure.band(ax, data.step, norms, "seed", **look)
        ax.axvline(0, **outcomes.REFERENCE)
        ax.set(xlabel="encoder  ←  step from the hand-over  →  decoder", title=f"Flow, {stage}")
    panels[0].set_ylabel(r"$\log_{10}\,\|\partial L/\partial s_k\|$")


def _draw_examples(ax: Axes, dataset: xarray.Dataset) -> None:
    """A row for each example; a wrong output of the first seed of a cell has a cross behind it."""
    cells = [str(cell) for cell in dataset.cell.values]
    columns = ["source", "target", *(parse_spec(cell)[0] for cell in cells)]
    places = np.cumsum([0, 0.27, *(0.19 for _ in cells)])
    ax.set(xlim=(0, max(1, places[-1] + 0.17)), ylim=(-len(dataset.example) - 0.5, 0.7))
    ax.axis("off")
    for x, column in zip(places, columns, strict=True):
        ax.text(x, 0, column, fontsize=8, fontweight="bold")
    size = min(7.0, 150 / max(len(str(text)) for text in dataset.source.values.flat))
    for i in range(dataset.sizes["example"]):
        data = dataset.isel(example=i)
        target = str(data.target.values[0])
        row = [str(data.source.values[0]), target, *map(str, data.output.isel(seed=0).values)]
        for x, text in zip(places, row, strict=True):
            wrong = x > places[1] and text != target
            look = {
                "fontsize": size,
                "family": "monospace",
                "color": "#A02000" if wrong else "black",
            }
            ax.text(x, -i - 1, f"{text} ×" if wrong else text, **look)
