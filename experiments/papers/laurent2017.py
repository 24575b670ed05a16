"""A GRU or an LSTM of two units is chaotic without any input; a chaos-free cell never is.

With the weights that the paper prints and all biases zero, the GRU ::

    z = σ(A_z u)    r = σ(A_r u)    u <- (1 - z) u + z tanh(R (r u))

and the LSTM have a strange attractor and a positive Lyapunov exponent, so that ∂h_t/∂h_0 grows
without any training. The exponent is computed twice: by QR of the step Jacobians, and by following
a perturbation of 1e-7 in a plain NumPy loop.

Source: Laurent, von Brecht 2017, arXiv:1612.06212, Fig. 1.

    python experiments/papers/laurent2017.py

Takes about 30 seconds on two cores.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import fields, runs
from _paper import Paper

from gradflow import flow, study, unroll
from gradflow.cells import LSTMCarry, cfn, gru_reset_before, lstm
from gradflow.devices import map_runs
from gradflow.study import Claim, numbers, statement
from gradflow.study.figure import Figure

A_Z, A_R, R = ((0, 1), (1, 1)), ((0, 1), (1, 0)), ((-5, -8), (8, 5))
A_IF, A_O, A_G = ((-10, -10), (10, 10)), ((10, -10), (10, -10)), ((10, -80), (80, -10))
NETS = ("gru", "lstm")
PERTURBATION = 1e-7
BURN_IN = 1000
FAR = 0.1
"""The distance from which on a perturbed trajectory counts as unrelated to the first one."""


@dataclass(frozen=True)
class Config(study.Config):
    """The length and the number of the trajectories."""

    num_steps: int = fields.num_steps(20000)
    num_starts: int = fields.positive(3, help="Initial states of the exponents.")
    num_near: int = fields.positive(2000, help="Initial states within 1e-7 of one point.")
    num_cfn: int = fields.positive(200, help="Chaos-free networks.")


def cells() -> dict:
    """Gives the cell and the parameters of both networks."""

    def gate(weights: object) -> dict[str, jax.Array]:
        W_h = jnp.asarray(weights, float)
        return {"W_h": W_h, "W_x": jnp.zeros((2, 0)), "b": jnp.zeros(2)}

    # The library's z keeps the old state where the paper's z replaces it: σ(-a) = 1 - σ(a).
    gru = {"z": gate(-np.array(A_Z)), "r": gate(A_R), "n": gate(R)}
    gates = {"i": gate(A_IF), "f": gate(A_IF), "o": gate(A_O), "g": gate(A_G)}
    return {"gru": (gru_reset_before(0, 2), gru), "lstm": (lstm(0, 2), gates)}


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures trajectories, exponents and diverging pairs; and where chaos-free networks end."""
    starts = np.random.default_rng(config.seed).uniform(size=(config.num_starts, 4))
    parts = [once(f"net={net}", lambda net=net: _measure(config, net, starts)) for net in NETS]
    data = xarray.concat(parts, dim="net")
    return data.assign(cfn=(("cfn_net",), _chaos_free(config))).assign_coords(net=list(NETS))


