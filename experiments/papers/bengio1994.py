"""A unit that stores a bit robustly has vanishing gradients, and the more robust, the faster.

The smallest latch is one unit with a self-connection. It has a stable state x* > 0 for every
w > 1::

    x_t = tanh(w x_{t-1})    x* = tanh(w x*)    |∂x_t/∂x_0| = (w (1 - x*²))^t at x*

A larger w makes the bit survive a larger constant disturbance n, x_t = tanh(w x_{t-1} - n), and
makes the gradient vanish faster. The largest disturbance is the fold of that map,
n = w x_f - artanh x_f with w (1 - x_f²) = 1.

Source: Bengio, Simard, Frasconi 1994, doi:10.1109/72.279181.

    python experiments/papers/bengio1994.py

Takes about 5 seconds on two cores.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import curves, fields, runs
from _paper import Paper

from gradflow import flow, study
from gradflow.cells import rnn
from gradflow.study import Claim, derived, statement
from gradflow.study.figure import Figure


@dataclass(frozen=True)
class Config(study.Config):
    """The latches, and how long they run."""

    w: tuple[float, ...] = fields.positive(
        (1.1, 1.25, 1.5, 2.0, 3.0), help="Recurrent weights, above 1."
    )
    num_steps: int = fields.num_steps(100)
    long_steps: int = fields.positive(
        20000, help="Steps until the bit is read after a disturbance."
    )


def latch(w: jax.Array) -> dict[str, jax.Array]:
    """The parameters of x_t = tanh(w x_{t-1} + input)."""
    return {"W_h": jnp.reshape(w, (1, 1)), "W_x": jnp.ones((1, 1)), "b": jnp.zeros(1)}


def settled(w: jax.Array, disturbance: jax.Array, num_steps: int) -> jax.Array:
    """Computes the state after ``num_steps`` disturbed steps from x = 1."""

    def body(_: int, x: jax.Array) -> jax.Array:
        return rnn(1, 1).step(latch(w), x, -disturbance[None])[0]

    return jax.lax.fori_loop(0, num_steps, body, jnp.ones(1))[0]


def tolerance(w: jax.Array, num_steps: int) -> jax.Array:
    """Finds by bisection the largest constant disturbance after which x is still positive."""

    def halve(_: int, bounds: jax.Array) -> jax.Array:
        middle = jnp.mean(bounds)
        kept = settled(w, middle, num_steps) > 0
        return jnp.where(kept, jnp.stack([middle, bounds[1]]), jnp.stack([bounds[0], middle]))

    return jnp.mean(jax.lax.fori_loop(0, 40, halve, jnp.stack([jnp.zeros(()), w])))


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures stable state, gradients and tolerance of each latch; dimensions w, lag."""
    del once  # it takes seconds

    def one(w: jax.Array) -> dict[str, jax.Array]:
        x = settled(w, jnp.zeros(()), config.long_steps)
        inputs = jnp.zeros((config.num_steps, 1))
        return {
            "state": x,
            "log_norm": flow.log_norms(rnn(1, 1), latch(w), inputs, carry=x[None]),
            "tolerance": tolerance(w, config.long_steps),
        }

    found = runs.measure(one, jnp.asarray(config.w))
    dims = {"log_norm": ("w", "lag")}
    return xarray.Dataset(
        {name: (dims.get(name, ("w",)), value) for name, value in found.items()},
        coords={"w": list(config.w), "lag": curves.coordinates(config.num_steps)["lag"]},
    )


