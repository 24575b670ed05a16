"""All measurements of one cell on one page: where its gradient goes, and what it does on the way.

Norms of ∂h_T/∂h_k by lag and for every pair, all singular values and the effective rank, Lyapunov
exponents, the adjoints ∂L/∂h_k of two losses, the part of every step in the gradient of the
parameters, and the gates. Each panel is one function of `gradflow.flow`; docs/measurements.md has
the equations. The claim: all measurements give one and the same factor per step.

Source: see the functions.

    python experiments/measurements.py --cell=lstm
    python experiments/measurements.py --cell=path/to/mine.py:my_cell --num_steps=200

Takes about half a minute on two cores at the defaults.
"""

import itertools
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from _kit import cells, curves, fields, rates, runs
from jax.scipy.special import logsumexp

from gradflow import flow, study

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradflow import Cell, Params

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINESTYLES = ("-", "--", "-.", ":", (0, (3, 1, 1, 1, 1, 1)), (0, (8, 2)))

AGREE = 0.05
"""The relative difference up to which two factors per step agree."""


@dataclass(frozen=True)
class Config(study.Config):
    """What is measured, on what."""

    cell: str = fields.cell("lstm")
    hidden_size: int = fields.hidden_size(16)
    input_size: int = fields.input_size(8)
    num_steps: int = fields.num_steps(60)
    inputs: str = fields.inputs()


def last_loss(outputs: jax.Array) -> jax.Array:
    """Computes half the square of the last output."""
    return 0.5 * jnp.sum(outputs[-1] ** 2)


def mean_loss(outputs: jax.Array) -> jax.Array:
    """Computes half the mean square of the outputs of all steps."""
    return 0.5 * jnp.mean(jnp.sum(outputs**2, axis=-1))


