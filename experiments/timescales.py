"""A weight's gradient reaches as far back as ∂L/∂h_k does, unless there is a loss at every step.

The gradient of every parameter θ is a sum over the steps::

    ∂L/∂θ = Σ_k (∂L/∂s_k) (∂⁺s_k/∂θ)

For every parameter of each cell, the log norm of each component is measured against the lag T - k,
beside that of ∂L/∂h_k: for a loss at the last step, at initialisation, along a short training and
at its end; and for a loss at every step. The task is to give in h what was read some steps before.

Two claims for each cell. With the loss at the last step the component of step k falls with the lag
at the rate of ∂L/∂h_k, so that the weights hear of the last few steps alone; with a loss at every
step the components are level, so that their sum does not show how far back a loss is heard: the two
rates differ, and the level one lies from 0, by less than a tenth of the rate of ∂L/∂h_k. And
training makes the weights hear further back: the lag within which 90 % of the summed norms lie is
larger at its end than at initialisation. Both by 95 % intervals over seeds.

Source: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, eq. 3 to 5 (the temporal components).

    python experiments/timescales.py
    python experiments/timescales.py --full
    python experiments/timescales.py --cells='lstm,lstm(forget_bias=3)' --delay=20

Takes less than a minute on two cores at the defaults, and ten, by estimate, with ``--full``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray
from _kit import cells, curves, decisions, fields, rates, runs

from gradflow import Cell, Params, flow, statistics, study, unroll
from gradflow.study.figure import Axes, Figure
from gradflow.train import Descent, descend

HEARD = 0.9
"""The fraction of the summed norms that defines how far back a gradient reaches."""

FLOOR = -6
"""The log10 of a component over the largest at which the colours of the map end."""

ALIKE = 0.1
"""Rates count as equal if they differ by no more than this fraction of the rate of ∂L/∂h_k."""

PLACES = ("last step, at initialisation", "last step, trained", "every step, at initialisation")
"""Where the loss is, and when the components are measured."""


@dataclass(frozen=True)
class Config(study.Config):
    """Which networks, and what they learn."""

    num_seeds: int = fields.num_seeds(5)
    cells: str = fields.cell("rnn,lstm,gru", several=True)
    hidden_size: int = fields.hidden_size(32)
    input_size: int = fields.input_size(4)
    num_steps: int = fields.num_steps(60)
    delay: int = fields.positive(10, help="Steps after which h is to give what was read.")
    num_updates: int = fields.num_updates(200)
    measure_every: int = fields.positive(20, help="Updates between two measurements.")
    batch_size: int = fields.batch_size(8)
    learning_rate: float = fields.learning_rate(3e-3)


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures each cell; dimensions cell, place or update, parameter, run (a seed), lag."""
    _check(config)
    sizes = config.input_size, config.hidden_size
    made = {spec: cells.factory(spec)(*sizes) for spec in cells.specs(config.cells)}
    parts = [
        once(f"cell={spec}", partial(_measure, config, spec, cell))
        for spec, cell in study.progress(list(made.items()), "cells")
    ]
    return xarray.concat(parts, dim="cell", join="outer").assign_attrs(delay=config.delay)


def _check(config: Config) -> None:
    if config.delay >= config.num_steps:
        raise ValueError(
            f"Expected a delay below num_steps={config.num_steps}, got {config.delay}. "
            "Decrease --delay or increase --num_steps."
        )
    if config.num_updates % config.measure_every:
        raise ValueError(
            f"Expected num_updates to be a multiple of measure_every={config.measure_every}, got "
            f"{config.num_updates}. Change one of the two."
        )
    if config.input_size > config.hidden_size:
        raise ValueError(
            f"Expected no more inputs than the hidden_size={config.hidden_size} units that give "
            f"them, got input_size={config.input_size}. Decrease --input_size."
        )


