"""The measurements of one cell on one page: where its gradient goes, and what it does on the way.

By default norms of ∂h_T/∂h_k by lag and for every pair, all singular values, Lyapunov exponents,
the adjoints ∂L/∂h_k, and the gates. ``--what`` takes any names of `gradflow.flow.CATALOGUE`, which
says what each computes; the loss is half the square of the last output. The claim: all measurements
of the gradient give one and the same factor per step.

Source: see the functions.

    python experiments/measurements.py --cell=lstm
    python experiments/measurements.py --cell=path/to/mine.py:my_cell --num_steps=200
    python experiments/measurements.py --what=log_norms,decomposition_norms,cut_slopes
    python experiments/measurements.py --params=path/to/lstm.safetensors --inputs=npy:PATH

Takes about half a minute on two cores at the defaults.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import fields, rates, runs, subjects

import gradflow
from gradflow import Cell, flow, study
from gradflow.report.drawing import draw_page
from gradflow.spec import check_name
from gradflow.study.figure import Figure

AGREE = 0.05
"""The relative difference up to which two factors per step agree."""


@dataclass(frozen=True)
class Config(study.Config):
    """What is measured, on what."""

    cell: str | None = fields.cell(None, without="lstm, or the cell of --params")
    params: tuple[str, ...] | None = fields.params()
    hidden_size: int = fields.hidden_size(16)
    input_size: int = fields.input_size(8)
    num_steps: int = fields.num_steps(60)
    inputs: str = fields.inputs("gaussian")
    what: tuple[str, ...] = study.field(
        (
            "log_norms",
            "log_norm_map",
            "log_singular_values",
            "lyapunov_exponents",
            "log_adjoint_norms",
            "gates",
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


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
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
    config: Config, name: str, cell: Cell, path: str | None, inputs: jax.Array
) -> xarray.Dataset:
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


def figure(dataset: xarray.Dataset) -> Figure:
    """A panel for each measurement, drawn as the catalogue says."""
    names = [str(name) for name in np.atleast_1d(dataset.attrs["what"])]
    title = f"{dataset.attrs['cell']}: median and 10–90 % over runs"
    return draw_page(dataset, names, title)


def factors(dataset: xarray.Dataset) -> dict[str, float]:
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


def summary(dataset: xarray.Dataset) -> str:
    """The factor per step by each measurement, of the largest value where it gives several."""
    rows = [
        {"measurement": name, "factor per step": f"{factor:.4f}"}
        for name, factor in factors(dataset).items()
    ]
    found = study.table(rows) if rows else "No measurement gives a factor per step."
    return "\n".join([found, *runs.axes_note(dataset)])


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
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
