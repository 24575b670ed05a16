"""Storing a bit robustly makes the gradient through it vanish: latching and learning conflict.

The smallest latch is one unit that drives itself, with a stable state x* > 0 for every w > 1::

    x_t = tanh(w x_{t-1})    x* = tanh(w x*)    |∂x_t/∂x_0| = (w (1 - x*²))^t at x*

The larger w is, the larger the constant disturbance n that the bit outlives, x_t = tanh(w x_{t-1} -
n), and the faster the gradient dies. (The fold of that map is n = w x_f - artanh x_f, with
w (1 - x_f²) = 1.)

Source: Bengio, Simard, Frasconi 1994, doi:10.1109/72.279181.

    python experiments/papers/bengio1994.py

Takes about 5 seconds on two cores.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from _claims import OWN, Claim, Paper, numbers, statement, verdicts

from gradflow import flow, study, unroll
from gradflow.cells import rnn
from gradflow.devices import map_runs

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

LAG = 20  # at which the card's closed form is held against automatic differentiation


@dataclass(frozen=True)
class Config(study.Config):
    """Which latches, and how long they are watched."""

    w: tuple[float, ...] = study.field(
        (1.1, 1.25, 1.5, 2.0, 3.0), help="Recurrent weights, above 1.", positive=True
    )
    num_steps: int = study.field(100, help="Longest lag.", positive=True)
    watch: int = study.field(20000, help="Steps that the bit must outlive.", positive=True)


def latch(w: jax.Array) -> dict[str, jax.Array]:
    """The parameters of x_t = tanh(w x_{t-1} + input)."""
    return {"W_h": jnp.reshape(w, (1, 1)), "W_x": jnp.ones((1, 1)), "b": jnp.zeros(1)}


def settled(w: jax.Array, disturbance: jax.Array, num_steps: int) -> jax.Array:
    """x after so many steps from 1, each disturbed towards the other state."""

    def body(_: int, x: jax.Array) -> jax.Array:
        return rnn(1, 1).step(latch(w), x, -disturbance[None])[0]

    return jax.lax.fori_loop(0, num_steps, body, jnp.ones(1))[0]


def tolerance(w: jax.Array, num_steps: int) -> jax.Array:
    """The largest constant disturbance that leaves x positive, by bisection."""

    def halve(_: int, bounds: jax.Array) -> jax.Array:
        middle = jnp.mean(bounds)
        kept = settled(w, middle, num_steps) > 0
        return jnp.where(kept, jnp.stack([middle, bounds[1]]), jnp.stack([bounds[0], middle]))

    return jnp.mean(jax.lax.fori_loop(0, 40, halve, jnp.stack([jnp.zeros(()), w])))


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """The stable state, the gradient at every lag from it, and the tolerance, of each latch."""
    import xarray

    del once  # it takes seconds

    def one(w: jax.Array) -> dict[str, jax.Array]:
        x = settled(w, jnp.zeros(()), config.watch)
        inputs = jnp.zeros((config.num_steps, 1))
        norms = flow.log_norms(rnn(1, 1), latch(w), inputs, carry=x[None])
        end = partial(_end, latch(w))
        return {
            "state": x,
            "log_norm": norms,
            "product": jax.grad(end)(x),
            "tolerance": tolerance(w, config.watch),
        }

    found = jax.jit(map_runs(one))(jnp.asarray(config.w))
    dims = {"log_norm": ("w", "lag")}
    return xarray.Dataset(
        {name: (dims.get(name, ("w",)), np.asarray(value)) for name, value in found.items()},
        coords={"w": list(config.w), "lag": np.arange(config.num_steps + 1)},
    )


def _end(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return unroll(rnn(1, 1), params, jnp.zeros((LAG, 1)), carry=x[None]).outputs[-1, 0]


def slopes(w: np.ndarray) -> np.ndarray:
    """f'(x*) = w (1 - x*²), with x* by Newton's method on x - tanh(w x)."""
    x = np.ones_like(w)
    for _ in range(60):
        x = x - (x - np.tanh(w * x)) / (1 - w * (1 - np.tanh(w * x) ** 2))
    return w * (1 - x**2)


def claims(dataset: "xarray.Dataset") -> list[Claim]:
    """Each claim beside what was measured."""
    w = dataset.w.values
    slope = slopes(w)
    top, found = np.sqrt(1 - 1 / w), dataset.tolerance.values
    decay = -np.diff(dataset.log_norm.values, axis=1).mean(axis=1)
    return [
        numbers(
            "latch-product",
            f"∂x_{LAG}/∂x_0 at x* by automatic differentiation",
            slope**LAG,
            dataset["product"].values,
            rtol=1e-5,
            source=OWN + "f'(x*)^20, x* by Newton's method",
            exact=True,
        ),
        numbers(
            "latch-rate",
            "log10 slope of |∂x_t/∂x_0| per step, from flow.log_norms",
            np.log10(slope),
            -decay / np.log(10),
            atol=1e-9,
            source=OWN + "log10 f'(x*)",
            exact=True,
        ),
        numbers(
            "latch-tolerance",
            "largest constant disturbance that the bit outlives",
            w * top - np.arctanh(top),
            dataset.tolerance.values,
            atol=1e-5,
            exact=True,
            source=OWN + "the fold, w x_f - artanh x_f with w (1 - x_f²) = 1",
        ),
        statement(
            "latch-vanishing",
            "a robustly stored bit has ‖∂x_t/∂x_0‖ -> 0 exponentially",
            "‖∂x_t/∂x_0‖ -> 0 exponentially",
            f"f' from {slope.max():.3g} to {slope.min():.3g}",
            source="theorem on hyperbolic attractors (read through a second source)",
            exact=True,
            condition="the log norm falls by the same negative amount at every step",
            holds=(decay > 0).all()
            and np.ptp(np.diff(dataset.log_norm.values), axis=1).max() < 1e-6,
        ),
        statement(
            "latch-conflict",
            "the more noise a latch resists, the faster its gradient dies",
            "robust latching and gradient descent conflict",
            f"tolerance {found.min():.3g} to {found.max():.3g}, "
            f"decay {decay.min():.3g} to {decay.max():.3g} nats a step",
            source="the paper's main conclusion (read through a second source)",
            exact=True,
            condition="tolerance and decay rate both rise with w",
            holds=(np.diff(found) > 0).all() and (np.diff(decay) > 0).all(),
        ),
    ]


def figure(dataset: "xarray.Dataset") -> "Figure":
    """The gradient against the lag, and what robustness costs."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7.0, 2.8))
    left, right = fig.subplots(1, 2)
    decades = dataset.log_norm / np.log(10)
    rates = -decades.diff("lag").mean("lag")
    for index, w in enumerate(dataset.w.values):
        color = f"C{index}"
        left.plot(dataset.lag, decades.sel(w=w), color=color)
        right.plot(dataset.tolerance.sel(w=w), rates.sel(w=w), "o", color=color)
        at = float(dataset.tolerance.sel(w=w)), float(rates.sel(w=w))
        right.annotate(f"  {w:g}", at, fontsize=8, va="center", annotation_clip=False)
    left.set(xlabel="t (steps)", ylabel=r"$\log_{10}\,|\partial x_t/\partial x_0|$", ylim=(-40, 1))
    left.set_title("Gradient through a latched bit")
    right.set(xlabel="largest disturbance n outlived", ylabel="decades lost per step")
    right.set_title("Robustness against gradient, by w")
    return fig


def summary(dataset: "xarray.Dataset") -> str:
    """The table of verdicts."""
    return verdicts(claims(dataset))


EXPERIMENT = study.Experiment(
    name="papers/bengio1994",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    quick={"w": (1.25, 2.0), "num_steps": 30, "watch": 5000},
    doc=__doc__,
)

PAPER = Paper(
    citation="Bengio, Simard, Frasconi 1994, Learning long-term dependencies with gradient descent "
    "is difficult, doi:10.1109/72.279181",
    experiment=EXPERIMENT,
    claims=claims,
    figures={"latch": figure},
    traps=(
        "The paper's curves of success against T were not read; the picture is of the smallest "
        "latch, and not one of the paper's.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
