"""What carries the gradient of an LSTM's cell state, and where its one-line formula goes wrong.

For c_t = f_t ∘ c_{t-1} + i_t ∘ g_t and h_t = o_t ∘ tanh(c_t), the constant error carousel is the
path on which c_t is carried over. The common formula treats it as the only one::

    ∂c_T/∂c_k = diag(f_T ∘ ... ∘ f_{k+1})

Beside its norm: that of the product of the whole M_t = dc_t/dc_{t-1}, which contains the paths
through the forget gate, the input gate and the candidate as well; and the exact dc_T/dc_k, which
adds the output gates' paths. Below them the fraction of each path in the exact one: with a factor α
on every path, ∂ log ‖dc_T/dc_k‖ / ∂ log α over the lag; the fractions sum to 1. The claim: the
formula is right at the first lags only, and then wrong by a factor that grows exponentially with
the lag.

Source: Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735 (the carousel, its
gradient truncated to this path); Gers, Schmidhuber, Cummins 2000, doi:10.1162/089976600300015015
(the forget gate).

    python experiments/constant_error_carousel.py
    python experiments/constant_error_carousel.py --cell='lstm,lstm(coupled=True)' --gain=1.5

Takes about a minute on two cores at the defaults.
"""

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import xarray
from _kit import cells, curves, decisions, fields, rates, runs

from gradflow import Cell, Params, flow, statistics, study
from gradflow.study.figure import Axes, Figure

FACTOR = 2.0
"""The factor in the norm from which the one-line formula counts as wrong."""

CURVES = {
    "product_forget": ("one-line formula", "#D55E00", "--", 1.4),
    "product_total": (r"product of $M_t$", "#56B4E9", "-", 3.5),
    "exact_total": (r"exact $dc_T/dc_k$", "#000000", "-", 1.0),
}
"""Norms against lag: label, colour, line style and width of each."""

PATHS = {
    "forget": ("carried over", "#000000", "-"),
    "through_f": ("forget gate", "#0072B2", "-."),
    "through_i": ("input gate", "#009E73", ":"),
    "through_g": ("candidate", "#D55E00", "--"),
    "through_o": ("output gate", "#CC79A7", (0, (3, 1, 1, 1, 1, 1))),
}
"""Paths of `flow.steps_by_path`: label, colour and line style of each."""


