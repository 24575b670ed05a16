"""Orthogonal RNNs: their parametrisation keeps the recurrent matrix orthogonal."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params, split_key
from gradflow.cells.activations import ACTIVATIONS
from gradflow.cells.parts import init_matrices
from gradflow.checks import check_integer, check_sizes
from gradflow.initializers import InitSpec, resolve_initializer
from gradflow.spec import check_name

Square: TypeAlias = Float[Array, "n n"]


def cayley(A: Square) -> Square:
    """Computes (I + A)⁻¹ (I - A): orthogonal for a skew-symmetric A, without eigenvalue -1."""
    eye = jnp.eye(len(A), dtype=A.dtype)
    return jnp.linalg.solve(eye + A, eye - A)


METHODS: dict[str, Callable[[Square], Square]] = {
    "cayley": cayley,
    "exponential": jax.scipy.linalg.expm,
}
"""Maps from skew-symmetric to orthogonal matrices, by name."""


def orthogonal(
    input_size: int,
    hidden_size: int,
    *,
    method: str = "exponential",
    num_negative: int = 0,
    activation: str = "modrelu",
    skew_init: str | None = None,
    input_init: InitSpec = "lecun",
) -> Cell:
    """A vanilla RNN with an exactly orthogonal recurrent matrix: expRNN or scoRNN.

    With A skew-symmetric and D = diag(1 ... 1, -1 ... -1)::

        W_h = (I + A)⁻¹ (I - A) D   or   W_h = exp(A) D
        h_t = modReLU(W_x x_t + W_h h_{t-1}, b)

    modReLU(a, b) = a + b sign(a) where |a| + b ≥ 0, else 0. A negative b makes a dead zone around
    0, a positive b a jump. With b = 0, its initial value, the network is linear. For another
    activation φ, h_t = φ(W_x x_t + W_h h_{t-1} + b).

    Parameters are A (hidden (hidden - 1)/2,), the entries above its diagonal row by row,
    W_x (hidden, input) and b (hidden,). The step computes W_h, which costs O(hidden³). The
    compiler moves this out of the loop over time for outputs and for gradients with respect to
    carries and inputs, but not for a gradient with respect to A.

    The scoRNN authors initialise W_x from U(±0.01), the expRNN authors b from U(±0.01). No library
    among Flax, PyTorch and Keras has this cell.

    Args:
      method: ``cayley`` (scoRNN) or ``exponential`` (expRNN).
      num_negative: The number of entries of D that are -1; constant. Without D a Cayley transform
        has no eigenvalue near -1. The scoRNN authors tune this number.
      activation: ``modrelu``, ``identity`` for a linear network, ``tanh`` or another activation
        of `gradflow.cells.rnn`.
      skew_init: A is initialised block-diagonal, with blocks [[0, s], [-s, 0]], and s ~ U(±π)
        (``henaff``) or s = -tan(u/2), u ~ U(0, π/2) (``cayley``). By default ``henaff`` for the
        exponential and ``cayley`` for the Cayley transform.
      input_init: Initialiser of W_x.

    Raises:
      TypeError: If num_negative is not an integer.
      ValueError: For an unknown method, activation or initialiser, or if num_negative is not
        between 0 and hidden_size.

    Source: Helfrich, Willmott, Ye 2018, arXiv:1707.09520 (scoRNN); Lezcano-Casado,
    Martínez-Rubio 2019, arXiv:1901.08428 (expRNN); Henaff, Szlam, LeCun 2016, arXiv:1602.06662
    (initialiser); Arjovsky, Shah, Bengio 2016, arXiv:1511.06464 (modReLU).
    """
    check_sizes(input_size, hidden_size)
    check_integer("num_negative", num_negative, 0, hidden_size)
    transform = resolve_method(method)
    init_blocks = resolve_skew_init(DEFAULT_SKEW_INIT[method] if skew_init is None else skew_init)
    init_input = resolve_initializer(input_init)
    phi = resolve_biased_activation(activation)
    positive = np.arange(hidden_size) < hidden_size - num_negative

    def init(key: Key) -> Params:
        key_x, key_h = split_key(key)
        dtype = jnp.zeros(()).dtype
        return {
            "A": block_skew_entries(init_blocks(key_h, (hidden_size // 2,), dtype), hidden_size),
            **init_matrices(key_x, {"W_x": (init_input, (hidden_size, input_size))}),
            "b": jnp.zeros(hidden_size),
        }

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        Q = transform(skew(params["A"], hidden_size))
        W_h = jnp.where(positive, Q, -Q)  # Q D, without a product
        h = phi(params["W_x"] @ x + W_h @ h, params["b"])
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size))


def modrelu(a: Float[Array, " n"], b: Float[Array, " n"]) -> Float[Array, " n"]:
    """Computes ReLU(|a| + b) sign(a).

    The form a + b sign(a) has slope 1 at a = 0 with b = 0; the product with sign(a) has slope 0.
    """
    return jnp.where(jnp.abs(a) + b >= 0, a + b * jnp.sign(a), 0)


def resolve_biased_activation(name: str) -> Callable[[Array, Array], Array]:
    """Returns the function (pre-activation, bias) -> h of that name.

    Raises:
      ValueError: For an unknown name.
    """
    if name == "modrelu":
        return modrelu
    check_name("activation", name, [*ACTIVATIONS, "modrelu"])
    phi = ACTIVATIONS[name]
    return lambda a, b: phi(a + b)


def skew(entries: Float[Array, " pairs"], size: int) -> Square:
    """Makes the skew-symmetric matrix with these entries above its diagonal, row by row."""
    upper = jnp.zeros((size, size), entries.dtype).at[np.triu_indices(size, 1)].set(entries)
    return upper - upper.T


def block_skew_entries(blocks: Float[Array, " half"], size: int) -> Float[Array, " pairs"]:
    """Returns the entries of the block-diagonal matrix with the blocks [[0, s], [-s, 0]]."""
    rows = np.arange(0, size - 1, 2)
    starts = rows * (2 * size - rows - 1) // 2  # the index of entry (i, i + 1)
    return jnp.zeros(size * (size - 1) // 2, blocks.dtype).at[starts].set(blocks)


def _henaff(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    return jax.random.uniform(key, shape, dtype, -math.pi, math.pi)


def _half_angles(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    return -jnp.tan(jax.random.uniform(key, shape, dtype, 0.0, math.pi / 2) / 2)


SKEW_INITS: dict[str, Callable[[Key, tuple[int, ...], Any], Array]] = {
    "cayley": _half_angles,
    "henaff": _henaff,
}
"""Distributions of s in a block-diagonal skew-symmetric matrix, by name."""

DEFAULT_SKEW_INIT = {"cayley": "cayley", "exponential": "henaff"}


def resolve_method(name: str) -> Callable[[Square], Square]:
    """Returns the map from skew-symmetric to orthogonal matrices of that name.

    Raises:
      ValueError: For an unknown name.
    """
    check_name("method", name, METHODS)
    return METHODS[name]


def resolve_skew_init(name: str) -> Callable[[Key, tuple[int, ...], Any], Array]:
    """Returns the distribution of the blocks of a skew-symmetric matrix of that name.

    Raises:
      ValueError: For an unknown name.
    """
    check_name("skew initialiser", name, SKEW_INITS)
    return SKEW_INITS[name]
