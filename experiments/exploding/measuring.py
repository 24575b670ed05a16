"""What the study measures: exponents, norms, gradients, and the loss along a line."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import curves, fields, runs

from exploding.networks import NETS, scaled
from gradflow import Cell, Params, flow, study
from gradflow.cells import resolve
from gradflow.devices import map_runs


@dataclass(frozen=True)
class Config(study.Config):
    """Which networks, at which gains."""

    num_seeds: int = fields.num_seeds(10)
    cells: tuple[str, ...] = study.field(
        ("linear", "relu", "tanh", "lstm", "gru"), help="Of linear, relu, tanh, lstm and gru."
    )
    hidden_size: int = fields.hidden_size(100)
    input_size: int = fields.input_size(16)
    input_std: float = fields.input_std(0.1)
    num_steps: int = fields.num_steps(200)
    burn_in: int = fields.positive(50, help="First steps that no exponent includes.")
    num_gains: int = fields.positive(40, help="Gains of the sweep.")
    min_gain: float = fields.positive(0.2, help="The smallest gain of the sweep.")
    max_gain: float = fields.positive(3.0, help="The largest gain of the sweep.")
    sizes: tuple[int, ...] = fields.positive(
        (100, 200, 400, 800), help="Hidden units N of the extrapolation."
    )
    num_ratios: int = fields.positive(
        25, help="Gains of the sweep at each size, 0.7 to 1.9 of the critical one."
    )
    factors: tuple[float, ...] = fields.positive(
        (0.8, 1.0, 1.5),
        help="Gains as multiples of the theory's critical gain, for all but the sweep.",
    )
    num_draws: int = fields.positive(
        200, help="Initialisations for the distribution of gradient norms."
    )
    num_points: int = fields.positive(201, help="Points on the line in parameter space.")
    line_width: float = fields.positive(
        0.05, help="Half the length of the line, relative to ‖W_h‖."
    )


def exponents_by_gain(
    cell: Cell, gains: jax.Array, params: Params, inputs: jax.Array, burn_in: int
) -> jax.Array:
    """Measures the largest exponent of a `scaled` cell, (runs, gains), by one tangent vector."""

    def one(params: Params, x: jax.Array, gain: jax.Array) -> jax.Array:
        # With a QR decomposition at every step, no run waits for another one's interval.
        kind: Any = {"num_exponents": 1, "burn_in": burn_in, "qr_every": 1}
        params = {"cell": params, "gain": gain}
        return flow.lyapunov_exponents(cell, params, x, **kind).exponents[0]

    over_gains = jax.vmap(one, in_axes=(None, None, 0))
    return map_runs(lambda params, x: over_gains(params, x, gains))(params, inputs)


def _initialised(config: Config, cell: Cell, number: int) -> tuple[Params, jax.Array]:
    """Parameters and inputs (number, T, input) of so many runs."""
    inputs = runs.inputs(config, spec=f"gaussian(std={config.input_std!r})", num_sequences=number)
    return runs.initialise(cell, runs.keys(config, number)), inputs


def measure(config: Config, name: str) -> xarray.Dataset:
    """Measures exponents by gain, norms and gradients of one network of `hidden_size` units."""
    net, cell = NETS[name], scaled(name, config.input_size, config.hidden_size)
    gains = np.linspace(config.min_gain, config.max_gain, config.num_gains)
    critical = net.critical(config.input_std)
    few = _initialised(config, cell, config.num_seeds)
    sweep = partial(exponents_by_gain, cell, jnp.asarray(gains), burn_in=config.burn_in)
    exponents = np.asarray(jax.jit(sweep)(*few))
    at = critical * np.asarray(config.factors)
    gradients = _log_gradients(cell, at, *_initialised(config, cell, config.num_draws))
    theory = [net.exponent(gain, config.input_std) for gain in gains]
    rate, nats = {"units": "nats per step"}, {"units": "nats"}
    frobenius = nats | {"norm": "frobenius"}
    by_lag = ("cell", "factor", "run", "lag")
    return xarray.Dataset(
        {
            "exponent": (("cell", "run", "gain"), exponents[None], rate),
            "theory": (("cell", "gain"), [theory], rate),
            "critical": ("cell", [critical]),
            "log_norm": (by_lag, _log_norms(cell, at, *few)[None], frobenius),
            "log_gradient": (("cell", "factor", "draw"), gradients[None], nats),
        },
        coords={
            "cell": [name],
            "gain": gains,
            "factor": list(config.factors),
            "lag": curves.coordinates(config.num_steps)["lag"],
        },
    )


def measure_size(config: Config, name: str, size: int) -> xarray.Dataset:
    """Measures the exponent near the theory's critical gain in a network of this size."""
    cell, ratios = scaled(name, config.input_size, size), np.linspace(0.7, 1.9, config.num_ratios)
    gains = jnp.asarray(NETS[name].critical(config.input_std) * ratios)
    sweep = jax.jit(partial(exponents_by_gain, cell, gains, burn_in=config.burn_in))
    found = np.asarray(sweep(*_initialised(config, cell, config.num_seeds)))
    dims = ("cell", "size", "run", "ratio")
    return xarray.Dataset(
        {"sized_exponent": (dims, found[None, None], {"units": "nats per step"})},
        coords={"cell": [name], "size": [size], "ratio": ratios},
    )