@dataclass(frozen=True)
class Config(study.Config):
    """What is measured, on what."""

    cell: str = fields.cell(
        "lstm(forget_gate=False),lstm(forget_bias=0),lstm,lstm(forget_bias=3),lstm(peephole=True)",
        several=True,
    )
    hidden_size: int = fields.hidden_size(32)
    input_size: int = fields.input_size(16)
    num_steps: int = fields.num_steps(100)
    inputs: str = fields.inputs("gaussian")
    gain: float = fields.gain(1.0)


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures each cell; dimensions cell, run (a seed), and lag or step."""
    specs = cells.specs(config.cell)
    inputs = runs.inputs(config)
    made = {
        spec: cells.factory(spec, gain=config.gain)(inputs.shape[-1], config.hidden_size)
        for spec in specs
    }
    parts = [
        once(f"cell={spec}", partial(_measure, config, spec, cell, inputs))
        for spec, cell in study.progress(list(made.items()), "cells")
    ]
    return _with_error(xarray.concat(parts, dim="cell"))


def _measure(config: Config, spec: str, cell: Cell, inputs: jax.Array) -> xarray.Dataset:
    def one_run(params: Params, x: jax.Array) -> tuple:
        return (
            flow.decomposition_norms(cell, params, x),
            flow.steps_by_path(cell, params, x),
            flow.gates(cell, params, x)["f"].mean(),
        )

    params = runs.initialise(cell, runs.keys(config))
    norms, paths, f = runs.measure(one_run, params, inputs)
    terms = [*flow.Decomposition._fields, "total"]
    nats = {"units": "nats", "norm": "spectral"}

    def stacked(values: tuple, names: list[str]) -> np.ndarray:
        return np.stack([getattr(values, name) for name in names], axis=-1)[None]

    return xarray.Dataset(
        {
            "log_norm_of_term": (("cell", "run", "step", "term"), stacked(norms, terms), nats),
            "log_norm": (("cell", "run", "lag", "curve"), stacked(norms, list(CURVES)), nats),
            "steps_by_path": (
                ("cell", "run", "lag", "path"),
                stacked(paths, list(PATHS)),
                {"units": "steps"},
            ),
            "mean_forget_gate": (("cell", "run"), f[None], {"units": "1"}),
        },
        coords={
            "cell": [spec],
            "term": terms,
            "curve": list(CURVES),
            "path": list(PATHS),
            **curves.coordinates(config.num_steps),
        },
    )


def _with_error(dataset: xarray.Dataset) -> xarray.Dataset:
    """The record, with where the one-line formula goes wrong and by how much."""
    norms = dataset.log_norm.sel
    off = norms(curve="product_forget", drop=True) - norms(curve="exact_total", drop=True)
    median = off.median("run")
    wrong = abs(median) > np.log(FACTOR)
    return dataset.assign(
        one_line_error=off.assign_attrs(units="nats", of="one-line formula over exact dc_T/dc_k"),
        wrong_from_lag=wrong.lag.where(wrong, np.inf)
        .min("lag")
        .assign_attrs(
            units="steps",
            meaning=f"first lag at which the median norm is off by a factor of {FACTOR:g}, or inf",
        ),
        error_at_last_lag=median.isel(lag=-1, drop=True).assign_attrs(units="nats"),
    )


def figure(dataset: xarray.Dataset) -> Figure:
    """A column for each cell: norms against lag, and below them the fraction of each path."""
    names = [str(cell) for cell in dataset.cell.values]
    fig = study.figure.empty(max(4.5, 1.2 + 1.45 * len(names)), 4.8)
    top, bottom = fig.subfigures(2, 1, squeeze=False)[:, 0]
    for part, draw in ((top, _draw_curves), (bottom, _draw_fractions)):
        panels = part.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for ax, name in zip(panels, names, strict=True):
            draw(ax, dataset.sel(cell=name))
            ax.set_title(_short(name), fontsize=8)
            ax.set_xlim(0, dataset.sizes["lag"] - 1)
        study.figure.legend_above(part, panels[0])
    top.supylabel(r"$\log_{10}$ spectral norm", fontsize=9)
    bottom.supylabel("fraction of the path", fontsize=9)
    bottom.supxlabel(f"{curves.LAG}: median and 10–90 %", fontsize=9)
    return fig


def _short(cell: str) -> str:
    """The options alone, where the name is that of the LSTM."""
    inside = cell.removeprefix("lstm(").removesuffix(")")
    return inside.replace("_", " ").replace("=", " = ")


def _draw_curves(ax: Axes, data: xarray.Dataset) -> None:
    for name, (label, color, linestyle, width) in CURVES.items():
        look = {"color": color, "linestyle": linestyle, "linewidth": width, "label": label}
        curves.draw_norms(ax, data.lag, data.log_norm.sel(curve=name), **look)


def _draw_fractions(ax: Axes, data: xarray.Dataset) -> None:
    lags = data.lag[1:]
    for name, (label, color, linestyle) in PATHS.items():
        fractions = data.steps_by_path.sel(path=name)[:, 1:] / lags
        look = {"color": color, "linestyle": linestyle, "label": label}
        study.figure.band(ax, lags, fractions, "run", **look)


def summary(dataset: xarray.Dataset) -> str:
    """For each cell, where the one-line formula goes wrong, by how much, and its path's part."""
    rows = study.table([_row(str(c), dataset.sel(cell=c)) for c in dataset.cell.values])
    log10 = dataset.error_at_last_lag / curves.NATS
    worst = log10[int(np.argmax(np.abs(log10.values)))]
    return (
        f"{rows}\nThe one-line formula over the exact norm at lag {dataset.sizes['lag'] - 1} is "
        f"10^{float(log10.min()):.1f} to 10^{float(log10.max()):.1f}; it is furthest off for "
        f"{worst.cell.item()}."
    )


def _row(cell: str, data: xarray.Dataset) -> dict[str, str]:
    lag = float(data.wrong_from_lag)
    fraction = (data.steps_by_path.isel(lag=-1) / data.lag[-1]).median("run")
    return {
        "cell": cell,
        "mean f": f"{float(data.mean_forget_gate.mean()):.2f}",
        f"off by {FACTOR:g}x from lag": f"{lag:.0f}" if np.isfinite(lag) else "never",
        "log10 error at the last": f"{float(data.error_at_last_lag) / curves.NATS:+.1f}",
        "fraction of the formula's path": f"{float(fraction.sel(path='forget')):.2f}",
    }


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """Whether the error of the one-line formula grows exponentially with the lag."""
    names = [str(name) for name in dataset.cell.values]
    growth = {
        name: statistics.estimate(rates.slopes(-dataset.one_line_error.sel(cell=name)))
        for name in names
    }
    return [
        study.claim(
            "one-line-error-grows",
            "The product of the forget gates falls behind the exact ‖dc_T/dc_k‖ by a factor that "
            "grows exponentially with the lag.",
            decisions.every(decisions.above(rate) for rate in growth.values()),
            measured=growth,
            unit="nats per step",
            criterion="the 95 % interval of the error's slope against the lag lies above 0 for "
            "every cell",
        )
    ]


EXPERIMENT = study.Experiment(
    name="constant_error_carousel",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    section="flow",
    order=8,
    gallery={"constant_error_carousel": study.Picture()},
    quick={"cell": "lstm,lstm(peephole=True)", "hidden_size": 8, "num_steps": 20, "num_seeds": 3},
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
