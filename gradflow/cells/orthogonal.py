"""The orthogonal RNNs: a recurrent matrix that stays orthogonal by its parametrisation."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params
from gradflow.cells.checks import check_integer, check_sizes
from gradflow.cells.parts import draw_matrices
from gradflow.cells.rnn import ACTIVATIONS
from gradflow.initializers import InitSpec, resolve_initializer
from gradflow.spec import check_name

Square: TypeAlias = Float[Array, "n n"]


def cayley(A: Square) -> Square:
    """(I + A)⁻¹ (I - A): orthogonal for a skew-symmetric A, with no eigenvalue at -1."""
    eye = jnp.eye(len(A), dtype=A.dtype)
    return jnp.linalg.solve(eye + A, eye - A)


METHODS: dict[str, Callable[[Square], Square]] = {
    "cayley": cayley,
    "exponential": jax.scipy.linalg.expm,
}
"""Maps from the skew-symmetric to the orthogonal matrices."""


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
    """The RNN with an exactly orthogonal recurrent matrix: scoRNN (``cayley``), expRNN.

    With A skew-symmetric and D = diag(1 ... 1, -1 ... -1)::

        W_h = (I + A)⁻¹ (I - A) D   or   W_h = exp(A) D
        h_t = modReLU(W_x x_t + W_h h_{t-1}, b)

    modReLU(a, b) = a + b sign(a) where |a| + b ≥ 0, else 0: a negative b is a dead zone around 0,
    a positive one a jump, and with b = 0, as it starts, the net is linear. For another
    activation φ, h_t = φ(W_x x_t + W_h h_{t-1} + b).

    Parameters are A (hidden (hidden - 1)/2,), the entries above its diagonal row by row,
    W_x (hidden, input) and b (hidden,). The step builds W_h, which costs O(hidden³). The
    compiler moves that out of the loop over time, for the outputs and for gradients with respect
    to carries and inputs; for a gradient with respect to A it is paid at every step.

    scoRNN's authors draw W_x from U(±0.01); expRNN's draw b from U(±0.01).

    Args:
      method: ``cayley`` (Helfrich et al.) or ``exponential`` (Lezcano-Casado & Martínez-Rubio).
      num_negative: How many entries of D are -1, fixed. Without D a Cayley transform cannot
        come near an eigenvalue of -1; scoRNN's authors tune their number.
      activation: ``modrelu``, ``identity`` for a linear net, ``tanh`` or another of the RNN's.
      skew_init: A is drawn block-diagonal, with blocks [[0, s], [-s, 0]] and s ~ U(±π)
        (``henaff``) or s = -tan(u/2), u ~ U(0, π/2) (``cayley``). By default each method's own.
      input_init: Of W_x.

    Raises:
      TypeError: If num_negative is not an integer.
      ValueError: For an unknown method, activation or initialiser, or if num_negative is not
        within 0 ... hidden_size.

    Source: Helfrich, Willmott, Ye 2018, arXiv:1707.09520 (scoRNN); Lezcano-Casado,
    Martínez-Rubio 2019, arXiv:1901.08428 (expRNN); Henaff, Szlam, LeCun 2016, arXiv:1602.06662
    (initialiser); Arjovsky, Shah, Bengio 2016, arXiv:1511.06464 (modReLU).
    """
    check_sizes(input_size, hidden_size)
    check_integer("num_negative", num_negative, hidden_size, mend="it counts units")
    transform = resolve_method(method)
    draw_blocks = resolve_skew_init(skew_init or DEFAULT_SKEW_INIT[method])
    draw_input = resolve_initializer(input_init)
    phi = resolve_biased_activation(activation)
    positive = np.arange(hidden_size) < hidden_size - num_negative

    def init(key: Key) -> Params:
        key_x, key_h = jax.random.split(key)
        dtype = jnp.zeros(()).dtype
        return {
            "A": block_skew_entries(draw_blocks(key_h, (hidden_size // 2,), dtype), hidden_size),
            **draw_matrices(key_x, {"W_x": (draw_input, (hidden_size, input_size))}),
            "b": jnp.zeros(hidden_size),
        }

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        Q = transform(skew(params["A"], hidden_size))
        W_h = jnp.where(positive, Q, -Q)  # Q D
        h = phi(params["W_x"] @ x + W_h @ h, params["b"])
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size))


def modrelu(a: Float[Array, " n"], b: Float[Array, " n"]) -> Float[Array, " n"]:
    """ReLU(|a| + b) sign(a), written so that its slope at a = 0 is 1 where b = 0."""
    return jnp.where(jnp.abs(a) + b >= 0, a + b * jnp.sign(a), 0)


def resolve_biased_activation(name: str) -> Callable[[Array, Array], Array]:
    """The function (a, b) -> h of a pre-activation and a bias, by name.

    Raises:
      ValueError: For an unknown name.
    """
    if name == "modrelu":
        return modrelu
    check_name("activation", name, [*ACTIVATIONS, "modrelu"])
    phi = ACTIVATIONS[name]
    return lambda a, b: phi(a + b)


def skew(entries: Float[Array, " pairs"], size: int) -> Square:
    """The skew-symmetric matrix with these entries above its diagonal, row by row."""
    upper = jnp.zeros((size, size), entries.dtype).at[np.triu_indices(size, 1)].set(entries)
    return upper - upper.T


def block_skew_entries(blocks: Float[Array, " half"], size: int) -> Float[Array, " pairs"]:
    """The entries of the skew-symmetric matrix of blocks [[0, s], [-s, 0]] on its diagonal."""
    rows = np.arange(0, size - 1, 2)
    starts = rows * (2 * size - rows - 1) // 2  # where row i begins: at its entry (i, i + 1)
    return jnp.zeros(size * (size - 1) // 2, blocks.dtype).at[starts].set(blocks)


def _henaff(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    return jax.random.uniform(key, shape, dtype, -math.pi, math.pi)


def _half_angles(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    return -jnp.tan(jax.random.uniform(key, shape, dtype, 0.0, math.pi / 2) / 2)


SKEW_INITS: dict[str, Callable[[Key, tuple[int, ...], Any], Array]] = {
    "cayley": _half_angles,
    "henaff": _henaff,
}
"""Laws of the entries of a block-diagonal skew-symmetric matrix."""

DEFAULT_SKEW_INIT = {"cayley": "cayley", "exponential": "henaff"}


def resolve_method(name: str) -> Callable[[Square], Square]:
    """The map from skew-symmetric to orthogonal matrices of that name.

    Raises:
      ValueError: For an unknown name.
    """
    check_name("method", name, METHODS)
    return METHODS[name]


def resolve_skew_init(name: str) -> Callable[[Key, tuple[int, ...], Any], Array]:
    """The law of the blocks of a skew-symmetric matrix of that name.

    Raises:
      ValueError: For an unknown name.
    """
    check_name("skew initialiser", name, SKEW_INITS)
    return SKEW_INITS[name]
