"""The figure of the study."""

from typing import Any

import numpy as np
import xarray
from _kit import probes

from classification import results
from gradflow import study
from gradflow.spec import parse_spec
from gradflow.study.figure import Axes, Figure


def words_of(spec: str) -> str:
    """Writes a model's spec as the label of a point or a line."""
    name, options = parse_spec(spec)
    given = [f"{key.replace('_', ' ')} {value}" for key, value in options.items()]
    return "\n".join([name.replace("bi_", "bi-").replace("two_", "2-layer "), *given])


def figure(dataset: xarray.Dataset) -> Figure:
    """Accuracy by model, against the horizon and by length; confusions; below them the probes."""
    heights = (6.4, *(probes.ROW_HEIGHT for _ in probes.rows(dataset)))
    fig = study.figure.empty(7.6, sum(heights))
    parts: Any = fig.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
    top, *rest = parts[:, 0]
    (accuracy, reach), (length, confusion) = top.subplots(2, 2)
    _draw_accuracy(accuracy, dataset)
    _draw_reach(reach, dataset)
    _draw_lengths(length, dataset)
    _draw_confusion(confusion, dataset)
    networks = {words_of(spec): dataset.sel(model=spec) for spec in map(str, dataset.model.values)}
    probes.draw_rows(rest, dataset, networks, time="epoch")
    return fig


def _looks(dataset: xarray.Dataset) -> dict[str, dict[str, Any]]:
    """The colours and markers of the models."""
    specs = [str(spec) for spec in dataset.model.values]
    return {spec: study.figure.cell_style(spec, number) for number, spec in enumerate(specs)}


def _draw_accuracy(ax: Axes, dataset: xarray.Dataset) -> None:
    looks = _looks(dataset)
    published, marks = results.PUBLISHED[dataset.attrs["data"]], []
    for row, (spec, look) in enumerate(looks.items()):
        values = results.accuracy(dataset, spec)
        ax.plot(values, np.full(len(values), row), **{**look, "linestyle": "", "alpha": 0.6})
        ax.plot([values.mean()] * 2, [row - 0.3, row + 0.3], color=look["color"], lw=2)
        if spec in published:
            marks.append((published[spec][0], row))
    if marks:
        look = {"marker": "d", "mfc": "white", "mec": "black", "ms": 6, "linestyle": ""}
        ax.plot(*zip(*marks, strict=True), **look)
    ax.set_yticks(range(len(looks)), [words_of(spec) for spec in looks], fontsize=7)
    ax.invert_yaxis()
    note = " (◇: published, of another set-up)" if marks else ""
    title = f"{dataset.attrs['data']}: each seed, and the mean"
    ax.set(xlabel=f"test accuracy{note}", title=title)


def _draw_reach(ax: Axes, dataset: xarray.Dataset) -> None:
    longest = int(dataset.lag[-1])
    for spec, look in _looks(dataset).items():
        data = dataset.sel(model=spec)
        reached = results.horizons(data.log_norm.sel(when=results.WHEN[1]))
        if not np.isnan(reached).any():
            at = np.minimum(reached, longest)
            ax.plot(at, results.accuracy(dataset, spec), **{**look, "linestyle": "", "ms": 5})
    ax.axvline(longest, color="black", lw=0.8, ls=(0, (1, 1)))
    ax.margins(x=0.1, y=0.1)
    ax.set_xlim(left=0)
    ax.set(
        xlabel=rf"lag where the norm falls below $10^{{-3}}$ (dotted: {longest} or more)",
        ylabel="test accuracy",
        title="Accuracy by horizon, marks as on the left",
    )


def _draw_lengths(ax: Axes, dataset: xarray.Dataset) -> None:
    bins, length = results.length_bins(dataset), dataset.length.values
    right, looks = results.correct(dataset), _looks(dataset)
    shown = [
        spec for spec in looks if spec in ("rnn", "lstm", "gru") or spec == results.chosen(dataset)
    ]
    for spec in shown:
        of_seed = np.stack([right.sel(model=spec).values[:, part].mean(axis=1) for part in bins])
        study.figure.band(ax, range(len(bins)), of_seed, 1, **looks[spec], label=words_of(spec))
    names = [f"{length[part].min()}–{length[part].max()}" for part in bins]
    ax.set_xticks(range(len(bins)), names)
    ax.set(xlabel="words of the text", ylabel="test accuracy", title="By length, in quarters")
    ax.margins(y=0.15)
    if shown:
        ax.legend(fontsize=7)


def _draw_confusion(ax: Axes, dataset: xarray.Dataset) -> None:
    spec, classes = results.chosen(dataset), list(dataset.attrs["classes"])
    fractions = results.confusions(dataset, spec)
    ax.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    for (row, column), fraction in np.ndenumerate(fractions):
        color = "white" if fraction > 0.5 else "black"
        ax.text(column, row, f"{100 * fraction:.0f}", ha="center", va="center", color=color, size=7)
    ax.set_xticks(range(len(classes)), classes, fontsize=7)
    ax.set_yticks(range(len(classes)), classes, fontsize=7)
    ax.grid(False)
    name = words_of(spec).replace("\n", ", ")
    ax.set(xlabel="predicted class", ylabel="true class", title=f"Per cent of a class\n{name}")
