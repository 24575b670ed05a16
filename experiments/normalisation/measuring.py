"""What the study measures: the norms of each network after a warm-up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import curves, fields, runs

from gradflow import Cell, Params, flow, study
from gradflow.cells import lstm
from normalisation.networks import batch_normalised, batch_theory, dropped, zoned

INPUT_FACTORS = (1.0, 0.1)
"""γ_x as a multiple of γ."""


@dataclass(frozen=True)
class Config(study.Config):
    """What is put into the networks, and their sizes."""

    dropout: tuple[float, ...] = study.field((0.0, 0.25, 0.5), help="Rates of dropout.")
    zoneout: tuple[float, ...] = study.field((0.0, 0.1, 0.3, 0.5), help="Rates of zoneout.")
    gammas: tuple[float, ...] = fields.positive(
        (0.1, 0.2, 0.4, 0.7, 1.0, 1.5), help="γ, in ascending order."
    )
    batch_size: int = fields.positive(32, help="Sequences that are normalised together.")
    hidden_size: int = fields.hidden_size(64)
    input_size: int = fields.input_size(16)
    num_steps: int = fields.num_steps(100)
    warm_up: int = fields.positive(50, help="Steps before those that are measured.")


def warmed_inputs(config: Config, channels: int | None = None, stream: int = 0) -> jax.Array:
    """The inputs of every run, with those of the warm-up."""
    num_steps = config.warm_up + config.num_steps
    return runs.inputs(config, num_steps=num_steps, input_size=channels, stream=stream)


def _warm(config: Config, cell: Cell, params: Params, x: jax.Array) -> tuple[Any, jax.Array]:
    """The carry after the warm-up, and the inputs that are left."""

    def step(carry: Any, x: jax.Array) -> tuple[Any, None]:
        return cell.step(params, carry, x)[0], None

    carry, _ = jax.lax.scan(step, cell.initial_carry(), x[: config.warm_up])
    return carry, x[config.warm_up :]


def _log_norms(
    config: Config, cell: Cell, params: Params, x: jax.Array, source: str = "h"
) -> jax.Array:
    carry, x = _warm(config, cell, params, x)
    return flow.log_norms(cell, params, x, source=source, carry=carry)


def _lag(config: Config) -> dict[str, Any]:
    return {"lag": curves.coordinates(config.num_steps)["lag"]}


def measure_net(config: Config, name: str, cell: Cell) -> xarray.Dataset:
    source = "0.h" if name.startswith("stack") else "h"

    def one(params: Params, x: jax.Array) -> jax.Array:
        return _log_norms(config, cell, params, x, source)

    params = runs.initialise(cell, runs.keys(config))
    norms = runs.measure(one, params, warmed_inputs(config))
    return xarray.Dataset(
        {"log_norm": (("net", "run", "lag"), norms[None], {"units": "nats"})},
        coords={"net": [name], **_lag(config)},
    )


def _by_rate(
    config: Config, cell: Cell, noise: Sequence[jax.Array], probabilities: tuple[float, ...]
) -> np.ndarray:
    """Log norms of a cell under each kind of noise, (kind, run, rate, lag), in one program."""

    def one(params: Params, x: jax.Array) -> jax.Array:
        def at(rate: jax.Array) -> jax.Array:
            return _log_norms(config, cell, {"cell": params, "rate": rate}, x)

        return jax.lax.map(at, jnp.asarray(probabilities))

    x, params = warmed_inputs(config), runs.initialise(cell, runs.keys(config))
    inputs = jnp.concatenate([jnp.concatenate([x, u], axis=-1) for u in noise])
    params = jax.tree.map(lambda leaf: jnp.concatenate([leaf] * len(noise)), params)
    found = runs.measure(one, params, inputs)
    return found.reshape(len(noise), config.num_seeds, *found.shape[1:])


def _noise(config: Config, channels: int) -> jax.Array:
    """Uniform numbers of every run, (runs, T, channels)."""
    shape = config.warm_up + config.num_steps, channels
    return jax.vmap(lambda key: jax.random.uniform(runs.stream(key, 0), shape))(runs.keys(config))


def measure_dropout(config: Config) -> xarray.Dataset:
    cell, u = (
        dropped(lstm(config.input_size, config.hidden_size)),
        _noise(config, config.hidden_size),
    )
    kinds = {"variational": jnp.broadcast_to(u[:, :1], u.shape), "per step": u}
    norms = _by_rate(config, cell, list(kinds.values()), config.dropout)
    return xarray.Dataset(
        {"log_norm_dropout": (("kind", "run", "dropout", "lag"), norms, {"units": "nats"})},
        coords={"kind": list(kinds), "dropout": list(config.dropout), **_lag(config)},
    )


def measure_zoneout(config: Config) -> xarray.Dataset:
    cell = zoned(lstm(config.input_size, config.hidden_size))
    (norms,) = _by_rate(config, cell, [_noise(config, 2 * config.hidden_size)], config.zoneout)
    return xarray.Dataset(
        {"log_norm_zoneout": (("run", "zoneout", "lag"), norms, {"units": "nats"})},
        coords={"zoneout": list(config.zoneout), **_lag(config)},
    )


def measure_batch(config: Config) -> xarray.Dataset:
    """log ‖∂L/∂h_k‖ of the batch-normalised network at each lag, for every γ and γ_x."""
    cell = batch_normalised(config.input_size, config.hidden_size, config.batch_size)
    pairs = [(gamma, factor * gamma) for factor in INPUT_FACTORS for gamma in config.gammas]
    size, keys = config.batch_size * config.hidden_size, runs.keys(config)

    def one(params: Params, u: jax.Array, x: jax.Array) -> jax.Array:
        def at(pair: jax.Array) -> jax.Array:
            of_pair = params | {"gamma": pair[0], "gamma_x": pair[1]}
            carry, rest = _warm(config, cell, of_pair, x)
            return flow.log_adjoint_norms(
                cell, of_pair, rest, loss=lambda h: h[-1] @ u, carry=carry
            )

        return jax.lax.map(at, jnp.asarray(pairs))[:, ::-1]

    u = jax.vmap(lambda key: jax.random.normal(runs.stream(key, 1), (size,)))(keys)
    x = warmed_inputs(config, config.batch_size * config.input_size, stream=1)
    norms = runs.measure(one, runs.initialise(cell, keys), u, x)
    shape = len(INPUT_FACTORS), len(config.gammas)
    theory = np.reshape([batch_theory(*pair) for pair in pairs], shape)
    return xarray.Dataset(
        {
            "log_adjoint": (
                ("run", "input_factor", "gamma", "lag"),
                norms.reshape(config.num_seeds, *shape, -1),
                {"units": "nats"},
            ),
            "theory": (("input_factor", "gamma"), theory, {"units": "nats per step"}),
        },
        coords={
            "input_factor": list(INPUT_FACTORS),
            "gamma": list(config.gammas),
            **_lag(config),
        },
    )
