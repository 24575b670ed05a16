"""The figure of the study."""

import itertools
from typing import Any

import numpy as np
import xarray
from _kit import curves, outcomes

from exploding.results import critical_gains, extrapolated
from gradflow import study
from gradflow.study.figure import Axes, Figure


def figure(dataset: xarray.Dataset) -> Figure:
    """Exponents, critical gains by size, and tails; norms against lag; losses along the line."""
    fig = study.figure.empty(7.0, 7.2)
    top, middle, bottom = fig.subfigures(3, 1, height_ratios=(3, 2.3, 2), squeeze=False)[:, 0]
    left, middle_top, right = top.subplots(1, 3, width_ratios=(4, 3, 3))
    _draw_exponents(left, dataset)
    _draw_sizes(middle_top, dataset)
    _draw_tails(right, dataset)
    panels = middle.subplots(1, dataset.sizes["cell"], sharey=True, squeeze=False)[0]
    for ax, name in zip(panels, dataset.cell.values, strict=True):
        _draw_norms(ax, dataset.sel(cell=name))
        ax.set_title(f"{name} ({float(dataset.critical.sel(cell=name)):.2f})")
    middle.suptitle("Norm against lag at factor · critical gain (in brackets)", fontsize=9)
    panels[0].set_ylabel(r"$\log_{10}\,\|\partial h_T/\partial h_k\|_F$")
    panels[len(panels) // 2].set_xlabel(curves.LAG)
    panels[-1].legend(title="factor", handlelength=2, loc="upper left")
    panels = bottom.subplots(1, dataset.sizes["factor"], sharey=True, squeeze=False)[0]
    for ax, factor in zip(panels, dataset.factor.values, strict=True):
        _draw_line(ax, dataset.sel(factor=factor))
        ax.set_title(f"tanh, {factor:g} · critical gain")
    panels[0].set_ylabel("loss at T (dimensionless)")
    panels[len(panels) // 2].set_xlabel(
        r"step along a random direction of $W_h$, relative to its norm"
    )
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
        xlabel="orders of magnitude above the median",
        ylabel="fraction of initialisations",
        title=r"Tail of $\|\partial L/\partial h_0\|$",
    )
    ax.legend(loc="upper right")


def _draw_norms(ax: Axes, data: xarray.Dataset) -> None:
    looks = zip(("#0072B2", "#000000", "#D55E00"), ("--", "-", "-."), strict=True)
    for (color, linestyle), factor in zip(itertools.cycle(looks), data.factor.values, strict=False):
        look = {"color": color, "linestyle": linestyle, "label": f"{factor:g}"}
        curves.draw_norms(ax, data.lag, data.log_norm.sel(factor=factor), **look)
    ax.set_xlim(0, data.sizes["lag"] - 1)


def _draw_line(ax: Axes, data: xarray.Dataset) -> None:
    for run, color in zip(data.loss.values, ("#000000", "#0072B2", "#D55E00"), strict=False):
        ax.plot(data.place, run, color=color, lw=0.7)
    ax.set_xlim(data.place[0], data.place[-1])
