"""Deep linear networks learn each mode of their task along a sigmoid, in a time that goes as 1/s.

Gradient descent with a small rate λ = 1/τ and whitened inputs on y = W_L ... W_1 x. A mode of the
task with strength s has the strength u in the network. From decoupled, balanced weights ::

    τ du/dt = L u^(2 - 2/L) (s - u)    L = N_l - 1 matrices
    u(t) = s e^{2st/τ}/(e^{2st/τ} - 1 + s/u_0)    L = 2

The networks are cells with one layer per time step, run by `unroll` and differentiated through it;
their learning is compared with the paper's equations.

Source: Saxe, McClelland, Ganguli 2014, arXiv:1312.6120, sections 1 and 2, Fig. 3, 4 and 6 A.

    python experiments/papers/saxe2014_learning.py

Took eleven minutes on two cores beside much other work.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import curves, fields, runs
from _layers import layers, weights
from _paper import Paper

from gradflow import study, unroll
from gradflow.study import Claim, numbers, statement
from gradflow.study.figure import Figure

STRENGTHS = (4.0, 3.0, 2.0, 1.0)
"""The singular values s of the task."""

START = 1e-3
"""u_0, the strength of every mode before learning."""

DEPTHS = (2, 4, 8, 16, 32)
"""Numbers of weight matrices L."""

STARTS = ("decoupled", "orthogonal", "gaussian")
RATES = np.geomspace(1e-3, 1.0, 31)
OUTPUTS = 10
COMPLETE = 0.05
"""The loss, relative to that of a network that answers 0, at which learning is complete."""


@dataclass(frozen=True)
class Config(study.Config):
    """The step of the descent, and the networks that are compared at their best rates."""

    rate: float = fields.positive(2e-3, help="Rate λ of the descent that is to be continuous.")
    width: int = fields.positive(32, help="Width of the networks that are trained at many rates.")
    num_updates: int = fields.positive(600, help="Updates of those networks.")
    num_seeds: int = fields.num_seeds(4)


def total(W: jax.Array, width: int) -> jax.Array:
    """Computes W_Tot of the layers W (L, width²): their answers to the unit vectors."""
    cell = layers(width, "linear")
    return jax.vmap(lambda h: unroll(cell, {}, W, carry=h).outputs[-1], out_axes=1)(jnp.eye(width))


def descend(
    W: jax.Array, task: jax.Array, rate: jax.Array | float, num_updates: int
) -> tuple[jax.Array, jax.Array]:
    """Trains by gradient descent on whitened inputs; returns W and W_Tot before every update."""

    def loss(W: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = total(W, task.shape[1])[: len(task)]
        return jnp.sum((task - found) ** 2) / 2, found

    def update(W: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        slope, found = jax.grad(loss, has_aux=True)(W)
        return W - rate * slope, found

    return jax.lax.scan(update, W, length=num_updates)


def decoupled(
    key: jax.Array, depth: int, strengths: jax.Array, start: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gives balanced layers R_{l+1} D R_lᵀ, the task U S Vᵀ with U and V the outer R, and R."""
    n = len(strengths)
    R = weights(key, "orthogonal", depth + 1, n, 1.0).reshape(-1, n, n)
    W = start ** (1 / depth) * jnp.einsum("lij,lkj->lik", R[1:], R[:-1])
    return W.reshape(depth, -1), R[-1] @ jnp.diag(strengths) @ R[0].T, R


def sigmoids(config: Config) -> dict[str, np.ndarray]:
    """Measures u_α(t) with one hidden layer, and how far the conserved matrix moves.

    The first network starts decoupled, the others from small random weights.
    """
    key, width = jax.random.key(config.seed), config.width
    s = jnp.zeros(width).at[: len(STRENGTHS)].set(jnp.asarray(STRENGTHS))
    W, task, R = decoupled(key, 2, s, START)
    # Entries of this variance have the mean |a + b|²/4 = u_0, and a and b soon become (a + b)/2.
    spread = (2 * START / width) ** 0.5
    small = spread * jax.random.normal(key, (config.num_seeds, 2, width**2))

    def balance(W: jax.Array) -> jax.Array:
        first, second = W.reshape(2, width, width)
        return first @ first.T - second.T @ second

    def learn(W: jax.Array) -> tuple[jax.Array, jax.Array]:
        end, found = descend(W, task, config.rate, round(12 / config.rate))
        first = end[0].reshape(width, width)
        moved = jnp.linalg.norm(balance(end) - balance(W)) / jnp.linalg.norm(first @ first.T)
        shown = slice(len(STRENGTHS))
        return jnp.einsum("ia,tij,ja->ta", R[-1][:, shown], found, R[0][:, shown]), moved

    u, moved = runs.measure(learn, jnp.concatenate([W[None], small]))
    return {"u": u, "moved": moved}