def slopes(w: np.ndarray) -> np.ndarray:
    """Computes f'(x*) = w (1 - x*²), with x* by Newton's method on x - tanh(w x)."""
    x = np.ones_like(w)
    for _ in range(60):
        x = x - (x - np.tanh(w * x)) / (1 - w * (1 - np.tanh(w * x) ** 2))
    return w * (1 - x**2)


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The closed forms, and the two statements of the paper."""
    return [*about_closed_forms(dataset), *about_latching(dataset)]


def about_closed_forms(dataset: xarray.Dataset) -> list[Claim]:
    """Gradient and tolerance against their equations."""
    w = dataset.w.values
    slope, fold = slopes(w), np.sqrt(1 - 1 / w)
    return [
        derived(
            "latch-rate",
            "The log10 slope of |∂x_t/∂x_0| per step, by flow.log_norms, is log10 f'(x*).",
            np.log10(slope),
            -decay_of(dataset) / curves.NATS,
            atol=1e-9,
            source="log10 f'(x*)",
        ),
        derived(
            "latch-tolerance",
            "The largest constant disturbance that the bit survives is the fold of the map.",
            w * fold - np.arctanh(fold),
            dataset.tolerance.values,
            atol=1e-5,
            source="w x_f - artanh x_f with w (1 - x_f²) = 1",
        ),
    ]


def decay_of(dataset: xarray.Dataset) -> np.ndarray:
    """The mean decay of log |∂x_t/∂x_0| in nats per step, for each latch."""
    return -np.diff(dataset.log_norm.values, axis=1).mean(axis=1)


def about_latching(dataset: xarray.Dataset) -> list[Claim]:
    """Robust storage against the gradient."""
    slope, found, decay = slopes(dataset.w.values), dataset.tolerance.values, decay_of(dataset)
    spread = np.ptp(np.diff(dataset.log_norm.values), axis=1).max()
    return [
        statement(
            "latch-vanishing",
            "‖∂x_t/∂x_0‖ of a robustly stored bit vanishes exponentially with t.",
            "‖∂x_t/∂x_0‖ -> 0 exponentially",
            {"largest and least f'": [slope.max(), slope.min()]},
            source="theorem on hyperbolic attractors (read through a second source)",
            criterion="the log norm falls by the same amount at every step",
            holds=(decay > 0).all() and spread < 1e-6,
            exact=True,
        ),
        statement(
            "latch-conflict",
            "The more noise a latch resists, the faster its gradient vanishes.",
            "robust latching and gradient descent conflict",
            {
                "least and largest tolerance": [found.min(), found.max()],
                "least and largest decay in nats per step": [decay.min(), decay.max()],
            },
            source="the paper's main conclusion (read through a second source)",
            criterion="tolerance and decay rate both rise with w",
            holds=(np.diff(found) > 0).all() and (np.diff(decay) > 0).all(),
            exact=True,
        ),
    ]


def figure(dataset: xarray.Dataset) -> Figure:
    """The gradient against the lag, and its decay rate against the tolerance."""
    fig = study.figure.empty(7.0, 2.8)
    left, right = fig.subplots(1, 2)
    log10 = dataset.log_norm / curves.NATS
    rates = -log10.diff("lag").mean("lag")
    for color, w in zip(curves.shades(dataset.sizes["w"]), dataset.w.values, strict=True):
        left.plot(dataset.lag, log10.sel(w=w), color=color, label=f"w = {w:g}")
        right.plot(dataset.tolerance.sel(w=w), rates.sel(w=w), "o", color=color)
        at = float(dataset.tolerance.sel(w=w)), float(rates.sel(w=w))
        right.annotate(f"  {w:g}", at, fontsize=8, va="center", annotation_clip=False)
    left.set(xlabel="t (steps)", ylabel=r"$\log_{10}\,|\partial x_t/\partial x_0|$", ylim=(-40, 1))
    left.set_title("Gradient through a latched bit")
    study.figure.legend_above(fig, left)
    right.set(xlabel="largest disturbance n survived", ylabel="orders of magnitude lost per step")
    right.set_title("Gradient against robustness, by w")
    return fig


EXPERIMENT = Paper(
    name="papers/bengio1994",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={"w": (1.25, 2.0), "num_steps": 30, "long_steps": 5000},
    doc=__doc__,
    citation="Bengio, Simard, Frasconi 1994, Learning long-term dependencies with gradient descent "
    "is difficult, doi:10.1109/72.279181",
    figures={"latch": figure},
    traps=(
        "The paper's curves of success against T were not read. The figure shows the smallest "
        "latch and is not one of the paper's.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
