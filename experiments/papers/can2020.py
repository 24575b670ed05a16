"""Gates make slow modes: they move eigenvalues of the step Jacobian to 1, and set its radius.

Random GRUs and LSTMs run without input, with recurrent weights N(0, a²/N) of a scale a for each
gate. The more the update gate of a GRU or the forget gate of an LSTM differs between units and
times, the more eigenvalues of the step Jacobian lie near 1. The other gates scale its radius, here
at the state 0, where ::

    GRU    max |λ| = z + (1 - z) r a_n       z = σ(b_z), r = σ(b_r)
    LSTM   max |λ| = f + i o a_g             f = σ(b_f), i = σ(b_i), o = σ(b_o)

Source: Can, Krishnamurthy, Schwab 2020, arXiv:2002.00025, of which the abstract was read.

    python experiments/papers/can2020.py

Takes less than a minute on two cores.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import curves, fields, runs
from _paper import Paper
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from gradflow import Carry, Cell, Params, flow, study, unroll
from gradflow.cells import gru_reset_before, lstm
from gradflow.study import Claim, derived, statement
from gradflow.study.figure import Figure

SCALES = (0.0, 2.0, 5.0, 20.0, 100.0)
"""a of the update gate, or of the forget gate."""

BIASES = (-4.0, -2.0, 0.0, 2.0, 4.0)
"""Biases of the gates that scale the radius."""

GAIN = 3.0
"""a of the candidate."""

NEAR = 0.1
"""The distance from 1 below which an eigenvalue belongs to a slow mode."""


@dataclass(frozen=True)
class Config(study.Config):
    """The size of the networks."""

    hidden_size: int = fields.hidden_size(100)
    num_steps: int = fields.num_steps(600)
    num_seeds: int = fields.num_seeds(5)


def cell_of(name: str, size: int) -> tuple[Cell, str, str]:
    """Gives the cell with Gaussian weights, its slow gate and its candidate."""
    if name == "gru":
        return gru_reset_before(1, size, recurrent_init="normal(gain=1.0)"), "z", "n"
    return lstm(1, size, recurrent_init="normal(gain=1.0)", forget_bias=0.0), "f", "g"


def scaled(
    params: Params, scales: Mapping[str, ArrayLike], biases: Mapping[str, ArrayLike]
) -> Params:
    """Multiplies the recurrent weights of gates, and sets their biases; the input is cut off."""
    found = {}
    for gate, each in params.items():
        found[gate] = {
            **each,
            "W_h": scales.get(gate, 1.0) * each["W_h"],
            "W_x": jnp.zeros_like(each["W_x"]),
            "b": jnp.full_like(each["b"], biases.get(gate, 0.0)),
        }
    return found


def step_jacobian(cell: Cell, params: Params, carry: Carry) -> jax.Array:
    """Computes the derivative of the whole next carry by the carry, as a matrix."""
    flat, back = ravel_pytree(carry)

    def step(flat: jax.Array) -> jax.Array:
        return ravel_pytree(cell.step(params, back(flat), jnp.zeros(1))[0])[0]

    return jax.jacfwd(step)(flat)


def slow_modes(config: Config, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Measures eigenvalues after the transient, and the largest Lyapunov exponents, by scale.

    Returns:
      |λ - 1| of the step Jacobian, (scale, run, eigenvalue), and exponents, (scale, run, 2).
    """
    cell, slow, candidate = cell_of(name, config.hidden_size)

    def one(key: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
        params = scaled(cell.init(runs.cell_key(key)), {slow: scale, candidate: GAIN}, {})
        inputs = jnp.zeros((config.num_steps, 1))
        flat, back = ravel_pytree(cell.initial_carry())
        start = back(jax.random.normal(runs.stream(key, 0), flat.shape))
        last = jax.tree.map(lambda x: x[-1], unroll(cell, params, inputs, carry=start).carries)
        options = {"num_exponents": 2, "burn_in": config.num_steps // 2, "carry": start}
        found = flow.lyapunov_exponents(cell, params, inputs, **options).exponents
        return step_jacobian(cell, params, last), found

    keys = jnp.tile(runs.keys(config), len(SCALES))
    J, exponents = runs.measure(one, keys, jnp.repeat(jnp.asarray(SCALES), config.num_seeds))
    shape = (len(SCALES), config.num_seeds, -1)
    return np.abs(np.linalg.eigvals(J) - 1).reshape(shape), exponents.reshape(shape)


def radii(config: Config, name: str, gate: str) -> np.ndarray:
    """Measures the largest |λ| of the step Jacobian at the state 0, (bias, run)."""
    cell, _, candidate = cell_of(name, config.hidden_size)

    def one(key: jax.Array, bias: jax.Array) -> jax.Array:
        params = scaled(cell.init(runs.cell_key(key)), {candidate: GAIN}, {gate: bias})
        return step_jacobian(cell, params, cell.initial_carry())

    keys = jnp.tile(runs.keys(config), len(BIASES))
    J = runs.measure(one, keys, jnp.repeat(jnp.asarray(BIASES), config.num_seeds))
    return np.abs(np.linalg.eigvals(J)).max(axis=1).reshape(len(BIASES), -1)


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures slow modes by the scale of a gate, and radii by the bias of a gate."""
    del once  # it takes seconds
    variables = {}
    for name in study.progress(("gru", "lstm"), "cells"):
        distance, exponents = slow_modes(config, name)
        variables[f"slow_{name}"] = (("scale", "run"), (distance < NEAR).mean(axis=-1))
        variables[f"exponent_{name}"] = (("scale", "run"), exponents[..., 0], {"units": "nats"})
    for name, gate in (("gru", "r"), ("lstm", "i"), ("lstm", "o")):
        variables[f"radius_{name}_{gate}"] = (("bias", "run"), radii(config, name, gate))
    return xarray.Dataset(variables, coords={"scale": list(SCALES), "bias": list(BIASES)})


def predicted(bias: np.ndarray) -> np.ndarray:
    """Computes the radius at the state 0 by the bias of one gate; all other gates are 1/2."""
    return 0.5 + 0.5 * GAIN / (1 + np.exp(-bias))


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The accumulation of slow modes, marginal stability, and the radius."""
    shown = ", ".join(f"{scale:g}" for scale in SCALES)
    found = []
    for name, gate in (("gru", "update gate of a GRU"), ("lstm", "forget gate of an LSTM")):
        slow = dataset[f"slow_{name}"].mean("run").values
        found.append(
            statement(
                f"slow-{name}",
                f"The {gate} can lead to an accumulation of slow modes.",
                "can lead to an accumulation of slow modes in the dynamics",
                {f"fraction of eigenvalues within {NEAR} of 1, at the scales {shown}": slow},
                source="abstract",
                criterion="at the scale 20 the fraction is above 0.1 and over three times that at "
                "0, and it does not fall from 0 to 20",
                holds=slow[3] > max(0.1, 3 * slow[0]) and (np.diff(slow[:4]) >= 0).all(),
            )
        )
    exponent = dataset.exponent_gru.mean("run").values
    found.append(
        statement(
            "slow-marginal",
            "The update gate of a GRU can poise the system at a marginally stable point.",
            "the GRU update gate can poise the system at a marginally stable point",
            {f"largest Lyapunov exponent at the scales {shown}": exponent},
            source="abstract",
            criterion="at the scale 100 the largest exponent is within 0.01 of 0, and nearer to 0 "
            "than at the scale 0",
            holds=abs(exponent[-1]) < 0.01 and abs(exponent[-1]) < abs(exponent[0]),
        )
    )
    names = {"gru": ("r",), "lstm": ("i", "o")}
    radius = {
        name: np.stack([dataset[f"radius_{name}_{gate}"].mean("run").values for gate in gates])
        for name, gates in names.items()
    }
    words = {
        "gru": "The reset gate of a GRU controls",
        "lstm": "The input and output gates of an LSTM control",
    }
    for name, values in radius.items():
        found.append(
            statement(
                f"slow-radius_{name}",
                f"{words[name]} the spectral radius of the Jacobian.",
                "control the spectral radius of the Jacobian",
                {"largest |λ| at the biases -4, -2, 0, 2, 4": values},
                source="abstract",
                criterion="the radius grows with the bias, by over a factor 2 from -4 to 4",
                holds=(np.diff(values) > 0).all() and (values[:, -1] > 2 * values[:, 0]).all(),
                exact=True,
            )
        )
    measured = np.concatenate(list(radius.values()))
    found.append(
        derived(
            "slow-formula",
            "At the state 0 the radius is z + (1 - z) r a_n for the GRU and f + i o a_g for the "
            "LSTM, by the bias of the reset, input and output gates.",
            np.tile(predicted(np.array(BIASES)), (len(measured), 1)),
            measured,
            rtol=0.06,
            source="eigenvalues of a Gaussian matrix fill the disk of radius a",
            exact=False,
        )
    )
    return found


def figure(dataset: xarray.Dataset) -> Figure:
    """Slow modes by the scale of the slow gate, and radii by the bias of the others."""
    fig = study.figure.empty(6.4, 2.7)
    left, right = fig.subplots(1, 2)
    words = {"gru": "GRU, update gate", "lstm": "LSTM, forget gate"}
    for index, (name, label) in enumerate(words.items()):
        look = {**study.figure.series_style(index), "marker": "o"}
        values = dataset[f"slow_{name}"].mean("run")
        left.plot(np.arange(len(SCALES)), values, label=label, **look)
    left.set_xticks(np.arange(len(SCALES)), [f"{scale:g}" for scale in SCALES])
    left.set(xlabel="scale a of the gate's weights", ylabel=f"fraction with |λ − 1| < {NEAR}")
    left.set(title="Slow modes", ylim=(0, None))
    left.legend()
    gates = (
        ("gru", "r", "GRU, reset"),
        ("lstm", "i", "LSTM, input"),
        ("lstm", "o", "LSTM, output"),
    )
    markers = ("o", "s", "x")
    for index, (name, gate, label) in enumerate(gates):
        color = study.figure.series_style(index)["color"]
        values = dataset[f"radius_{name}_{gate}"].mean("run")
        right.plot(BIASES, values, markers[index], color=color, mfc="none", label=label)
    grid = np.linspace(-4.5, 4.5, 100)
    right.plot(grid, predicted(grid), color="0.5", lw=1, label="derived")
    right.axhline(1, color=curves.CUT, ls=":", lw=1)
    right.set(xlabel="bias of the gate", ylabel="largest |λ| at the state 0", title="Radius")
    right.legend()
    return fig


EXPERIMENT = Paper(
    name="papers/can2020",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={"hidden_size": 20, "num_steps": 60, "num_seeds": 2},
    doc=__doc__,
    citation="Can, Krishnamurthy, Schwab 2020, Gating creates slow modes and controls phase-space "
    "complexity in GRUs and LSTMs, arXiv:2002.00025",
    figures={"slow": figure},
    traps=(
        "The abstract was read, not the paper: scales, sizes and criteria are chosen here.",
        "The state 0 is a fixed point without biases of the candidate; at other states the radius "
        "depends on the activity too.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