def _measure(config: Config, net: str, starts: np.ndarray) -> xarray.Dataset:
    cell, params = cells()[net]
    inputs = jnp.zeros((config.num_steps, 0))

    def carry(u: jax.Array) -> jax.Array | LSTMCarry:
        return LSTMCarry(u[:2], u[2:]) if net == "lstm" else u[:2]

    def exponent(u: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = flow.lyapunov_exponents(cell, params, inputs, burn_in=BURN_IN, carry=carry(u))
        return found.exponents, unroll(cell, params, inputs, carry=carry(u)).outputs

    def last(u: jax.Array) -> jax.Array:
        def body(_: int, s: jax.Array | LSTMCarry) -> jax.Array | LSTMCarry:
            return cell.step(params, s, inputs[0])[0]

        return cell.hidden(jax.lax.fori_loop(0, config.num_steps, body, carry(u)))

    exponents, outputs = jax.jit(map_runs(exponent))(jnp.asarray(starts))
    noise = np.random.default_rng(config.seed + 1).uniform(-1, 1, (config.num_near, 4))
    near = jax.jit(jax.vmap(last))(jnp.asarray(starts[0] + PERTURBATION * noise))
    growth, first, second = follow(net, starts, config.num_steps)
    return xarray.Dataset(
        {
            "exponent": (("start",), np.asarray(exponents[:, 0])),
            "growth": (("start",), growth),
            "path": (("time", "unit"), np.asarray(outputs[0, config.num_steps // 2 :])),
            "near": (("point", "unit"), np.asarray(near)),
            "apart": (("step",), first[:, 0] - second[:, 0]),
            "end": (("unit",), np.asarray(outputs[0, -1])),
        }
    )


def numpy_step(net: str, s: np.ndarray) -> np.ndarray:
    """One step by the paper's equations in NumPy; s is u, (starts, 2), or h and c, (starts, 4)."""
    u = s[:, :2]
    if net == "gru":
        z, r = _sigmoid(u @ np.transpose(A_Z)), _sigmoid(u @ np.transpose(A_R))
        return (1 - z) * u + z * np.tanh((r * u) @ np.transpose(R))
    gate = _sigmoid(u @ np.transpose(A_IF))
    c = gate * s[:, 2:] + gate * np.tanh(u @ np.transpose(A_G))
    return np.concatenate([_sigmoid(u @ np.transpose(A_O)) * np.tanh(c), c], axis=1)


def _sigmoid(a: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(a / 2))


def follow(
    net: str, starts: np.ndarray, num_steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Follows perturbed trajectories.

    Returns:
      The growth rate of a perturbation that is rescaled to 1e-7 at each step, for each start; and
      two trajectories that begin 1e-7 apart.
    """
    s = starts[:, :2] if net == "gru" else starts
    for _ in range(BURN_IN):
        s = numpy_step(net, s)
    pair, near = [s[:1]], [s[:1] + PERTURBATION * np.eye(s.shape[1])[:1]]
    for _ in range(400):
        pair.append(numpy_step(net, pair[-1]))
        near.append(numpy_step(net, near[-1]))
    other, total = s + PERTURBATION / np.sqrt(s.shape[1]), np.zeros(len(s))
    for _ in range(num_steps - BURN_IN):
        s, other = numpy_step(net, s), numpy_step(net, other)
        size = np.linalg.norm(other - s, axis=1, keepdims=True)
        total += np.log(size[:, 0] / PERTURBATION)
        other = s + (other - s) * PERTURBATION / size
    rate = total / (num_steps - BURN_IN)
    return rate, np.concatenate(pair), np.concatenate(near)


def _chaos_free(config: Config) -> np.ndarray:
    """Computes max |h| after 500 steps without input of random chaos-free networks and states."""
    cell = cfn(0, 8, recurrent_init="normal(std=5.0)")

    def last(key: jax.Array) -> jax.Array:
        k_params, k_start = jax.random.split(key)
        start = jax.random.uniform(k_start, (8,), minval=-5.0, maxval=5.0)
        carries = unroll(cell, cell.init(k_params), jnp.zeros((500, 0)), carry=start).carries
        return jnp.max(jnp.abs(carries[-1]))

    keys = runs.keys(config, config.num_cfn)
    return np.asarray(jax.jit(map_runs(last))(keys))


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The chaos of both networks, and the chaos-free network."""
    return [
        *about_gated(dataset, "gru", "ac"),
        *about_gated(dataset, "lstm", "bd"),
        about_cfn(dataset),
    ]


def about_gated(dataset: xarray.Dataset, net: str, panels: str) -> list[Claim]:
    """The exponent of a network, its attractor, and how its trajectories diverge."""
    data, name = dataset.sel(net=net), net.upper()
    covered = np.ptp(data.near.values, axis=0) / np.ptp(data.path.values, axis=0)
    far = np.abs(data.apart.values) > FAR
    when = int(np.argmax(far)) if far.any() else -1
    return [
        statement(
            f"fig1-{net}_chaos",
            f"The two-unit {name} without input is chaotic.",
            "chaotic",
            {"largest exponent in nats per step": data.exponent.values},
            source=f"Fig. 1 ({panels[0]})",
            criterion="the largest exponent is above 0.01 from every initial state",
            holds=(data.exponent > 0.01).all(),
        ),
        numbers(
            f"fig1-{net}_exponent",
            f"The largest exponent of the {name} by QR is the growth rate of a perturbation, from "
            "each initial state.",
            data.growth.values,
            data.exponent.values,
            atol=0.01,
            kind="derived",
            source="growth of a perturbation of 1e-7 in a plain NumPy loop",
        ),
        statement(
            f"fig1-{net}_spread",
            f"Trajectories of the {name} from within 1e-7 of one point end all over the attractor.",
            "end states fill the attractor",
            {"fraction of the attractor's extent": covered.min()},
            source=f"Fig. 1 ({panels[0]}), yellow",
            picture=True,
            criterion="the end states cover over 0.9 of the extent of one trajectory in both units",
            holds=(covered > 0.9).all(),
        ),
        statement(
            f"fig1-{net}_diverges",
            f"Two trajectories of the {name} that start 1e-7 apart agree at first, then diverge.",
            "agreement, then strong divergence",
            {f"first step at which they are over {FAR:g} apart": when},
            source=f"Fig. 1 ({panels[1]})",
            picture=True,
            criterion=f"they are less than {FAR:g} apart for ten steps, and further apart later",
            holds=when > 10,
        ),
    ]


def about_cfn(dataset: xarray.Dataset) -> Claim:
    """The chaos-free network."""
    largest = float(dataset.cfn.max())
    return statement(
        "fig1-cfn",
        "The state of a chaos-free network without input goes to zero from every initial state.",
        "h -> 0",
        {"largest |h| after 500 steps": largest},
        exact=True,
        source="the paper's theorem on the CFN",
        criterion="every |h| is below 1e-3 after 500 steps",
        holds=largest < 1e-3,
    )


def figure(dataset: xarray.Dataset) -> Figure:
    """The attractors above, the diverging pairs below, as in the paper."""
    fig = study.figure.empty(7.0, 5.0)
    axes = fig.subplots(2, 2)
    for column, net in enumerate(NETS):
        data, (top, bottom) = dataset.sel(net=net), axes[:, column]
        look = {"marker": ".", "ls": "", "rasterized": True}
        top.plot(*data.path.values.T, **look, ms=0.6, color="#332288", label="one orbit")
        top.plot(
            *data.near.values.T,
            **look,
            ms=0.8,
            color="#E69F00",
            label="ends of orbits that began within 1e-7",
        )
        top.set(xlabel="h(1)", ylabel="h(2)", title=f"({'ab'[column]}) {net.upper()}: attractor")
        bottom.plot(data.apart[:200], lw=0.8, color="#332288")
        bottom.set(
            xlabel="t", ylabel=r"$h(1) - \hat h(1)$", title=f"({'cd'[column]}) {net.upper()}"
        )
    study.figure.legend_above(fig, axes[0, 0], markerscale=8)
    return fig


EXPERIMENT = Paper(
    name="papers/laurent2017",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={"num_steps": 2000, "num_near": 100, "num_cfn": 10},
    doc=__doc__,
    citation="Laurent, von Brecht 2017, A recurrent neural network without chaos, arXiv:1612.06212",
    figures={"fig1": figure},
    traps=(
        "In the paper's GRU r is inside R(r u), and z weights the new state. In Flax's GRU r comes "
        "after the product, and z weights the old state.",
        "The paper prints A_z as A_θ.",
        "The paper follows 10,000 states near one point; 2,000 are followed here, in orange.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
