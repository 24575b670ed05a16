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

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import xarray
from _kit import cells, curves, decisions, fields, rates, runs

from gradflow import Cell, Params, flow, statistics, study
from gradflow.spec import parse_spec
from gradflow.study.figure import Axes, Figure

FACTOR = 2.0
"""The factor in the norm from which the one-line formula counts as wrong."""

CURVES = ("product_forget", "product_total", "exact_total")
"""Norms against lag: of the one-line formula, of the product of the M_t, of the exact dc_T/dc_k."""

PATHS = {
    "forget": ("carried over", "#000000", "s"),
    "through_g": ("candidate", "#D55E00", "o"),
    "through_f": ("forget gate", "#0072B2", "^"),
    "through_i": ("input gate", "#009E73", "v"),
    "through_o": ("output gate", "#CC79A7", "D"),
}
"""Paths of `flow.steps_by_path`: label, colour and marker of each."""


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

    def stacked(values: tuple, names: Iterable[str]) -> np.ndarray:
        return np.stack([getattr(values, name) for name in names], axis=-1)[None]

    return xarray.Dataset(
        {
            "log_norm_of_term": (("cell", "run", "step", "term"), stacked(norms, terms), nats),
            "log_norm": (("cell", "run", "lag", "curve"), stacked(norms, CURVES), nats),
            "steps_by_path": (
                ("cell", "run", "lag", "path"),
                stacked(paths, PATHS),
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
    """The exact norm and the formula's against the lag; the fraction of each path at the last."""
    fig = study.figure.empty(7.0, 3.4)
    left, right = fig.subplots(1, 2, width_ratios=(1.15, 1))
    _draw_curves(left, dataset)
    _draw_fractions(right, dataset)
    return fig


def _short(cell: str) -> str:
    """Writes the options of an LSTM in words: no forget gate, forget bias 3, peephole."""
    name, options = parse_spec(cell)
    given = []
    for key, value in options.items():
        words = key.replace("_", " ")
        switched = words if value else f"no {words}"
        given.append(switched if isinstance(value, bool) else f"{words} {value}")
    return ", ".join(given if given and name == "lstm" else [name, *given])


def _draw_curves(ax: Axes, dataset: xarray.Dataset) -> None:
    for index, cell in enumerate(map(str, dataset.cell.values)):
        norms = dataset.log_norm.sel(cell=cell)
        look = {"color": study.figure.series_style(index)["color"]}
        curves.draw_norms(
            ax, dataset.lag, norms.sel(curve="exact_total"), **look, label=_short(cell)
        )
        curves.draw_norms(ax, dataset.lag, norms.sel(curve="product_forget"), **look, ls="--")
    curves.lag_axis(ax, dataset)
    ax.set_ylabel(r"$\log_{10}\,\|dc_T/dc_k\|$")
    ax.set_title("Exact (solid), product of forget gates (dashed)")
    ax.legend(loc="lower left", handlelength=1.6)


def _draw_fractions(ax: Axes, dataset: xarray.Dataset) -> None:
    names = [str(cell) for cell in dataset.cell.values]
    last = (dataset.steps_by_path / dataset.lag).isel(lag=-1)
    for path, (label, color, marker) in PATHS.items():
        values = last.sel(path=path).transpose("run", "cell")
        places = np.arange(len(names))
        ends = [values.quantile(q, "run") for q in (0.1, 0.9)]
        ax.hlines(places, *ends, color=color, lw=1)
        ax.plot(values.median("run"), places, marker, color=color, label=label)
    ax.set_yticks(range(len(names)), map(_short, names))
    ax.set(ylim=(len(names) - 0.5, -0.5), xlim=(-0.05, 1.05))
    ax.set(xlabel="fraction of the exact norm", title=f"Paths, at lag {int(dataset.lag[-1])}")
    ax.legend(loc="center", bbox_to_anchor=(0.5, 0.5), handlelength=1)


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