def deep_times(config: Config) -> np.ndarray:
    """Measures the time t/τ from u = 0.1 to 0.9 of balanced networks by depth, s = 1."""
    learn = jax.jit(lambda W, task, rate: descend(W, task, rate, round(3 / config.rate))[1])
    found = []
    for depth in study.progress(DEPTHS, "depths"):
        W, task, R = decoupled(jax.random.key(config.seed), depth, jnp.ones(2), 0.1)
        rate = 5 * config.rate / depth
        maps = learn(W, task, rate)
        u = np.asarray(jnp.einsum("i,tij,j->t", R[-1][:, 0], maps, R[0][:, 0]))
        found.append(rate * np.interp(0.9, u, np.arange(len(u))))
    return np.array(found)


def fastest(config: Config) -> tuple[np.ndarray, ...]:
    """Measures the updates to complete learning at the best of all rates, and that rate.

    Returns:
      Medians over seeds, each (start, depth); infinite where no rate completes it.
    """
    n, outputs = config.width, min(OUTPUTS, config.width)

    def start(law: str, depth: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        W, task, _ = decoupled(key, depth, jnp.ones(n), 0.01)
        return W if law == "decoupled" else weights(key, law, depth, n, 1.0), task[:outputs]

    def updates(W: jax.Array, task: jax.Array, rate: jax.Array) -> jax.Array:
        found = descend(W, task, rate, config.num_updates)[1]
        # With an unstable rate the loss can fall below the bound and rise again: what counts is the
        # last update above it.
        above = ~(jnp.sum((task - found) ** 2, axis=(1, 2)) < COMPLETE * jnp.sum(task**2))
        last = jnp.max(jnp.where(above, jnp.arange(len(above)), -1))
        return jnp.where(last == len(above) - 1, jnp.inf, last + 1)

    best = []
    for depth in study.progress(DEPTHS, "depths"):
        made = [jax.vmap(partial(start, law, depth))(runs.keys(config)) for law in STARTS]
        W, task = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *made)
        each = [jnp.repeat(array, len(RATES), axis=0) for array in (W, task)]
        found = runs.measure(updates, *each, jnp.tile(jnp.asarray(RATES), len(W)))
        found = found.reshape(len(STARTS), -1, len(RATES))
        best.append((np.median(found.min(-1), 1), np.median(RATES[found.argmin(-1)], 1)))
    return tuple(np.stack(found, axis=1) for found in zip(*best, strict=True))


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures learning curves, times by depth, and the best times from three kinds of weights."""
    del once  # it takes minutes
    learnt, (updates, rates) = sigmoids(config), fastest(config)
    return xarray.Dataset(
        {
            "u": (("net", "update", "mode"), learnt["u"]),
            "moved": (("net",), learnt["moved"]),
            "deep_time": (("depth",), deep_times(config), {"units": "τ"}),
            "updates": (("start", "depth"), updates),
            "best_rate": (("start", "depth"), rates),
        },
        coords={
            "mode": list(STRENGTHS),
            "depth": list(DEPTHS),
            "start": list(STARTS),
            "update": config.rate * np.arange(learnt["u"].shape[1]),
        },
    )


def sigmoid(t: np.ndarray, s: float) -> np.ndarray:
    """Computes eq. 12, divided by e^{2st/τ} so that nothing overflows."""
    return s / (1 + (s / START - 1) * np.exp(-2 * s * t))


def crossing(dataset: xarray.Dataset, net: int, mode: float, level: float) -> float:
    """Finds the time t/τ at which a mode first reaches a level."""
    u = dataset.u.isel(net=net).sel(mode=mode).values
    return float(np.interp(level, u[: u.argmax() + 1], dataset["update"].values[: u.argmax() + 1]))


def deep_time(depth: int) -> float:
    """Integrates eq. 15 from u = 0.1 to 0.9 with s = 1."""
    u = np.geomspace(0.1, 0.9, 20001)
    return float(np.trapezoid(1 / (depth * u ** (2 - 2 / depth) * (1 - u)), u))


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The learning curves of one hidden layer, and learning against depth."""
    return [*about_curves(dataset), *about_depth(dataset)]


