"""The figure of the study."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray
from _kit import curves, gain_sweep, outcomes, rates

from gradflow import study
from gradflow.study.figure import Axes, Figure

INIT_LINES = ("-", "--", ":", "-.", (0, (8, 2)))
"""The line styles of the initialisers, in their order."""

COMPARED = ("tanh", "relu")
"""The activations that the panel about the scale of the inputs compares."""


def figure(dataset: xarray.Dataset) -> Figure:
    """Rates by initialiser, activation and scale of the inputs; live paths; the sweep; losses."""
    fig = study.figure.empty(7.0, 7.8)
    top, middle, bottom = fig.subfigures(3, 1, height_ratios=(3, 2.6, 2.6), squeeze=False)[:, 0]
    left, right = top.subplots(1, 2, width_ratios=(3, 2))
    _draw_heat(left, dataset)
    _draw_scales(right, dataset)
    state, live = middle.subplots(1, 2)
    _draw_state(state, dataset)
    _draw_live(live, dataset)
    sweep, losses = bottom.subplots(1, 2)
    gain_sweep.draw_fractions(sweep, dataset, _looks(dataset), math.sqrt(2))
    sweep.annotate("√2", (math.sqrt(2), 1.07), ha="center", fontsize=7)
    sweep.set_xlabel(f"gain of {_init(dataset)} $W_h$")
    _draw_losses(losses, dataset)
    study.figure.legend_above(fig, state, ncols=6)
    return fig


def _init(dataset: xarray.Dataset) -> str:
    """The initialiser that is swept and trained."""
    return str(dataset.init.values[0])


def _looks(dataset: xarray.Dataset | xarray.DataArray) -> Iterator[tuple[str, dict[str, Any]]]:
    names = [str(name) for name in dataset.activation.values]
    for index, name in enumerate(names):
        marks = 0.025 * index, 0.15  # fractions of the panel, so that no two markers coincide
        yield name, {**study.figure.series_style(index), "label": name, "markevery": marks}


def _draw_heat(ax: Axes, dataset: xarray.Dataset) -> None:
    """The rate of each pair, and the fraction of its runs that are exactly 0 at the last lag."""
    norms = dataset.log_norm.transpose("init", "activation", "run", "lag")
    values = rates.slopes(norms).mean(axis=-1)
    reach = float(np.nanmax(np.abs(values)))  # nats per step at which the colours end
    cut = np.isneginf(norms.values[..., -1]).mean(axis=-1)
    look: Any = {"cmap": "PuOr", "vmin": -reach, "vmax": reach, "aspect": "auto"}
    image = ax.imshow(values, **look)
    for (row, column), value in np.ndenumerate(values):
        text = f"{value:z.2f}" + (f"\n{cut[row, column]:.0%} cut" if cut[row, column] else "")
        color = "white" if abs(value) > 0.6 * reach else "black"
        ax.text(column, row, text, color=color, ha="center", va="center", fontsize=7)
    ax.grid(False)
    names = [str(name).replace("_", "\n") for name in dataset.activation.values]
    ax.set_xticks(range(len(names)), names, fontsize=7)
    ax.set_yticks(range(dataset.sizes["init"]), [str(name) for name in dataset.init.values])
    std = float(dataset.input_std[-1])
    ax.set_title(rf"Rate of $\log\,\|\partial h_T/\partial h_k\|$, inputs of std {std:g}")
    ax.figure.colorbar(image, ax=ax, label="nats per step")


def _draw_scales(ax: Axes, dataset: xarray.Dataset) -> None:
    """The rates of tanh and ReLU against the inputs' deviation, from the first two initialisers."""
    looks = dict(_looks(dataset))
    for line, init in zip(INIT_LINES, map(str, dataset.init.values[:2]), strict=False):
        for name in [name for name in COMPARED if name in looks]:
            data = dataset.rate.sel(init=init, activation=name)
            look = {"color": looks[name]["color"], "marker": looks[name]["marker"]}
            label = f"{name}, {init}"
            study.figure.band(ax, data.input_std, data, "run", ls=line, label=label, **look)
    ax.axhline(0, **outcomes.REFERENCE)
    ax.set(xscale="log", xlabel="standard deviation of the inputs", title="Rate (nats per step)")
    ax.legend(fontsize=6.5)


def _draw_state(ax: Axes, dataset: xarray.Dataset) -> None:
    for name, look in _looks(dataset):
        sizes = dataset.log_size.sel(init=_init(dataset), activation=name)
        study.figure.band(ax, dataset.step, sizes / curves.NATS, "run", **look)
    ax.set(xlabel="step t", title=f"State from {_init(dataset)}", xlim=(0, dataset.sizes["step"]))
    ax.set_ylabel(r"$\log_{10}$ RMS of $h_t$")


def _draw_live(ax: Axes, dataset: xarray.Dataset) -> None:
    """The paths of the activation that has the fewest live ones, by initialiser."""
    fewest = dataset.log_live.isel(lag=-1).mean(["init", "run"]).argmin("activation")
    data = dataset.isel(activation=int(fewest))
    for index, name in enumerate(data.init.values):
        line = INIT_LINES[index % len(INIT_LINES)]
        look = {"color": "#404040", "linestyle": line, "label": str(name)}
        curves.draw_norms(ax, data.lag, data.log_live.sel(init=name), **look)
    curves.lag_axis(ax, data)
    ax.set(ylabel=r"$\log_{10}$ fraction", title=f"Live paths, {data.activation.values}")
    ax.legend(fontsize=6.5, loc="lower left")


def _draw_losses(ax: Axes, dataset: xarray.Dataset) -> None:
    task, baseline = str(dataset.attrs["task"]).partition("(")[0], dataset.attrs["baseline"]
    for name, look in _looks(dataset):
        loss = dataset.loss.sel(activation=name)
        study.figure.band(ax, dataset["update"], loss, "run", **look)
    title = f"{task.capitalize()} from {_init(dataset)}, best rate of each"
    outcomes.draw_losses(ax, baseline, title=title, ylabel="loss", ylim=(None, 6 * baseline))
