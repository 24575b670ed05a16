"""The figure of the study."""

from typing import Any

import xarray
from _kit import curves, rates

from gradflow import study
from gradflow.study.figure import Axes, Figure
from normalisation.measuring import INPUT_FACTORS


def figure(dataset: xarray.Dataset) -> Figure:
    """Layer norm within the step and between layers, dropout, zoneout, and the γ of batch norm."""
    fig = study.figure.empty(7.0, 5.6)
    (within, between, dropout), (zoneout, batch, slopes) = fig.subplots(2, 3)
    cells = {
        "lstm": "lstm",
        "lstm_layer_norm": "lstm, norm",
        "gru": "gru",
        "gru_layer_norm": "gru, norm",
    }
    _draw_nets(within, dataset, cells)
    within.set(title="Layer norm within the step", ylabel=curves.NORM)
    stacks = {"stack": "none", "stack_between": "between layers", "stack_within": "within steps"}
    _draw_nets(between, dataset, stacks)
    between.set(title="Two LSTMs, lower h to upper")
    _draw_dropout(dropout, dataset)
    zoned = dataset.log_norm_zoneout
    _draw_shades(zoneout, dataset.lag, [zoned.sel(zoneout=r) for r in dataset.zoneout.values])
    zoneout.set(title="LSTM under zoneout", ylabel=curves.NORM)
    zoneout.legend(zoneout.lines, [f"{r:g}" for r in dataset.zoneout.values], title="rate")
    norms = dataset.log_adjoint.sel(input_factor=1)
    _draw_shades(batch, dataset.lag, [norms.sel(gamma=g) for g in dataset.gamma.values])
    batch.set(
        title=r"Batch norm, $\gamma_x = \gamma$", ylabel=r"$\log_{10}\,\|\partial L/\partial h_k\|$"
    )
    gammas = [f"{gamma:g}" for gamma in dataset.gamma.values]
    batch.legend(batch.lines, gammas, title=r"$\gamma$", ncols=2, fontsize=7, handlelength=1.5)
    _draw_slopes(slopes, dataset)
    for ax in (within, between, dropout, zoneout, batch):
        curves.lag_axis(ax, dataset)
    return fig


def _draw_nets(ax: Axes, dataset: xarray.Dataset, labels: dict[str, str]) -> None:
    for index, (net, label) in enumerate(labels.items()):
        look = study.figure.cell_style(net, index) | {"label": label}
        curves.draw_norms(ax, dataset.lag, dataset.log_norm.sel(net=net), **look)
    ax.legend(loc="lower left", fontsize=7, handlelength=2.2)


def _draw_shades(ax: Axes, lag: xarray.DataArray, norms: list[xarray.DataArray]) -> None:
    """Curves from dark to light, in the order given."""
    for curve, color in zip(norms, curves.shades(len(norms)), strict=True):
        curves.draw_norms(ax, lag, curve, color=color)


def _draw_dropout(ax: Axes, dataset: xarray.Dataset) -> None:
    looks = {"variational": ("#0072B2", "-"), "per step": ("#D55E00", "--")}
    for kind, (color, linestyle) in looks.items():
        for index, rate in enumerate(dataset.dropout.values):
            norms = dataset.log_norm_dropout.sel(kind=kind, dropout=rate)
            look = {"color": color, "linestyle": linestyle, "lw": 0.7 + 0.6 * index}
            if rate == 0:  # both kinds are then the LSTM itself
                look |= {"color": "#000000", "linestyle": ":", "lw": 1.4}
            label = f"{kind}, {rate:g}" if rate else "none" if kind == "variational" else None
            curves.draw_norms(ax, dataset.lag, norms, label=label, **look)
    ax.set_title("LSTM under dropout of h")
    ax.legend(loc="lower left", fontsize=7, handlelength=1.8, labelspacing=0.3)


def _draw_slopes(ax: Axes, dataset: xarray.Dataset) -> None:
    found = rates.slopes(dataset.log_adjoint)
    looks = zip(INPUT_FACTORS, ("#0072B2", "#D55E00"), "so", strict=True)
    for at, (factor, color, marker) in enumerate(looks):
        label = r"$\gamma_x = \gamma$" if factor == 1 else rf"$\gamma_x = {factor:g}\,\gamma$"
        look: Any = {"color": color, "marker": marker, "ls": "none", "markevery": 1}
        study.figure.band(ax, dataset.gamma, found[:, at], 0, label=label, **look)
        ax.plot(dataset.gamma, dataset.theory[at], color=color, lw=1, ls="--")
    ax.set(
        xlabel=r"$\gamma$ (dimensionless)",
        ylabel="growth (nats per step)",
        title="Batch norm (lines: theory)",
    )
    ax.legend()
