"""All measurements of one cell on one page: where its gradient goes, and what it does on the way.

By default norms of ∂h_T/∂h_k by lag and for every pair, all singular values and the effective rank,
Lyapunov exponents, the adjoints ∂L/∂h_k, the component of every step in the gradient of the
parameters, and the gates. ``--what`` takes any names of `gradflow.flow.CATALOGUE`, which says what
each computes; the loss is half the square of the last output. The claim: all measurements of the
gradient give one and the same factor per step.

Source: see the functions.

    python experiments/measurements.py --cell=lstm
    python experiments/measurements.py --cell=path/to/mine.py:my_cell --num_steps=200
    python experiments/measurements.py --what=log_norms,decomposition_norms,cut_slopes
    python experiments/measurements.py --params=path/to/lstm.safetensors --inputs=npy:PATH

Takes about half a minute on two cores at the defaults.
"""

import itertools
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from _kit import curves, fields, rates, runs, subjects

import gradflow
from gradflow import flow, study
from gradflow.flow.catalogue import Variable
from gradflow.spec import check_name

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradflow import Cell

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINESTYLES = ("-", "--", "-.", ":", (0, (3, 1, 1, 1, 1, 1)), (0, (8, 2)))

AXES = {"lag": "lag T − k", "earlier": "step k", "later": "step t", "step": "step t"}
"""The names of the axes of dimensions; others keep their own."""

AGREE = 0.05
"""The relative difference up to which two factors per step agree."""

COLUMNS = 3


@dataclass(frozen=True)
class Config(study.Config):
    """What is measured, on what."""

    cell: str | None = fields.cell(None, without="lstm, or the cell of --params")
    params: tuple[str, ...] | None = fields.params()
    hidden_size: int = fields.hidden_size(16)
    input_size: int = fields.input_size(8)
    num_steps: int = fields.num_steps(60)
    inputs: str = fields.inputs()
    what: tuple[str, ...] = study.field(
        (
            "log_norms",
            "log_norm_map",
            "log_singular_values",
            "effective_rank",
            "lyapunov_exponents",
            "log_adjoint_norms",
            "components",
            "gates",
            "saturation",
        ),
        help=f"Measurements: {', '.join(flow.CATALOGUE)}. Those of gates are left out for a cell "
        "without gates.",
    )


def last_loss(outputs: jax.Array) -> jax.Array:
    """Computes half the square of the last output."""
    return 0.5 * jnp.sum(outputs[-1] ** 2)


