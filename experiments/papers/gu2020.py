"""The gradient of a HiPPO-LegS memory by an old input falls as 1/t, not exponentially.

HiPPO-LegS keeps the coefficients c(t) of the best polynomial approximation, with N Legendre
polynomials, of the whole history f on [0, t]::

    dc/dt = -A c/t + B f/t    B_n = √(2n+1)
    A_nk = √(2n+1) √(2k+1) if n > k,  n + 1 if n = k,  0 if n < k

Here it is a cell, discretised by the bilinear method with Δt = 1, whose carry counts the time.

Source: Gu, Dao, Ermon, Rudra, Ré 2020, arXiv:2008.07669, propositions 3, 5 and 6, as quoted in
public notes on the paper.

    python experiments/papers/gu2020.py

Takes about 15 seconds on two cores.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import curves, fields
from _paper import Paper
from jax.scipy.linalg import solve_triangular

from gradflow import Cell, Params, flow, study, unroll
from gradflow.study import Claim, derived, numbers, statement
from gradflow.study.figure import Figure

LENGTHS = (200, 400, 800, 1600)
"""Times t_1 of the state."""

PLACES = (0.25, 0.5, 0.75)
"""t_0/t_1 of the inputs."""

ORDERS = (4, 8, 16, 32)
"""Numbers N of polynomials whose approximation is measured."""


class Memory(NamedTuple):
    """The coefficients, and the time."""

    c: jax.Array
    t: jax.Array


@dataclass(frozen=True)
class Config(study.Config):
    """The size of the memory, and the length of the functions that it approximates."""

    hidden_size: int = fields.hidden_size(16)
    num_steps: int = fields.num_steps(4000)


def legs(size: int) -> Cell:
    """Makes the cell of HiPPO-LegS; its input is f, its h is c."""
    n = np.arange(size)
    root = np.sqrt(2 * n + 1)
    A = jnp.asarray(np.tril(np.outer(root, root), -1) + np.diag(n + 1.0))
    B, eye = jnp.asarray(root), jnp.eye(size)

    def step(params: Params, carry: Memory, x: jax.Array) -> tuple[Memory, jax.Array]:
        del params
        t = carry.t + 1
        moved = carry.c - A @ carry.c / (2 * t) + B * x[0] / t
        c = solve_triangular(eye + A / (2 * t), moved, lower=True)
        return Memory(c, t), c

    start = Memory(jnp.zeros(size), jnp.zeros(()))
    return Cell(lambda key: {}, step, lambda: start, hidden=lambda carry: carry.c)


def coefficients(size: int, f: np.ndarray) -> np.ndarray:
    """Measures c after a whole function, sampled at the steps."""
    run = jax.jit(lambda f: unroll(legs(size), {}, f).outputs[-1])
    return np.asarray(run(jnp.asarray(f)[:, None]))


def triangle(num_steps: int) -> np.ndarray:
    """Samples a function with three corners, whose slope over the whole history is ±4."""
    return np.abs(4 * (np.arange(num_steps) + 0.5) / num_steps % 2 - 1)


def error(size: int, num_steps: int) -> float:
    """Measures the root mean square of f - Σ_n c_n √(2n+1) P_n(2x/t - 1)."""
    f = triangle(num_steps)
    weights = coefficients(size, f) * np.sqrt(2 * np.arange(size) + 1)
    place = 2 * (np.arange(num_steps) + 0.5) / num_steps - 1
    return float(np.sqrt(np.mean((f - np.polynomial.legendre.legval(place, weights)) ** 2)))


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures gradients by the input at all times, the dilation, and the errors by N."""
    del once  # it takes seconds
    cell, longest = legs(config.hidden_size), LENGTHS[-1]
    found = np.full((len(LENGTHS), longest), np.nan)
    for row, length in enumerate(study.progress(LENGTHS, "lengths")):
        log_norms = flow.log_input_norms(cell, {}, jnp.zeros((length, 1)))
        found[row, :length] = log_norms[::-1]  # index = t_0 - 1
    short, long = (
        coefficients(config.hidden_size, triangle(steps))
        for steps in (config.num_steps // 2, config.num_steps)
    )
    return xarray.Dataset(
        {
            "log_norm": (("length", "step"), found, {"units": "nats"}),
            "dilation": ((), np.linalg.norm(short - long) / np.linalg.norm(long)),
            "error": (("order",), [error(order, config.num_steps) for order in ORDERS]),
        },
        coords={"length": list(LENGTHS), "order": list(ORDERS)},
        attrs={"units": config.hidden_size},
    )


def closed_form(place: np.ndarray, size: int) -> np.ndarray:
    """Computes t_1 ‖∂c(t_1)/∂f(t_0)‖ at t_0/t_1: the norm of √(2n+1) P_n(2 t_0/t_1 - 1)."""
    values = np.polynomial.legendre.legvander(2 * np.asarray(place) - 1, size - 1)
    return np.sqrt(values**2 @ (2 * np.arange(size) + 1))


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The decay of gradients, robustness to the timescale, and the approximation."""
    size = dataset.attrs["units"]
    at = np.array([[round(place * length) - 1 for place in PLACES] for length in LENGTHS])
    norms = np.take_along_axis(dataset.log_norm.values, at, axis=1)
    slopes = np.polyfit(np.log(LENGTHS), norms, 1)[0]
    fixed = dataset.log_norm.values[:, LENGTHS[0] // 4 - 1] + np.log(LENGTHS)
    by_order = dataset.error.values
    order = np.polyfit(np.log(ORDERS), np.log(by_order), 1)[0]
    notes = "as quoted in public notes on the paper"
    return [
        numbers(
            "memory-gradient",
            "‖∂c(t_1)/∂f(t_0)‖ falls as 1/t_1: its log-log slope from t_1 = 200 to 1600, at "
            "t_0/t_1 = 0.25, 0.5 and 0.75.",
            -1.0,
            slopes,
            atol=0.03,
            source=f"proposition 5, Θ(1/t_1), {notes}",
        ),
        statement(
            "memory-bounded",
            "For one old input, t_0 = 50, t_1 ‖∂c(t_1)/∂f(t_0)‖ stays between constants.",
            "Θ(1/t_1) for any times t_0 < t_1",
            {"t_1 ‖∂c/∂f‖ at t_1 = 200, 400, 800, 1600": np.exp(fixed)},
            source=f"proposition 5, {notes}",
            criterion="it lies between 1 and N at all four t_1",
            holds=((np.exp(fixed) > 1) & (np.exp(fixed) < size)).all(),
            exact=True,
        ),
        derived(
            "memory-closed",
            "At t_1 = 1600 it is the norm of √(2n+1) P_n(2 t_0/t_1 - 1), at t_0/t_1 = 0.25, 0.5 "
            "and 0.75.",
            closed_form(np.array(PLACES), size),
            np.exp(norms[-1]) * LENGTHS[-1],
            rtol=0.02,
            source="c_n(t) = ∫ f(x) √(2n+1) P_n(2x/t - 1) dx/t, the projection itself",
        ),
        numbers(
            "memory-dilation",
            "The memory of a function that is played at half the speed is the same.",
            0.0,
            {"relative change of c": float(dataset.dilation)},
            atol=0.01,
            source=f"proposition 3 (timescale robustness), {notes}",
        ),
        statement(
            "memory-error",
            "The error of a Lipschitz function falls at least as fast as 1/√N.",
            "‖f - g‖ = O(tL/√N)",
            {"slope of log error by log N": order, "error at N = 4, 8, 16, 32": by_order},
            source=f"proposition 6, {notes}",
            criterion="the log-log slope from N = 4 to 32 is at most -0.5",
            holds=order <= -0.5,
        ),
    ]


def figure(dataset: xarray.Dataset) -> Figure:
    """The gradient by every input at several times, and scaled by the time."""
    fig = study.figure.empty(6.4, 2.7)
    left, right = fig.subplots(1, 2)
    shown = zip(curves.shades(len(LENGTHS)), LENGTHS, dataset.log_norm.values, strict=True)
    for color, length, row in shown:
        step = np.arange(1, length + 1)
        norm = np.exp(row[:length])
        left.loglog(step, norm, color=color, lw=1, label=rf"$t_1$ = {length}")
        right.plot(step / length, length * norm, color=color, lw=1)
    place = np.linspace(0.002, 0.998, 400)
    right.plot(place, closed_form(place, dataset.attrs["units"]), "k:", lw=1, label="closed form")
    left.set(xlabel=r"time $t_0$ of the input", title="Gradient by an input")
    left.set_ylabel(r"$\|\partial c(t_1)/\partial f(t_0)\|$")
    right.set(xlabel=r"$t_0/t_1$", title=r"Scaled by $t_1$: one curve")
    right.set_ylabel(r"$t_1\,\|\partial c(t_1)/\partial f(t_0)\|$")
    left.legend(loc="upper center", ncols=2)
    left.set_ylim(top=2)
    right.set_ylim(bottom=0)
    right.legend(loc="upper center")
    return fig


EXPERIMENT = Paper(
    name="papers/gu2020",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={"hidden_size": 8, "num_steps": 400},
    doc=__doc__,
    citation="Gu, Dao, Ermon, Rudra, Ré 2020, HiPPO: recurrent memory with optimal polynomial "
    "projections, arXiv:2008.07669",
    figures={"memory": figure},
    traps=(
        "The forward Euler method, c + (-A c + B f)/k, multiplies c by 1 - (n + 1)/k, which is up "
        "to N - 1 in size in the first steps; the factors of the bilinear method are at most 1.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
