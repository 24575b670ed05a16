"""The figure of the study."""

from typing import Any

import numpy as np
import xarray
from _kit import curves, outcomes

from exploding.results import critical_gains, extrapolated
from gradflow import study
from gradflow.study.figure import Axes, Figure


def figure(dataset: xarray.Dataset) -> Figure:
    """Exponents, critical gains by size, and tails; norms against lag; losses along the line."""
    fig = study.figure.empty(7.0, 5.2)
    top, bottom = fig.subfigures(2, 1, height_ratios=(3, 2.4), squeeze=False)[:, 0]
    left, middle, right = top.subplots(1, 3, width_ratios=(4, 3, 3))
    _draw_exponents(left, dataset)
    _draw_sizes(middle, dataset)
    _draw_tails(right, dataset)
    left, middle, right = bottom.subplots(1, 3)
    _draw_norms(left, dataset.isel(factor=-1))
    right.sharey(middle)
    for ax, at in ((middle, 0), (right, -1)):
        _draw_line(ax, dataset.isel(factor=at))
    return fig


def _style(name: str, index: int) -> dict[str, Any]:
    return study.figure.cell_style("rnn" if name == "tanh" else name, index)


def _draw_exponents(ax: Axes, dataset: xarray.Dataset) -> None:
    ax.axhline(0, color="#808080", lw=0.6)
    for index, name in enumerate(dataset.cell.values):
        data, look = dataset.sel(cell=name), _style(str(name), index)
        marks = look | {"linestyle": "none", "label": str(name), "markevery": 2}
        study.figure.band(ax, data.gain, data.exponent, "run", **marks)
        ax.plot(data.gain, data.theory, color=look["color"], linestyle=look["linestyle"], lw=1)
    ax.set(
        xlabel=r"gain of $W_h$ (dimensionless)",
        ylabel="largest exponent λ (nats per step)",
        title="Measured (marks), theory (lines)",
        xlim=(dataset.gain[0], dataset.gain[-1]),
    )
    ax.legend(loc="lower right")


def _draw_sizes(ax: Axes, dataset: xarray.Dataset) -> None:
    """The critical gains over the theory's against 1/N, and the line that extrapolates them."""
    inverse = 1 / dataset["size"].values
    for index, name in enumerate(map(str, dataset.cell.values)):
        data, look = dataset.sel(cell=name), _style(name, index)
        gains = critical_gains(data) / float(data.critical)
        ax.plot(inverse, gains.mean(axis=0), **look | {"linestyle": "none", "markevery": 1})
        limit = extrapolated(data).mean() / float(data.critical)
        slope = np.mean(inverse * (gains.mean(axis=0) - limit)) / np.mean(inverse**2)
        ends = np.array([0, inverse.max()])
        ax.plot(ends, limit + slope * ends, color=look["color"], lw=0.8)
    ax.axhline(1, **outcomes.REFERENCE)
    ax.set(xlabel="1/N", title="Critical gain / theory", xlim=(0, None))


def _draw_tails(ax: Axes, dataset: xarray.Dataset) -> None:
    log10 = dataset.log_gradient.isel(factor=-1) / curves.NATS
    for index, name in enumerate(dataset.cell.values):
        ordered = np.sort(log10.sel(cell=name).values)
        beyond = 1 - np.arange(len(ordered)) / len(ordered)
        above = ordered >= np.median(ordered)
        excess = (ordered - np.median(ordered))[above]
        look = {"markevery": max(1, len(excess) // 5), "label": str(name)}
        ax.plot(excess, beyond[above], **look, **_style(str(name), index))
    ax.set(
        yscale="log",
        xlabel=r"$\log_{10}$ over the median",
        ylabel="fraction of initialisations",
        title=r"Tail of $\|\partial L/\partial h_0\|$",
    )


def _draw_norms(ax: Axes, data: xarray.Dataset) -> None:
    for index, name in enumerate(map(str, data.cell.values)):
        curves.draw_norms(ax, data.lag, data.log_norm.sel(cell=name), **_style(name, index))
    curves.lag_axis(ax, data)
    ax.set_ylabel(r"$\log_{10}\,\|\partial h_T/\partial h_k\|_F$")
    ax.set_title(f"Norm at {float(data.factor):g} · critical gain")


def _draw_line(ax: Axes, data: xarray.Dataset) -> None:
    for run, color in zip(data.loss.values, ("#000000", "#0072B2", "#D55E00"), strict=False):
        ax.plot(data.place, run, color=color, lw=0.7)
    ax.set(
        xlim=(data.place[0], data.place[-1]),
        xlabel=r"step of $W_h$, over its norm",
        ylabel="loss at T (dimensionless)",
        title=f"Loss at {float(data.factor):g} · critical gain",
    )
    ax.locator_params(axis="x", nbins=3)
