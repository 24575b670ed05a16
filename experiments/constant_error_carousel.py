"""What carries the gradient of an LSTM's cell state, and where its one-line formula goes wrong.

For c_t = f_t ∘ c_{t-1} + i_t ∘ g_t and h_t = o_t ∘ tanh(c_t), the constant error carousel is the
path on which c_t is carried over. The common formula takes it for all there is::

    ∂c_T/∂c_k = diag(f_T ∘ ... ∘ f_{k+1})

Beside its norm: that of the product of the whole M_t = dc_t/dc_{t-1}, which has the paths through
the forget gate, the input gate and the candidate as well; and the exact dc_T/dc_k, which has the
output gates' on top. Below them the share of each path in the exact one: with a factor α on
every path, ∂ log ‖dc_T/dc_k‖ / ∂ log α over the lag, which sum to 1. The claim: the formula is
right at the first lags only, and then wrong by a factor that grows exponentially with the lag.

Source: Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735 (the carousel, its
gradient truncated to this path); Gers, Schmidhuber, Cummins 2000, doi:10.1162/089976600300015015
(the forget gate).

    python experiments/constant_error_carousel.py
    python experiments/constant_error_carousel.py --cell='lstm,lstm(coupled=True)' --gain=1.5

Takes about a minute on two cores at the defaults.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from gradflow import flow, study
from gradflow.cells import resolve
from gradflow.devices import map_runs
from gradflow.spec import split_specs
from gradflow.structure import check_structure
from gradflow.tasks.inputs import make_inputs

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradflow import Cell, Params

FACTOR = 2.0
"""The factor in the norm from which the one-line formula counts as wrong."""

CURVES = {
    "product_forget": ("one-line formula", "#D55E00", "--", 1.4),
    "product_total": (r"product of $M_t$", "#56B4E9", "-", 3.5),
    "exact_total": (r"exact $dc_T/dc_k$", "#000000", "-", 1.0),
}
"""Norms against lag: how each is called, and drawn."""

PATHS = {
    "forget": ("carried over", "#000000", "-"),
    "through_f": ("forget gate", "#0072B2", "-."),
    "through_i": ("input gate", "#009E73", ":"),
    "through_g": ("candidate", "#D55E00", "--"),
    "through_o": ("output gate", "#CC79A7", (0, (3, 1, 1, 1, 1, 1))),
}
"""Paths of `flow.steps_by_path`: how each is called, and drawn."""


@dataclass(frozen=True)
class Config(study.Config):
    """What is measured, on what."""

    cell: str = study.field(
        "lstm(forget_gate=False),lstm(forget_bias=0),lstm,lstm(forget_bias=3),lstm(peephole=True)",
        help="LSTMs, separated by commas: lstm with options, path/to/file.py:factory or "
        "package.module:factory.",
    )
    hidden_size: int = study.field(32, help="Hidden units.", positive=True)
    input_size: int = study.field(16, help="Channels of inputs that can have any number.")
    num_steps: int = study.field(100, help="Steps T, and so the longest lag.", positive=True)
    inputs: str = study.field(
        "gaussian",
        help="gaussian, constant, impulse, adding, digits, text:PATH, series:PATH:COLUMN or "
        "npy:PATH, the first five with options.",
    )
    gain: float = study.field(
        1.0, help="Gain of the orthogonal recurrent initialiser.", positive=True
    )


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Measures each cell; dimensions cell, run (a seed), and lag or step."""
    import xarray

    specs = split_specs(config.cell)
    if not specs:
        raise ValueError(f"the name of an LSTM is expected, got {config.cell!r}; try lstm")
    inputs = make_inputs(
        config.inputs,
        jax.random.fold_in(jax.random.key(config.seed), 1),
        num_sequences=config.num_seeds,
        num_steps=config.num_steps,
        input_size=config.input_size,
    )
    cells = {spec: _cell(spec, inputs.shape[-1], config) for spec in specs}
    parts = [
        once(f"cell={spec}", partial(_measure, config, spec, cell, inputs))
        for spec, cell in study.progress(list(cells.items()), "cells")
    ]
    return _with_error(xarray.concat(parts, dim="cell"))


def _cell(spec: str, input_size: int, config: Config) -> "Cell":
    factory = partial(resolve(spec), recurrent_init=f"orthogonal(gain={config.gain})")
    check_structure(factory)
    return factory(input_size, config.hidden_size)


def _measure(config: Config, spec: str, cell: "Cell", inputs: jax.Array) -> "xarray.Dataset":
    import xarray

    def one_run(key: jax.Array, x: jax.Array) -> tuple:
        params: Params = cell.init(key)
        return (
            flow.decomposition_norms(cell, params, x),
            flow.steps_by_path(cell, params, x),
            flow.gates(cell, params, x)["f"].mean(),
        )

    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 0), config.num_seeds)
    norms, paths, f = jax.jit(map_runs(one_run))(keys, inputs)
    terms = [*flow.Decomposition._fields, "total"]
    return xarray.Dataset(
        {
            "log_norm_of_term": (
                ("cell", "run", "step", "term"),
                jnp.stack([getattr(norms, name) for name in terms], axis=-1)[None],
                {"units": "nats", "norm": "spectral"},
            ),
            "log_norm": (
                ("cell", "run", "lag", "curve"),
                jnp.stack([getattr(norms, name) for name in CURVES], axis=-1)[None],
                {"units": "nats", "norm": "spectral"},
            ),
            "steps_by_path": (
                ("cell", "run", "lag", "path"),
                jnp.stack([getattr(paths, name) for name in PATHS], axis=-1)[None],
                {"units": "steps"},
            ),
            "mean_forget_gate": (("cell", "run"), f[None], {"units": "1"}),
        },
        coords={
            "cell": [spec],
            "step": ("step", np.arange(1, config.num_steps + 1), {"units": "steps"}),
            "lag": ("lag", np.arange(config.num_steps + 1), {"units": "steps"}),
            "term": terms,
            "curve": list(CURVES),
            "path": list(PATHS),
        },
    )