def about_curves(dataset: xarray.Dataset) -> list[Claim]:
    """Equations 11 and 12, the conserved quantity, and random starts."""
    t = dataset["update"].values
    exact = dataset.u.isel(net=0).values
    formula = np.stack([sigmoid(t, s) for s in STRENGTHS], axis=1)
    off = np.abs(exact - formula).max(axis=0) / STRENGTHS
    times = [crossing(dataset, 0, s, s - START) for s in STRENGTHS]
    nets = range(1, dataset.sizes["net"])
    halves = [np.mean([crossing(dataset, net, s, s / 2) for net in nets]) for s in STRENGTHS]
    wanted = [np.log(s / START - 1) / (2 * s) for s in STRENGTHS]
    late = np.array(halves) / wanted - 1
    return [
        numbers(
            "curves-sigmoid",
            "The strength of each mode follows the sigmoid of eq. 12, here for s = 4, 3, 2, 1.",
            0.0,
            {"largest |u - eq. 12|/s": off},
            atol=0.02,
            source="eq. 12",
        ),
        numbers(
            "curves-times",
            "A mode is learnt, from u = ε to s - ε, in the time (τ/s) ln(s/ε), for s = 4, 3, 2, 1 "
            "and ε = 0.001, in units of τ.",
            [np.log(s / START) / s for s in STRENGTHS],
            times,
            rtol=0.03,
            source="below eq. 11",
        ),
        numbers(
            "curves-conserved",
            "Learning conserves a² - b² of the two layers: W_1 W_1ᵀ - W_2ᵀ W_2 moves by 0.",
            0.0,
            {"largest change relative to |W_1 W_1ᵀ|": float(dataset.moved.max())},
            atol=0.02,
            source="below eq. 9",
        ),
        numbers(
            "curves-random",
            "From small random weights half of a mode is learnt at nearly the time of eq. 12, here "
            "for s = 4, 3, 2, 1.",
            0.0,
            {"mean delay relative to eq. 12": late},
            atol=0.2,
            source="section 1.3: excellent approximations to trajectories from small random "
            "initial conditions; the figure's delays could not be read",
        ),
        statement(
            "curves-order",
            "The stronger an input-output mode, the quicker it is learnt.",
            "the stronger an input-output relationship, the quicker it is learned",
            {"mean time of half learning from random weights, s = 4, 3, 2, 1": halves},
            source="below eq. 11",
            criterion="the mean time of half learning falls with s",
            holds=(np.diff(halves) > 0).all(),
            exact=True,
        ),
    ]


def about_depth(dataset: xarray.Dataset) -> list[Claim]:
    """Equation 15, and learning times at the best rate."""
    updates = {start: dataset.updates.sel(start=start).values for start in dataset.start.values}
    rates = dataset.best_rate.sel(start="decoupled").values
    slope = np.polyfit(np.log(np.array(DEPTHS[1:]) + 1), np.log(rates[1:]), 1)[0]
    growth = {start: found[-1] / found[1] for start, found in updates.items()}
    return [
        numbers(
            "depth-dynamics",
            "With L matrices a mode obeys τ du/dt = L u^(2-2/L) (s - u): the time from u = 0.1 to "
            "0.9 for L = 2, 4, 8, 16, 32, in units of τ.",
            [deep_time(depth) for depth in DEPTHS],
            dataset.deep_time.values,
            rtol=0.03,
            source="eq. 15",
        ),
        numbers(
            "depth-rate",
            "The best learning rate falls with the number of layers as 1/N_l.",
            -1.0,
            {"slope of log rate by log N_l, from N_l = 5": slope},
            atol=0.25,
            source="section 2 and Fig. 4: scale like O(1/N_l)",
        ),
        statement(
            "depth-saturates",
            "From decoupled weights, at the best rate, the learning time saturates with depth.",
            "learning times, which saturate",
            {"updates at L = 2, 4, 8, 16, 32": updates["decoupled"]},
            source="section 2 and Fig. 4",
            criterion="from L = 16 to 32 the time grows by less than 30 %",
            holds=updates["decoupled"][-1] < 1.3 * updates["decoupled"][-2],
        ),
        statement(
            "depth-orthogonal",
            "From random orthogonal weights, at the best rate, the learning time does not depend "
            "on depth.",
            "orthogonal random initialization yields depth independent learning times",
            {"updates at L = 2, 4, 8, 16, 32": updates["orthogonal"]},
            source="section 3 and Fig. 6 A",
            criterion="from L = 4 to 32 the time grows by less than a factor 1.5",
            holds=growth["orthogonal"] < 1.5,
        ),
        statement(
            "depth-gaussian",
            "From scaled Gaussian weights, at the best rate, the learning time grows with depth.",
            "with this initialization, the learning time grows with depth",
            {"updates at L = 2, 4, 8, 16, 32": updates["gaussian"]},
            source="section 3 and Fig. 6 A",
            criterion="from L = 4 to 32 the time grows by more than a factor 2, and more than from "
            "orthogonal weights",
            holds=growth["gaussian"] > max(2, growth["orthogonal"]),
        ),
    ]