def _log_norms(cell: Cell, gains: np.ndarray, params: Params, inputs: jax.Array) -> np.ndarray:
    """Measures log ‖∂h_T/∂h_k‖ in the Frobenius norm, (gains, runs, lags)."""

    def one(params: Params, x: jax.Array, gain: jax.Array) -> jax.Array:
        return flow.log_norms(cell, {"cell": params, "gain": gain}, x, norm="frobenius")

    measure = jax.jit(map_runs(one))  # compiled once for all gains
    return np.stack([measure(params, inputs, jnp.full(len(inputs), gain)) for gain in gains])


def _log_gradients(cell: Cell, gains: np.ndarray, params: Params, inputs: jax.Array) -> np.ndarray:
    """Measures log ‖∂L/∂h_0‖ for L = Σ_i (h_T)_i/√n, (gains, draws)."""

    def one(params: Params, x: jax.Array, gain: jax.Array) -> jax.Array:
        def loss(outputs: jax.Array) -> jax.Array:
            return jnp.sum(outputs[-1]) / math.sqrt(outputs.shape[-1])

        return flow.log_adjoint_norms(cell, {"cell": params, "gain": gain}, x, loss=loss)[0]

    over_gains = jax.vmap(one, in_axes=(None, None, 0))
    measure = lambda params, x: over_gains(params, x, jnp.asarray(gains))  # noqa: E731
    return runs.measure(measure, params, inputs).T


def measure_line(config: Config) -> xarray.Dataset:
    """Measures the loss of the tanh network, and its slope, on a line through W_h."""
    cell = resolve(NETS["tanh"].spec)(config.input_size, config.hidden_size)
    gains = NETS["tanh"].critical(config.input_std) * np.asarray(config.factors)
    places = np.linspace(-config.line_width, config.line_width, config.num_points)
    params, inputs = _initialised(config, cell, config.num_seeds)
    other = jax.vmap(partial(runs.stream, number=0))(runs.keys(config))
    directions = runs.initialise(cell, other)["W_h"]

    def one(params: Params, D: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        D = D * jnp.linalg.norm(params["W_h"]) / jnp.linalg.norm(D)
        on_line = partial(_losses_on_line, cell, params, D, x, jnp.asarray(places))
        return jax.lax.map(on_line, jnp.asarray(gains))

    losses, slopes = runs.measure(one, params, directions, inputs)
    dims = ("run", "factor", "place")
    return xarray.Dataset(
        {"loss": (dims, losses), "slope": (dims, slopes)},
        coords={"factor": list(config.factors), "place": places},
    )


def _losses_on_line(
    cell: Cell, params: Params, D: jax.Array, x: jax.Array, places: jax.Array, gain: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The loss ½ mean (h_T - ½)² at W_h = gain (W + place D), and its slope, by place."""

    def loss(place: jax.Array) -> jax.Array:
        def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, None]:
            # gain (W_h + place D) h, without forming a matrix for each place.
            shifted = params | {"b": params["b"] + place * (D @ (gain * h))}
            return cell.step(shifted, gain * h, x)[0], None

        h, _ = jax.lax.scan(step, cell.initial_carry(), x)
        return 0.5 * jnp.mean((h - 0.5) ** 2)

    return jax.vmap(lambda place: jax.jvp(loss, (place,), (jnp.ones_like(place),)))(places)