def _with_error(dataset: "xarray.Dataset") -> "xarray.Dataset":
    """The record, with where the one-line formula goes wrong and by how much."""
    curves = dataset.log_norm.sel
    off = curves(curve="product_forget", drop=True) - curves(curve="exact_total", drop=True)
    median = off.median("run")
    return dataset.assign(
        one_line_error=off.assign_attrs(units="nats", of="one-line formula over exact dc_T/dc_k"),
        wrong_from_lag=_first(abs(median) > np.log(FACTOR)).assign_attrs(
            units="steps",
            meaning=f"first lag at which the median norm is off by a factor of {FACTOR:g}, or inf",
        ),
        error_at_last_lag=median.isel(lag=-1, drop=True).assign_attrs(units="nats"),
    )


def _first(condition: "xarray.DataArray") -> "xarray.DataArray":
    """The first lag at which it holds; infinite where it never does."""
    return condition.lag.where(condition, np.inf).min("lag")


def figure(dataset: "xarray.Dataset") -> "Figure":
    """A column for each cell: norms against lag, and below them the share of each path."""
    from matplotlib.figure import Figure

    cells = [str(cell) for cell in dataset.cell.values]
    fig = Figure(figsize=(max(4.5, 1.2 + 1.45 * len(cells)), 4.8))
    top, bottom = fig.subfigures(2, 1, squeeze=False)[:, 0]
    for part, draw in ((top, _draw_curves), (bottom, _draw_shares)):
        panels = part.subplots(1, len(cells), sharey=True, squeeze=False)[0]
        for ax, cell in zip(panels, cells, strict=True):
            draw(ax, dataset.sel(cell=cell))
            ax.set_title(_short(cell), fontsize=8)
            ax.set_xlim(0, dataset.sizes["lag"] - 1)
        handles, labels = panels[0].get_legend_handles_labels()
        part.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    top.supylabel(r"$\log_{10}$ spectral norm", fontsize=9)
    bottom.supylabel("share of the path", fontsize=9)
    bottom.supxlabel("lag T − k (steps): median and 10–90 %", fontsize=9)
    return fig


def _short(cell: str) -> str:
    """The options alone, where the name says nothing more."""
    inside = cell.removeprefix("lstm(").removesuffix(")")
    return inside.replace("_", " ").replace("=", " = ")


def _draw_curves(ax: "Axes", data: "xarray.Dataset") -> None:
    for name, (label, color, linestyle, width) in CURVES.items():
        decades = data.log_norm.sel(curve=name) / np.log(10)
        look = {"color": color, "linestyle": linestyle, "linewidth": width, "label": label}
        study.figure.band(ax, data.lag, decades, "run", **look)


def _draw_shares(ax: "Axes", data: "xarray.Dataset") -> None:
    lags = data.lag[1:]
    for name, (label, color, linestyle) in PATHS.items():
        shares = data.steps_by_path.sel(path=name)[:, 1:] / lags
        look = {"color": color, "linestyle": linestyle, "label": label}
        study.figure.band(ax, lags, shares, "run", **look)


def summary(dataset: "xarray.Dataset") -> str:
    """For each cell, where the one-line formula goes wrong, by how much, and what it leaves out."""
    rows = study.table([_row(str(c), dataset.sel(cell=c)) for c in dataset.cell.values])
    decades = dataset.error_at_last_lag / np.log(10)
    worst = decades[int(np.argmax(np.abs(decades.values)))]
    return (
        f"{rows}\nthe one-line formula over the exact norm at lag {dataset.sizes['lag'] - 1}: "
        f"10^{float(decades.min()):.1f} to 10^{float(decades.max()):.1f}, "
        f"furthest off for {worst.cell.item()}"
    )


def _row(cell: str, data: "xarray.Dataset") -> dict[str, str]:
    lag = float(data.wrong_from_lag)
    share = (data.steps_by_path.isel(lag=-1) / data.lag[-1]).median("run")
    return {
        "cell": cell,
        "mean f": f"{float(data.mean_forget_gate.mean()):.2f}",
        f"off by {FACTOR:g}x from lag": f"{lag:.0f}" if np.isfinite(lag) else "never",
        "decades off at the last": f"{float(data.error_at_last_lag) / np.log(10):+.1f}",
        "share of the formula's path": f"{float(share.sel(path='forget')):.2f}",
    }


EXPERIMENT = study.Experiment(
    name="constant_error_carousel",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    section="flow",
    order=8,
    gallery={"constant_error_carousel": study.Picture()},
    quick={"cell": "lstm,lstm(peephole=True)", "hidden_size": 8, "num_steps": 20, "num_seeds": 3},
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