def figure_curves(dataset: xarray.Dataset) -> Figure:
    """Simulated and analytical learning curves of the four modes."""
    fig = study.figure.empty(3.5, 2.7)
    ax = fig.subplots()
    t = dataset["update"].values
    for color, s in zip(curves.shades(len(STRENGTHS)), STRENGTHS, strict=True):
        ax.plot(t, dataset.u.sel(mode=s)[1:].T, color=color, lw=0.7, alpha=0.7)
        ax.plot(t, sigmoid(t, s), color=color, ls="--", lw=1.6)
        ax.text(9.9, s + 0.08, f"s = {s:g}", color=color, ha="right")
    shown = (("eq. 12", {"ls": "--", "lw": 1.6}), ("random weights", {"lw": 0.7}))
    handles = [study.figure.handle(color="0.3", label=label, **look) for label, look in shown]
    ax.legend(handles=handles, loc="lower right")
    ax.set(xlim=(0, 10), ylim=(0, 4.5), xlabel="time t/τ", ylabel="strength u of the mode")
    ax.set_title("Each mode is learnt along a sigmoid")
    return fig


def figure_depth(dataset: xarray.Dataset) -> Figure:
    """Learning times at the best rate against depth, and the best rates."""
    fig = study.figure.empty(6.4, 2.7)
    left, right = fig.subplots(1, 2)
    for index, start in enumerate(dataset.start.values):
        look = study.figure.series_style(index)
        left.loglog(DEPTHS, dataset.updates.sel(start=start), label=start, **look)
        learnt = np.isfinite(dataset.updates.sel(start=start).values)
        right.loglog(DEPTHS, dataset.best_rate.sel(start=start).where(learnt), **look)
    right.loglog(DEPTHS, 3 / np.array(DEPTHS), color="0.6", ls=":", lw=1)
    right.text(DEPTHS[2], 3.3 / DEPTHS[2], "∝ 1/L", color="0.4")
    for ax in (left, right):
        ax.minorticks_off()
        ax.set_xticks(DEPTHS, [str(depth) for depth in DEPTHS])
    left.set(xlabel="weight matrices L", ylabel="updates", title="Learning time at the best rate")
    right.set(xlabel="weight matrices L", ylabel="rate λ", title="Best rate")
    left.legend()
    return fig


EXPERIMENT = Paper(
    name="papers/saxe2014_learning",
    config=Config,
    run=run,
    figure=figure_curves,
    claims=claims,
    quick={"rate": 0.02, "width": 12, "num_updates": 30, "num_seeds": 1},
    doc=__doc__,
    citation="Saxe, McClelland, Ganguli 2014, Exact solutions to the nonlinear dynamics of "
    "learning in deep linear neural networks, arXiv:1312.6120",
    figures={"curves": figure_curves, "depth": figure_depth},
    traps=(
        "The paper trains on MNIST with 1000 units and up to 100 layers; here are whitened inputs, "
        "a task of 10 orthonormal rows, and up to 33 layers of 32 units.",
        "The u_0 of random weights is that of the mean of (a + b)/2, which the paper does not say.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