def last_loss(config: Config, x: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """Gives ½ ‖the first units of h_T - x_{T-delay} / 2‖² as a function of the outputs."""
    target = 0.5 * x[-1 - config.delay]
    return lambda outputs: 0.5 * jnp.sum((outputs[-1, : config.input_size] - target) ** 2)


def every_loss(config: Config, x: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """Gives the mean of the same over the steps that have a target, from delay + 1 on."""
    targets = 0.5 * x[: -config.delay]

    def loss(outputs: jax.Array) -> jax.Array:
        found = outputs[config.delay :, : config.input_size]
        return 0.5 * jnp.mean(jnp.sum((found - targets) ** 2, axis=-1))

    return loss


def _train(config: Config, cell: Cell, params: Params, key: jax.Array) -> Params:
    """Trains by Adam on the loss at every step; the parameters at each measurement, (time, ...)."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(config.learning_rate))

    def loss(params: Params, key: jax.Array) -> jax.Array:
        shape = config.num_steps, config.batch_size, config.input_size
        inputs = jax.random.normal(key, shape, jnp.result_type(*jax.tree.leaves(params)))
        outputs = unroll(cell, params, inputs).outputs
        losses = jax.vmap(lambda x, out: every_loss(config, x)(out), in_axes=1)(inputs, outputs)
        return jnp.mean(losses)

    def gradient(params: Params, key: jax.Array) -> tuple[Params, None]:
        return jax.grad(loss)(params, key), None

    def stretch(descent: Descent, keys: jax.Array) -> tuple[Descent, Params]:
        descent, _ = descend(gradient, optimizer, descent, keys)
        return descent, descent.params

    keys = jax.random.split(key, config.num_updates).reshape(-1, config.measure_every)
    _, along = jax.lax.scan(stretch, Descent.start(optimizer, params), keys)
    return jax.tree.map(lambda one, more: jnp.concatenate([one[None], more]), params, along)


def _measure(config: Config, spec: str, cell: Cell) -> xarray.Dataset:
    along, every = runs.measure(partial(_measure_run, config, cell), runs.keys(config))
    norms, adjoint = (  # by place: initialisation, end, and a loss at every step
        np.concatenate([last[:, [0, -1]], at_first[:, None]], axis=1)
        for last, at_first in zip(along, every, strict=True)
    )
    component: dict[str, Any] = {"units": "nats", "norm": "frobenius"}
    of_h: dict[str, Any] = {"units": "nats", "of": "dL/dh_k"}
    place, time = ("run", "place"), ("run", "update")
    found = xarray.Dataset(
        {
            "log_component": ((*place, "parameter", "lag"), norms, component),
            "log_adjoint": ((*place, "lag"), adjoint, of_h),
            "log_component_along": (
                (*time, "parameter", "lag"),
                along[0],
                {**component, "loss": PLACES[1]},
            ),
            "log_adjoint_along": ((*time, "lag"), along[1], {**of_h, "loss": PLACES[1]}),
        },
        coords={
            "place": list(PLACES),
            "parameter": _parameters(cell),
            "update": (
                "update",
                np.arange(0, config.num_updates + 1, config.measure_every),
                {"units": "updates"},
            ),
            "lag": ("lag", np.arange(config.num_steps), {"units": "steps"}),
        },
    )
    return found.expand_dims(cell=[spec])


def _measure_run(config: Config, cell: Cell, key: jax.Array) -> Any:
    """The components and adjoints of a run along its training, and with a loss at every step."""
    k_params, k_inputs, k_train = jax.random.split(key, 3)
    first = cell.init(k_params)
    x = jax.random.normal(k_inputs, (config.num_steps, config.input_size))

    def components(params: Params, loss: Callable) -> tuple[jax.Array, jax.Array]:
        found = flow.components(cell, params, x, loss=loss)
        heard = flow.log_adjoint_norms(cell, params, x, loss=loss)[1:]
        return jnp.stack(jax.tree.leaves(found))[:, ::-1], heard[::-1]  # index = lag

    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), first)
    along = _train(config, cell, single, k_train)
    # The measurement at initialisation is of the parameters before they were rounded to float32.
    along = jax.tree.map(lambda leaf, one: leaf.astype(one.dtype).at[0].set(one), along, first)
    last = jax.lax.map(lambda params: components(params, last_loss(config, x)), along)
    return last, components(first, every_loss(config, x))


def _parameters(cell: Cell) -> list[str]:
    """The names of the cell's parameters, such as ``f.W_h``."""
    shapes = jax.eval_shape(cell.init, jax.eval_shape(jax.random.key, 0))
    paths = jax.tree_util.tree_leaves_with_path(shapes)
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]


def figure(dataset: xarray.Dataset) -> Figure:
    """A column for each cell: norms against the lag at initialisation, a map of the training."""
    names = [str(cell) for cell in dataset.cell.values]
    fig = study.figure.empty(max(4.0, 0.8 + 2.1 * len(names)), 5.0)
    upper, lower = fig.subfigures(2, 1, height_ratios=(1.15, 1), squeeze=False)[:, 0]
    panels = upper.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for ax, cell in zip(panels, names, strict=True):
        _draw(ax, dataset.sel(cell=cell))
        ax.set_title(f"{cell}, at initialisation")
        curves.lag_axis(ax, dataset)
    panels[0].set_ylabel(r"$\log_{10}$ norm")
    study.figure.legend_above(upper, panels[0])
    _draw_along(lower, dataset)
    return fig


def _draw(ax: Axes, data: xarray.Dataset) -> None:
    last, _, every = PLACES
    adjoint = data.log_adjoint.sel(place=last)
    together = recurrent(data.log_component)
    for values, color, linestyle, label in (
        (adjoint, "#000000", "-", r"$\partial L/\partial h_k$"),
        (together.sel(place=last), "#0072B2", "--", r"component in $W_h$"),
        (together.sel(place=every), "#D55E00", "-.", r"component in $W_h$, loss at every step"),
    ):
        look = {"color": color, "linestyle": linestyle, "label": label}
        curves.draw_norms(ax, data.lag, values, **look)


def _draw_along(fig: Any, dataset: xarray.Dataset) -> None:
    """A map of the components in W_h over update and lag for each cell, over the largest."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    names = [str(cell) for cell in dataset.cell.values]
    panels = fig.subplots(1, len(names), sharey=True, squeeze=False)[0]
    norm = Normalize(FLOOR, 0)
    for ax, cell in zip(panels, names, strict=True):
        data = dataset.sel(cell=cell)
        values = recurrent(data.log_component_along).median("run") / curves.NATS
        shown = (values - values.max("lag")).transpose("lag", "update").values
        shown = np.where(np.isfinite(shown), shown, np.nan)  # that of h_0 = 0 is exactly 0
        look: Any = {"norm": norm, "shading": "nearest", "rasterized": True}
        ax.pcolormesh(data["update"], data.lag, shown, **look)
        ax.grid(False)
        heard = np.median(reaches(data.log_component_along), axis=0)
        ax.plot(data["update"], heard, color="black", lw=2.6)
        ax.plot(data["update"], heard, color="white", lw=1.4, ls="--")
        ax.set_title(f"{cell}, in training")
    panels[0].set_ylabel(curves.LAG)
    fig.supxlabel(
        f"update (dashed: lag within which {HEARD:.0%} of the components lies)", fontsize=9
    )
    scale = fig.colorbar(ScalarMappable(norm), ax=list(panels), extend="min")
    scale.set_label("$\\log_{10}$ component in $W_h$\nover the largest", fontsize=8)


def reach(dataset: xarray.Dataset, place: str) -> np.ndarray:
    """Finds the lag within which HEARD of the summed norms of all components lies, by run."""
    return reaches(dataset.log_component.sel(place=place))


def reaches(log_component: xarray.DataArray) -> np.ndarray:
    """Finds the same for components with dimensions parameter, run, lag, and others after run."""
    components: Any = np.exp(log_component)
    components = components.sum("parameter")
    heard = (components.cumsum("lag") / components.sum("lag")).transpose("run", ..., "lag").values
    return (heard >= HEARD).argmax(axis=-1)


def recurrent(log_component: xarray.DataArray) -> xarray.DataArray:
    """Computes the log norm of the components in all recurrent weights together."""
    names = [
        name for name in log_component.parameter.values if str(name).rpartition(".")[2] == "W_h"
    ]
    squares: Any = np.exp(2 * log_component.sel(parameter=names))
    with np.errstate(divide="ignore"):  # the component of h_0 = 0 is exactly 0
        return 0.5 * np.log(squares.sum("parameter"))


class Rates(NamedTuple):
    """Rates against the lag, in nats per step: of ∂L/∂h_k, and of the components in W_h.

    Attributes:
      adjoint: That of ∂L/∂h_k.
      difference: That of the components, with the loss at the last step, less that of ∂L/∂h_k.
      level: That of the components with a loss at every step.
    """

    adjoint: statistics.Estimate
    difference: statistics.Estimate
    level: statistics.Estimate


def component_rates(data: xarray.Dataset) -> Rates:
    """Estimates the rates of one cell at initialisation."""
    last, _, every = PLACES
    adjoints = rates.slopes(data.log_adjoint.sel(place=last).transpose("run", "lag"))
    together = recurrent(data.log_component).transpose("place", "run", "lag")
    components = {p: rates.slopes(together.sel(place=p)) for p in (last, every)}
    return Rates(
        *map(statistics.estimate, (adjoints, components[last] - adjoints, components[every]))
    )


def widened(data: xarray.Dataset) -> statistics.Estimate:
    """Estimates by how many steps the training widens the lag of HEARD."""
    heard = reaches(data.log_component_along)
    return statistics.estimate(heard[:, -1] - heard[:, 0])


def summary(dataset: xarray.Dataset) -> str:
    """A table of the cells: rates of the components and of ∂L/∂h_k, and how far each reaches."""
    rows = [_row(str(cell), dataset.sel(cell=cell)) for cell in dataset.cell.values]
    note = f"(rates in nats per step; lag within which {HEARD:.0%} of the summed norms lie)"
    return f"{study.table(rows)}\n{note}"


def _row(cell: str, data: xarray.Dataset) -> dict[str, str]:
    found = component_rates(data)
    names = (f"{HEARD:.0%} lag at initialisation", "trained", "loss at every step")
    return {
        "cell": cell,
        "rate of ∂L/∂hₖ": f"{found.adjoint:.3f}",
        "of W_h less that": f"{found.difference:.3f}",
        "of W_h, loss at every step": f"{found.level:.3f}",
        **{
            name: f"{statistics.estimate(reach(data, place)):.1f}"
            for name, place in zip(names, PLACES, strict=True)
        },
    }


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """For each cell: whether the components fall and are level, and whether training widens."""
    names = [str(cell) for cell in dataset.cell.values]
    by_cell = {name: dataset.sel(cell=name) for name in names}
    return [
        *(_fall_and_level(name, data) for name, data in by_cell.items()),
        *(_further(name, data) for name, data in by_cell.items()),
    ]


def _fall_and_level(cell: str, data: xarray.Dataset) -> study.Claim:
    found = component_rates(data)
    room, unit = ALIKE * abs(found.adjoint.value), "nats per step"
    return study.claim(
        decisions.identifier("fall-and-level", cell),
        "With a loss at the last step the components in W_h fall at the rate of ∂L/∂h_k, and with "
        f"a loss at every step they are level ({cell}).",
        decisions.every(decisions.within(one, -room, room) for one in found[1:]),
        measured={
            "rate of ∂L/∂h_k": found.adjoint,
            "rate of the components less that": found.difference,
            "rate with a loss at every step": found.level,
        },
        unit=unit,
        criterion=f"the difference and the level rate lie within ±{ALIKE:.0%} of the rate of "
        "∂L/∂h_k, by their 95 % intervals",
    )


def _further(cell: str, data: xarray.Dataset) -> study.Claim:
    steps, number = widened(data), int(data["update"][-1])
    return study.claim(
        decisions.identifier("hear-further-back", cell),
        f"Training makes the weights hear further back ({cell}).",
        decisions.above(steps),
        measured={f"growth in {number} updates": steps},
        unit="steps",
        criterion=f"the 95 % interval of the growth of the lag within which {HEARD:.0%} of the "
        "summed norms lie is above 0",
    )


EXPERIMENT = study.Experiment(
    name="timescales",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    section="flow",
    order=11,
    gallery={"timescales": study.Picture()},
    quick={
        "cells": "rnn,lstm",
        "hidden_size": 6,
        "input_size": 2,
        "num_steps": 14,
        "delay": 3,
        "num_updates": 6,
        "measure_every": 2,
        "num_seeds": 3,
    },
    full={
        "num_seeds": 10,
        "hidden_size": 64,
        "num_steps": 120,
        "delay": 20,
        "num_updates": 3000,
        "measure_every": 100,
    },
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