LOSSES = {"last step": last_loss, "every step": mean_loss}


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Measures one cell; the dimension run is a seed."""
    inputs = runs.inputs(config)
    cell = cells.factory(config.cell)(inputs.shape[-1], config.hidden_size)
    return once(f"cell={config.cell}", partial(_measure, config, cell, inputs))


def _measure(config: Config, cell: "Cell", inputs: jax.Array) -> "xarray.Dataset":
    import xarray

    params = runs.initialise(cell, runs.keys(config))
    results = runs.measure(partial(_one_run, cell), params, inputs)
    dims = {
        "log_norm": ("lag",),
        "log_norm_map": ("later", "earlier"),
        "log_singular_value": ("lag", "index"),
        "effective_rank": ("lag",),
        "exponent": ("exponent_index",),
        "log_adjoint_norm": ("loss", "earlier"),
        "log_component": ("parameter", "step"),
        "gate": ("gate_name", "step"),
        "saturation": ("gate_name", "step"),
    }
    units = {"effective_rank": "1", "gate": "1", "saturation": "1", "exponent": "nats per step"}
    return xarray.Dataset(
        {
            name: (("run", *dims[name]), value, {"units": units.get(name, "nats")})
            for name, value in results.items()
        },
        coords={
            **curves.coordinates(config.num_steps),
            "loss": list(LOSSES),
            "parameter": _parameter_names(params),
            **_gate_names(cell, params, inputs),
        },
        attrs={"cell": config.cell},
    )


def _one_run(cell: "Cell", params: "Params", x: jax.Array) -> dict[str, jax.Array]:
    log_values = flow.log_singular_values(cell, params, x)
    measured = {
        "log_norm": flow.log_norms(cell, params, x),
        "log_norm_map": flow.log_norm_map(cell, params, x),
        "log_singular_value": log_values,
        "effective_rank": flow.effective_rank(log_values),
        "exponent": flow.lyapunov_exponents(cell, params, x, burn_in=len(x) // 4).exponents,
        "log_adjoint_norm": jnp.stack(
            [flow.log_adjoint_norms(loss, cell, params, x) for loss in LOSSES.values()]
        ),
        "log_component": _by_parameter(flow.components(last_loss, cell, params, x)),
    }
    if cell.gates is None:
        return measured
    gates = flow.gates(cell, params, x)
    saturated = flow.saturation(gates)
    return measured | {
        "gate": jnp.stack([gates[name].mean(axis=1) for name in sorted(gates)]),
        "saturation": jnp.stack([saturated[name].sum(axis=1) for name in sorted(gates)]),
    }


def _last_key(path: tuple) -> str:
    return jax.tree_util.keystr(path[-1:], simple=True) or "parameters"


def _parameter_names(params: "Params") -> list[str]:
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    return sorted({_last_key(path) for path in paths})


def _by_parameter(log_norms: "Params") -> jax.Array:
    """One row for each kind of parameter, such as W_h, of all gates together."""
    leaves = jax.tree_util.tree_leaves_with_path(log_norms)

    def together(name: str) -> jax.Array:
        same = jnp.stack([leaf for path, leaf in leaves if _last_key(path) == name])
        return 0.5 * logsumexp(2 * same, axis=0)

    return jnp.stack([together(name) for name in _parameter_names(log_norms)])


def _gate_names(cell: "Cell", params: "Params", inputs: jax.Array) -> dict[str, list[str]]:
    """The coordinate of the gates, for a cell that has them."""
    if cell.gates is None:
        return {}
    gates = jax.eval_shape(cell.gates, params, cell.initial_carry(), inputs[0, 0])
    return {"gate_name": sorted(gates)}


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Nine panels, each of them one measurement."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7.4, 6.8))
    axes = fig.subplots(3, 3)
    log10 = dataset / curves.NATS
    _lines(axes[0, 0], dataset.lag, {"": log10.log_norm})
    _title(axes[0, 0], "log_norms", r"$\log_{10}\|\partial h_T/\partial h_k\|$", "lag T − k")
    _draw_map(axes[0, 1], log10.log_norm_map)
    values = log10.log_singular_value.median("run")
    axes[0, 2].plot(dataset.lag, values.where(np.isfinite(values)), color=COLORS[0], lw=0.7)
    _title(axes[0, 2], "log_singular_values", r"$\log_{10}\sigma_i$", "lag T − k")
    _lines(axes[1, 0], dataset.lag, {"": dataset.effective_rank})
    _title(axes[1, 0], "effective_rank", "directions", "lag T − k")
    number = np.arange(1, dataset.sizes["exponent_index"] + 1)
    _lines(axes[1, 1], number, {"": dataset.exponent})
    _title(axes[1, 1], "lyapunov_exponents", "nats per step", "index, largest first")
    _lines(axes[1, 2], np.arange(dataset.sizes["earlier"]), _split(log10.log_adjoint_norm))
    _title(
        axes[1, 2],
        "log_adjoint_norms, by loss",
        r"$\log_{10}\|\partial L/\partial h_k\|$",
        "step k",
    )
    _lines(axes[2, 0], dataset.step, _split(log10.log_component))
    _title(axes[2, 0], "components, by parameter", r"$\log_{10}$ norm of the part", "step k")
    if "gate" in dataset:
        _lines(axes[2, 1], dataset.step, _split(dataset.gate))
        _title(axes[2, 1], "gates, mean over units", "activation", "step t")
        _lines(axes[2, 2], dataset.step, _split(dataset.saturation))
        _title(axes[2, 2], "saturation", "fraction of the units", "step t")
    else:
        for ax in axes[2, 1:]:
            ax.set_axis_off()
            ax.text(0.5, 0.5, "the cell has no gates", ha="center", transform=ax.transAxes)
    fig.suptitle(f"{dataset.attrs['cell']}: median and 10–90 % over runs", fontsize=10)
    return fig


def _split(array: "xarray.DataArray") -> dict[str, "xarray.DataArray"]:
    """The parts along the second dimension, by name."""
    name = str(array.dims[1])
    return {str(value): array.sel({name: value}) for value in array[name].values}


def _lines(ax: "Axes", x: np.ndarray, parts: dict[str, "xarray.DataArray"]) -> None:
    looks = itertools.cycle(zip(COLORS, LINESTYLES, strict=True))
    for (label, values), (color, line) in zip(parts.items(), looks, strict=False):
        study.figure.band(ax, x, values, "run", label=label, color=color, linestyle=line)
    if len(parts) > 1:
        low, high = ax.get_ylim()
        ax.set_ylim(low, high + 0.2 * (high - low))  # room for the legend
        look = {"fontsize": 7, "handlelength": 1.6, "columnspacing": 0.8}
        ax.legend(loc="upper center", ncols=len(parts), **look)
    ax.margins(x=0)


def _draw_map(ax: "Axes", log10: "xarray.DataArray") -> None:
    median = np.median(log10.values, axis=0)
    image = ax.imshow(np.where(np.isfinite(median), median, np.nan), origin="lower")
    ax.figure.colorbar(image, ax=ax, shrink=0.8)
    ax.grid(False)
    _title(ax, "log_norm_map", "later step t", "earlier step k")


def _title(ax: "Axes", title: str, ylabel: str, xlabel: str) -> None:
    ax.set_title(title, fontsize=8)
    ax.set_ylabel(ylabel, fontsize=8)
    ax.set_xlabel(xlabel, fontsize=8)


def factors(dataset: "xarray.Dataset") -> dict[str, float]:
    """The factor per step by each measurement that gives one."""
    from_the_end = dataset.log_adjoint_norm.sel(loss="last step").values[:, ::-1]
    curves_by_name = {
        "log_norms": dataset.log_norm.values,
        "log_singular_values, the largest": dataset.log_singular_value.values[:, :, 0],
        "log_adjoint_norms, last step": from_the_end,
    }
    found = {name: rates.slopes(values).mean() for name, values in curves_by_name.items()}
    found["lyapunov_exponents, the largest"] = dataset.exponent.isel(exponent_index=0).mean()
    return {name: float(np.exp(rate)) for name, rate in found.items()}


def summary(dataset: "xarray.Dataset") -> str:
    """The factor per step by each measurement."""
    rows = [
        {"measurement": name, "factor per step": f"{factor:.4f}"}
        for name, factor in factors(dataset).items()
    ]
    return f"{study.table(rows)}\nover {dataset.sizes['lag'] - 1} steps"


def claims(dataset: "xarray.Dataset") -> list[study.Claim]:
    """Whether all measurements give one factor per step."""
    found = factors(dataset)
    low, high = min(found.values()), max(found.values())
    return [
        study.claim(
            "one-factor",
            "All measurements give one and the same factor per step.",
            high / low - 1 <= AGREE if np.isfinite(high / low) else None,
            measured=found,
            criterion=f"the largest factor is at most {AGREE:.0%} larger than the smallest",
        )
    ]


EXPERIMENT = study.Experiment(
    name="measurements",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    section="flow",
    order=2,
    gallery={"measurements": study.Picture()},
    quick={"hidden_size": 4, "num_steps": 12, "num_seeds": 2, "input_size": 3},
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