def step_losses(outputs: jax.Array) -> jax.Array:
    """Computes half the square of the output of every step."""
    return 0.5 * jnp.sum(outputs**2, axis=-1)


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Measures one cell; the dimension run is a seed."""
    for name in config.what:
        check_name("measurement", name, flow.CATALOGUE)
    (name, subject), *others = subjects.subjects(config).items()
    if others:
        raise ValueError(
            f"Expected one cell for one page, got {name} and {', '.join(n for n, _ in others)}. "
            "Give one at a time."
        )
    inputs = subjects.inputs(config)
    cell = subject.make(inputs)
    return once(f"cell={name}", partial(_measure, config, name, cell, subject.path, inputs))


def _measure(
    config: Config, name: str, cell: "Cell", path: str | None, inputs: jax.Array
) -> "xarray.Dataset":
    what = [
        name
        for name in config.what
        if flow.CATALOGUE[name].needs != "gates" or cell.gates is not None
    ]
    params = subjects.params(config, cell, path)
    found = gradflow.measure(
        cell,
        params,
        inputs,
        what=what,
        runs=True,
        precision=config.precision,
        **_options(config, what),
    )
    return found.assign_attrs(cell=name, what=what, **runs.axes_read(config))


def _options(config: Config, what: list[str]) -> dict[str, Any]:
    """The options that the measurements need."""
    lags = [lag for lag in (1, 10, 50, 100) if lag <= config.num_steps]
    given = {"loss": last_loss, "losses": step_losses, "lags": lags}
    needed = {str(flow.CATALOGUE[name].needs) for name in what}
    options = {name: value for name, value in given.items() if name in needed}
    if "lyapunov_exponents" in what:
        options["burn_in"] = config.num_steps // 4
    return options


def figure(dataset: "xarray.Dataset") -> "Figure":
    """A panel for each measurement, drawn as the catalogue says."""
    from matplotlib.figure import Figure

    names = [str(name) for name in np.atleast_1d(dataset.attrs["what"])]
    rows = -(-len(names) // COLUMNS)
    fig = Figure(figsize=(7.4, 0.4 + 2.15 * rows))
    panels = fig.subplots(rows, COLUMNS, squeeze=False).flat
    for ax, name in zip(panels, names, strict=False):
        _draw(ax, dataset, name)
    for ax in panels[len(names) :]:
        ax.set_axis_off()
    fig.suptitle(f"{dataset.attrs['cell']}: median and 10–90 % over runs", fontsize=10)
    return fig


def _draw(ax: "Axes", dataset: "xarray.Dataset", name: str) -> None:
    entry = flow.CATALOGUE[name]
    first, *rest = entry.variables
    dims = list(first.dims)
    if entry.kind == "map":
        _draw_map(ax, _whole(dataset[first.name], first))
    elif entry.kind == "matrices":
        ax.text(0.5, 0.5, "not drawn by itself", ha="center", transform=ax.transAxes)
    elif len(dims) > 1 and not first.by_leaf:
        _draw_family(ax, _shown(dataset[first.name]))
    else:
        alike = [v for v in rest if v.dims[0] == dims[0] and v.units == first.units]
        lines = [_lines(dataset[v.name], v) for v in (first, *alike)]
        _draw_lines(ax, {label: line for part in lines for label, line in part.items()})
    unit = {"nats": r"$\log_{10}$", "1": "dimensionless"}.get(first.units, first.units)
    ax.set_title(name.replace("_", " "), fontsize=8)
    vertical = AXES.get(dims[0], dims[0]) if entry.kind == "map" else unit
    horizontal = dims[1] if entry.kind == "map" else dims[0]
    ax.set_ylabel(vertical, fontsize=8)
    ax.set_xlabel(AXES.get(horizontal, horizontal), fontsize=8)


def _shown(array: "xarray.DataArray") -> "xarray.DataArray":
    """What an axis shows: log10 of what is recorded as a natural logarithm."""
    return array / curves.NATS if array.attrs["units"] == "nats" else array


def _whole(array: "xarray.DataArray", variable: Variable) -> "xarray.DataArray":
    """What a map shows: of a pytree of log norms, the norm of all leaves together."""
    if variable.by_leaf:
        array = 0.5 * _log_sum(2 * array, variable.dims[-1])
        array.attrs["units"] = variable.units
    return _shown(array)


def _lines(array: "xarray.DataArray", variable: Variable) -> dict[str, "xarray.DataArray"]:
    """The lines of a variable, (run, x) by label; of a pytree one for each name of a leaf."""
    if not variable.by_leaf:
        return {variable.name.rpartition("_")[2]: _shown(array)}
    leaf = variable.dims[-1]
    values = array.sum(variable.dims[1:-1], keep_attrs=True)  # the sides of a gate's saturation
    labels = [str(name).rpartition(".")[2] for name in values[leaf].values]
    parts = {label: values[..., np.equal(labels, label)] for label in dict.fromkeys(labels)}
    if variable.units == "nats":  # the log norm of all gates together
        parts = {k: 0.5 * _log_sum(2 * v, leaf) for k, v in parts.items()}
        return {k: v / curves.NATS for k, v in parts.items()}
    return {k: v.mean(leaf) for k, v in parts.items()}


def _log_sum(values: "xarray.DataArray", dim: str) -> "xarray.DataArray":
    with np.errstate(invalid="ignore"):  # NaN where there is no pair, above a map's diagonal
        return values.reduce(np.logaddexp.reduce, dim)


def _draw_lines(ax: "Axes", lines: dict[str, "xarray.DataArray"]) -> None:
    looks = itertools.cycle(zip(COLORS, LINESTYLES, strict=True))
    for (label, values), (color, line) in zip(lines.items(), looks, strict=False):
        x = values[values.dims[-1]]
        study.figure.band(ax, x, values, "run", label=label, color=color, linestyle=line)
    if len(lines) > 1:
        low, high = ax.get_ylim()
        ax.set_ylim(low, high + 0.25 * (high - low))  # room for the legend
        columns = min(4, len(lines))
        look: Any = {"fontsize": 7, "handlelength": 1.6, "columnspacing": 0.8}
        ax.legend(loc="upper center", ncols=columns, **look)
    ax.margins(x=0)


def _draw_family(ax: "Axes", array: "xarray.DataArray") -> None:
    """Draws the median of each entry of the last dimension as a thin line."""
    values = array.median("run")
    values = values.where(np.isfinite(values))
    ax.plot(values[values.dims[0]], values, color=COLORS[0], lw=0.7)
    ax.margins(x=0)


def _draw_map(ax: "Axes", array: "xarray.DataArray") -> None:
    values = array.median("run").values
    image = ax.imshow(np.where(np.isfinite(values), values, np.nan), origin="lower")
    ax.figure.colorbar(image, ax=ax, shrink=0.8)
    ax.grid(False)


def factors(dataset: "xarray.Dataset") -> dict[str, float]:
    """The factor per step by each measurement that gives one."""
    by_lag = {
        "log_norms": lambda found: found,
        "log_singular_values": lambda found: found[..., 0],
        "log_adjoint_norms": lambda found: found[:, ::-1],
    }
    found = {
        name: rates.slopes(read(dataset[name].values)).mean()
        for name, read in by_lag.items()
        if name in dataset
    }
    if "lyapunov_exponents" in dataset:
        found["lyapunov_exponents"] = dataset.lyapunov_exponents.isel(exponent=0).mean()
    return {name: float(np.exp(rate)) for name, rate in found.items()}


def summary(dataset: "xarray.Dataset") -> str:
    """The factor per step by each measurement, of the largest value where it gives several."""
    rows = [
        {"measurement": name, "factor per step": f"{factor:.4f}"}
        for name, factor in factors(dataset).items()
    ]
    found = study.table(rows) if rows else "No measurement gives a factor per step."
    return "\n".join([found, *runs.axes_note(dataset)])


def claims(dataset: "xarray.Dataset") -> list[study.Claim]:
    """Whether all measurements give one factor per step; none if fewer than two are measured."""
    found = factors(dataset)
    if len(found) < 2:
        return []
    ratio = max(found.values()) / min(found.values())
    return [
        study.claim(
            "one-factor",
            "All measurements of the gradient give one and the same factor per step.",
            ratio - 1 <= AGREE if np.isfinite(ratio) else None,
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
    files=lambda config: config.params or (),
    gallery={"measurements": study.Picture()},
    quick={"hidden_size": 4, "num_steps": 12, "num_seeds": 2, "input_size": 3},
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
