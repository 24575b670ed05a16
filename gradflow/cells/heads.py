"""Parts of the cells whose state is a matrix for each head: projections of x, S k and h = S q."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Key, Params
from gradflow.cells.parts import init_biases, init_matrices
from gradflow.checks import check_integer, check_sizes
from gradflow.initializers import BiasSpec, InitSpec, resolve_initializer

Vectors = Float[Array, "heads size"]
Matrices = Float[Array, "heads size size"]


class MatrixCarry(NamedTuple):
    """The matrix S of each head, and h, which is read from S and never read by the next step."""

    S: Matrices
    h: Float[Array, " hidden"]


def zero_matrices(num_heads: int, size: int) -> MatrixCarry:
    """Returns the initial carry of a cell with a size × size matrix for each head."""
    return MatrixCarry(jnp.zeros((num_heads, size, size)), jnp.zeros(num_heads * size))


def head_size(input_size: int, hidden_size: int, num_heads: int) -> int:
    """Returns the number of units of one head, which is hidden_size / num_heads.

    Raises:
      TypeError: If a size is not an integer.
      ValueError: If a size is out of range, or the heads cannot have equal sizes.
    """
    check_sizes(input_size, hidden_size)
    check_integer("num_heads", num_heads, 1)
    if hidden_size % num_heads:
        divisors = [str(n) for n in range(1, hidden_size + 1) if hidden_size % n == 0]
        raise ValueError(
            f"Expected num_heads to divide hidden_size={hidden_size}, got {num_heads}. Set "
            f"num_heads to one of {', '.join(divisors)}."
        )
    return hidden_size // num_heads


def init_projections(
    rows: Mapping[str, int],
    input_size: int,
    *,
    input_init: InitSpec,
    biases: Mapping[str, BiasSpec] | None = None,
) -> Callable[[Key], Params]:
    """Makes the init function of projections of x: ``params[name] = {"W_x"}``, or with a ``"b"``.

    Args:
      rows: Number of rows of each matrix W_x, by name.
      input_size: Number of their columns.
      input_init: Initialiser of each W_x, separately.
      biases: Initial bias of each projection that has one. These have equal numbers of rows.
    """
    init_x = resolve_initializer(input_init)
    biased = list(biases or {})
    init_b = init_biases(biased, biases or {})

    def init(key: Key) -> Params:
        W_x = init_matrices(key, {p: (init_x, (n, input_size)) for p, n in rows.items()})
        params = {p: {"W_x": matrix} for p, matrix in W_x.items()}
        if biased:
            keys = jax.random.split(key, len(biased))
            b = init_b(keys, (rows[biased[0]],), jnp.zeros(()).dtype)
            params |= {p: params[p] | {"b": b[p]} for p in biased}
        return params

    return init


def project(projection: Params, x: Array, num_heads: int) -> Vectors:
    """Computes W_x x, or W_x x + b where there is a bias, with a row for each head."""
    a = projection["W_x"] @ x
    return (a + projection["b"] if "b" in projection else a).reshape(num_heads, -1)


def unit(a: Vectors) -> Vectors:
    """Computes a/‖a‖ for each head, and 0 for a = 0."""
    # ‖a‖² of the vector itself overflows or underflows for entries that are still finite. Dividing
    # by the largest entry first avoids that, and changes neither the value nor the derivative,
    # because a/‖a‖ does not depend on the length of a.
    largest = jax.lax.stop_gradient(jnp.max(abs(a), axis=-1, keepdims=True))
    a = a / jnp.where(largest > 0, largest, 1)
    square = jnp.sum(a**2, axis=-1, keepdims=True)
    return a / jnp.sqrt(jnp.where(square > 0, square, 1))


def outer(v: Vectors, k: Vectors) -> Matrices:
    """Computes v kᵀ for each head."""
    return v[:, :, None] * k[:, None, :]


def multiply(S: Matrices, k: Vectors) -> Vectors:
    """Computes S k for each head."""
    return jnp.einsum("hvk,hk->hv", S, k)


def read_out(S: Matrices, q: Vectors) -> tuple[MatrixCarry, Float[Array, " hidden"]]:
    """Returns what a step returns: the carry (S, h) and h = S q, the heads one after another."""
    h = multiply(S, q).ravel()
    return MatrixCarry(S, h), h
