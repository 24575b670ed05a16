"""Linear systems with one input and one output: a dense teacher, its students, and their loss.

::

    y_t = C h_t + D x_t      h_t = A h_{t-1} + B x_t

The output is the convolution of the input with the response g to an impulse. So with e the response
of a student less that of the teacher, the loss on a batch of sequences is a quadratic form, ::

    1/(2TB) Σ_b Σ_t (Σ_k e_k x_{b,t-k})² = 1/2 eᵀ M e    M_jk = 1/(TB) Σ_b Σ_t x_{b,t-j} x_{b,t-k}

and a student has to be run on one sequence, the impulse, for a batch of any size.

Source: Zucchet, Orvieto 2024, arXiv:2405.21064, Fig. 3, and its code.
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradflow import Carry, Cell, Params
from gradflow.cells import lru, rnn
from gradflow.train.model import predict

TEACHER_UNITS = 10


class Skip(NamedTuple):
    """A carry, and the last input."""

    s: Carry
    x: jax.Array


def with_skip(cell: Cell) -> Cell:
    """Appends x_t to the h_t of a cell, so that a linear readout of both is C h_t + D x_t."""

    def hidden(carry: Skip) -> jax.Array:
        return jnp.concatenate([cell.hidden(carry.s), carry.x])

    def step(params: Params, carry: Skip, x: jax.Array) -> tuple[Skip, jax.Array]:
        carry = Skip(cell.step(params, carry.s, x)[0], x)
        return carry, hidden(carry)

    return Cell(cell.init, step, lambda: Skip(cell.initial_carry(), jnp.zeros(1)), hidden)


def blocks(num_blocks: int) -> Cell:
    """h_t = A h_{t-1} + B x_t, where A has 2 x 2 blocks on its diagonal."""

    def step(params: Params, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        moved = jnp.sum(params["W_h"] * h.reshape(-1, 1, 2), axis=-1)
        h = moved.ravel() + params["W_x"] @ x
        return h, h

    shapes = {"W_h": (num_blocks, 2, 2), "W_x": (2 * num_blocks, 1)}
    return Cell(partial(_zeros, shapes), step, lambda: jnp.zeros(2 * num_blocks))


def complex_diagonal(units: int) -> Cell:
    """s_t = λ ∘ s_{t-1} + γ ∘ B x_t, with real and imaginary parts as rows; s is (2, units)."""

    def step(params: Params, s: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        (a, b), (re, im) = params["lambda"], s
        enter = params.get("gamma", 1.0) * (params["W_x"] @ x)
        s = jnp.stack([a * re - b * im, b * re + a * im]) + enter
        return s, s.ravel()

    shapes = {"lambda": (2, units), "W_x": (2, units, 1)}
    return Cell(partial(_zeros, shapes), step, lambda: jnp.zeros((2, units)))


def _zeros(shapes: Mapping[str, tuple[int, ...]], key: jax.Array) -> dict[str, jax.Array]:
    """Placeholder parameters; `initialise_student` gives the real ones."""
    del key
    return {name: jnp.zeros(shape) for name, shape in shapes.items()}


def student(name: str, units: int) -> Cell:
    """Makes the cell of a student."""
    if name == "RNN":
        return with_skip(rnn(1, units, activation="identity"))
    if name == "LRU":
        return with_skip(lru(1, units))
    if name in ("block diagonal", "more neurons"):
        return with_skip(blocks(units // 2 if name == "block diagonal" else units))
    return with_skip(complex_diagonal(units))


def with_moduli(matrices: np.ndarray, nu_0: float) -> tuple[np.ndarray, np.ndarray]:
    """Changes the moduli of eigenvalues l to ν_0 + (1 - ν_0) tanh|l|; also returns the moduli."""
    values, vectors = np.linalg.eig(matrices)
    moduli = nu_0 + (1 - nu_0) * np.tanh(np.abs(values))
    moved = moduli * np.exp(1j * np.angle(values))
    return (vectors * moved[..., None, :] @ np.linalg.inv(vectors)).real, moduli


class Teacher(NamedTuple):
    """y_t = C h_t + D x_t with h_t = A h_{t-1} + B x_t; scalar in and out."""

    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: float


def sample_teacher(seed: int, nu_0: float) -> tuple[Teacher, np.ndarray]:
    """Samples the teacher of a seed; also returns the moduli of its eigenvalues."""
    rng, n = np.random.default_rng(seed), TEACHER_UNITS
    A, moduli = with_moduli(rng.standard_normal((n, n)) / np.sqrt(n), nu_0)
    B, C = rng.standard_normal(n), rng.standard_normal(n) / np.sqrt(n)
    return Teacher(A, B, C, float(rng.standard_normal())), moduli


def response(teacher: Teacher, num_steps: int) -> np.ndarray:
    """Computes the impulse response g_0 ... g_{T-1}."""
    h, g = teacher.B, np.empty(num_steps)
    for k in range(num_steps):
        g[k] = teacher.C @ h
        h = teacher.A @ h
    g[0] += teacher.D
    return g


def initialise_student(name: str, units: int, nu_0: float, rng: np.random.Generator) -> Params:
    """Initialises the parameters of a student as the authors' code does."""
    real = name in ("RNN", "block diagonal", "more neurons")
    n = 2 * units if name == "more neurons" else units
    skip = rng.standard_normal((1, 1))
    if real:
        size = n if name == "RNN" else 2
        shape = (n, n) if name == "RNN" else (n // 2, 2, 2)
        cell = {
            "W_h": with_moduli(rng.standard_normal(shape) / np.sqrt(size), 0.0)[0],
            "W_x": rng.standard_normal((n, 1)),
        }
        C = rng.standard_normal((1, n)) / np.sqrt(n)
        cell |= {"b": np.zeros(n)} if name == "RNN" else {}
    else:
        modulus = np.sqrt(rng.uniform(nu_0**2, 1, n))
        angle, B = rng.uniform(0, 2 * np.pi, n), rng.standard_normal((2, n, 1)) / np.sqrt(n)
        gamma = np.sqrt(1 - modulus**2)
        cell = {"lambda": np.stack([modulus * np.cos(angle), modulus * np.sin(angle)]), "W_x": B}
        cell |= {"gamma": gamma} if name == "with γ" else {}
        if name == "LRU":
            logs = {"nu": np.log(-np.log(modulus)), "theta": np.log(angle), "gamma": np.log(gamma)}
            cell = {**logs, "W_x": {"re": B[0], "im": B[1]}}
        C = rng.standard_normal((1, 2 * n))
    return {"cell": cell, "readout": {"W": np.hstack([C, skip]), "b": np.zeros(1)}}


def impulse_response(cell: Cell, params: Params, num_steps: int) -> jax.Array:
    """Computes the impulse response g_0 ... g_{T-1} of a student, by running it."""
    impulse = jnp.zeros((num_steps, 1, 1)).at[0].set(1.0)
    return predict(cell, params, impulse)[:, 0, 0]


def correlations(x: jax.Array) -> jax.Array:
    """Computes M of a batch of sequences x, (T, B), as (T, T)."""
    T, B = x.shape
    backwards = x[::-1]

    # M_jk is M_{j+1,k+1} and the products at the last step, x_{T-1-j} x_{T-1-k}.
    def next_row(below: jax.Array, products: jax.Array) -> tuple[jax.Array, jax.Array]:
        row = products + jnp.append(below[1:], 0.0)
        return row, row

    products = backwards @ backwards.T / (T * B)
    return jax.lax.scan(next_row, jnp.zeros(T, x.dtype), products, reverse=True)[1]


def expected_correlations(num_steps: int) -> jax.Array:
    """Computes the expectation of M under white input, which is diagonal: 1 - k/T."""
    return jnp.diag(1 - jnp.arange(num_steps) / num_steps)


def loss(cell: Cell, target: jax.Array, M: jax.Array, params: Params) -> jax.Array:
    """Computes 1/2 eᵀ M e of a student; the target is the impulse response of the teacher."""
    e = impulse_response(cell, params, len(target)) - target
    return e @ M @ e / 2
