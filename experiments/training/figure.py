"""The figure of the study."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray
from _kit import curves, outcomes, probes

from gradflow import study
from gradflow.spec import parse_spec
from gradflow.study.figure import Axes, Figure
from training.results import best_of, settings_of, swept

LINESTYLES = ("-", "--", ":", "-.")

LOSSES = {"squared": "squared error", "cross_entropy": "cross-entropy (nats)"}


def figure(dataset: xarray.Dataset) -> Figure:
    """Loss and accuracy against the update; below them a map for each probe."""
    maps = probes.rows(dataset)
    heights = (4.6, *(probes.ROW_HEIGHT for _ in maps))
    fig = study.figure.empty(5.2, sum(heights))
    top, *rows = fig.subfigures(1 + len(maps), 1, height_ratios=heights, squeeze=False)[:, 0]
    upper, lower = top.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for label, data, look in _lines(dataset):
        _draw_curves(upper, lower, data, {**look, "label": label})
    _label(upper, lower, dataset)
    for row, (name, gate) in zip(rows, maps, strict=True):
        probes.draw(row, _images(dataset, name, gate), name, gate)
    if rows:
        rows[-1].supxlabel("update", fontsize=9)
    return fig


def _lines(dataset: xarray.Dataset) -> Iterator[tuple[str, xarray.Dataset, dict[str, Any]]]:
    """Each cell in each setting: its label, its data and its style."""
    for index, cell in enumerate(map(str, dataset.cell.values)):
        settings = settings_of(dataset.sel(cell=cell))
        if len(settings) > len(LINESTYLES):
            settings = [best_of(dataset.sel(cell=cell))]
        for number, data in enumerate(settings):
            look = study.figure.cell_style(parse_spec(cell)[0], index)
            if len(settings) > 1:
                look["linestyle"] = LINESTYLES[number]
            values = (f"{float(data[name]):g}" for name in swept(data))
            yield ", ".join([cell, *values]), data, look


def _draw_curves(upper: Axes, lower: Axes, data: xarray.Dataset, look: dict) -> None:
    line = study.figure.band(upper, data["update"], data.loss, "seed", **look)
    study.figure.band(lower, data["update"], data.accuracy, "seed", **look)
    solved = data.solved_at.values
    if np.isfinite(solved).any():
        at = float(np.nanquantile(solved, 0.5, method="lower"))
        height = float(data.loss.sel(update=at).median("seed"))
        upper.plot([at], [height], marker="*", ms=10, color=line.get_color(), mec="black", mew=0.5)


def _label(upper: Axes, lower: Axes, dataset: xarray.Dataset) -> None:
    attrs = dataset.attrs
    outcomes.draw_losses(
        upper,
        attrs["baseline"],
        xlabel="",
        ylabel=LOSSES[attrs["loss_kind"]],
        title=f"{curves.task_title(attrs['task'])}: median and 10–90 % over seeds\n"
        "(star: solved; dotted: loss without memory, accuracy of a solved task)",
    )
    titles = "cell", *(name.replace("_", " ") for name in swept(dataset))
    upper.legend(title=", ".join(titles), title_fontsize=8)
    lower.axhline(attrs["success"], **outcomes.REFERENCE)
    lower.set(xlabel="update", ylabel="accuracy", ylim=(-0.03, 1.03))


def _images(dataset: xarray.Dataset, name: str, gate: str | None) -> dict[str, Any]:
    """The map of each cell in its best setting, by its title: the legend has the options."""
    cells = [str(cell) for cell in dataset.cell.values]
    names = [parse_spec(cell)[0] for cell in cells]
    titles = names if len(set(names)) == len(names) else cells
    best = [best_of(dataset.sel(cell=cell)) for cell in cells]
    return {
        f"{title}, {float(data.learning_rate):g}": probes.image(data, name, gate)
        for title, data in zip(titles, best, strict=True)
    }
