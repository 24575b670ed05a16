"""The non-normal RNN (nnRNN): a recurrent matrix parametrised by its Schur decomposition."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params, split_key
from gradflow.cells.orthogonal import (
    block_skew_entries,
    resolve_biased_activation,
    resolve_skew_init,
    skew,
)
from gradflow.cells.parts import init_matrices
from gradflow.checks import check_sizes
from gradflow.initializers import InitSpec, resolve_initializer


def nnrnn(
    input_size: int,
    hidden_size: int,
    *,
    activation: str = "modrelu",
    skew_init: str = "henaff",
    input_init: InitSpec = "glorot",
) -> Cell:
    """An nnRNN: eigenvalues near the unit circle, with eigenvectors that need not be orthogonal.

    With P orthogonal, Λ block-diagonal with the blocks gamma_j [[cos theta_j, -sin theta_j],
    [sin theta_j, cos theta_j]], and T zero except above these blocks::

        P = exp(A), A skew-symmetric
        W_h = P (Λ + T) Pᵀ
        h_t = modReLU(W_x x_t + W_h h_{t-1}, b)

    with the modReLU of `gradflow.cells.orthogonal.orthogonal`. W_h has the eigenvalues
    gamma_j exp(±i theta_j) for any T. It is orthogonal at initialisation: T = 0 and gamma = 1.

    Parameters are A (hidden (hidden - 1)/2,), the entries above its diagonal row by row;
    gamma and theta (hidden/2,), theta initialised from U(0, 2π), in radians;
    T (hidden (hidden - 2)/2,), its entries row by row; W_x (hidden, input) and b (hidden,),
    initialised at zero. Computing W_h costs O(hidden³), as in `gradflow.cells.orthogonal`.

    In the authors' code T has one additional entry inside each block, which changes the
    eigenvalues, and the matrix multiplies a row vector, so that T lies below the blocks. The paper
    trains with a penalty that keeps gamma near 1; it is a part of the loss, not of the cell.

    Args:
      activation: ``modrelu``, ``identity`` for a linear network, ``tanh`` or another activation
        of `gradflow.cells.rnn`.
      skew_init: Initialiser of A, block-diagonal: ``henaff`` or ``cayley``, as for the orthogonal
        RNN.
      input_init: Initialiser of W_x. The authors use Glorot's normal distribution.

    Raises:
      ValueError: If hidden_size is odd, or for an unknown activation or initialiser.

    Source: Kerg, Goyette, Puelma Touzel, Gidel, Vorontsov, Bengio, Lajoie 2019, arXiv:1905.12080.
    """
    check_sizes(input_size, hidden_size)
    if hidden_size % 2:
        raise ValueError(
            f"Expected an even hidden_size, because the spectrum consists of 2x2 rotations, got "
            f"{hidden_size}. Set hidden_size to {hidden_size + 1}."
        )
    init_blocks = resolve_skew_init(skew_init)
    init_input = resolve_initializer(input_init)
    phi = resolve_biased_activation(activation)
    half = hidden_size // 2

    def init(key: Key) -> Params:
        key_x, key_a, key_theta = split_key(key, 3)
        dtype = jnp.zeros(()).dtype
        return {
            "A": block_skew_entries(init_blocks(key_a, (half,), dtype), hidden_size),
            "gamma": jnp.ones(half),
            "theta": jax.random.uniform(key_theta, (half,), dtype, 0.0, 2 * math.pi),
            "T": jnp.zeros(hidden_size * (hidden_size - 2) // 2),
            **init_matrices(key_x, {"W_x": (init_input, (hidden_size, input_size))}),
            "b": jnp.zeros(hidden_size),
        }

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        P = jax.scipy.linalg.expm(skew(params["A"], hidden_size))
        schur = _rotations(params["gamma"], params["theta"]) + _above_blocks(
            params["T"], hidden_size
        )
        W_h = P @ schur @ P.T
        h = phi(params["W_x"] @ x + W_h @ h, params["b"])
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size))


def _rotations(
    gamma: Float[Array, " half"], theta: Float[Array, " half"]
) -> Float[Array, "hidden hidden"]:
    """Makes the block-diagonal matrix of the rotations by theta, scaled by gamma."""
    c, s = gamma * jnp.cos(theta), gamma * jnp.sin(theta)
    even = 2 * np.arange(len(gamma))
    blocks = jnp.zeros((2 * len(gamma), 2 * len(gamma)), gamma.dtype)
    blocks = blocks.at[even, even].set(c).at[even + 1, even + 1].set(c)
    return blocks.at[even, even + 1].set(-s).at[even + 1, even].set(s)


def _above_blocks(entries: Float[Array, " pairs"], size: int) -> Float[Array, "hidden hidden"]:
    """Makes the matrix with these entries, row by row, above the 2x2 blocks of its diagonal."""
    rows, columns = np.triu_indices(size, 1)
    above = columns // 2 > rows // 2
    matrix = jnp.zeros((size, size), entries.dtype)
    return matrix.at[rows[above], columns[above]].set(entries)
