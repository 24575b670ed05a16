"""Unitary RNNs: a complex state, stored as real and imaginary parts."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from gradflow.cell import Cell, Key, Params, split_key
from gradflow.cells.orthogonal import (
    DEFAULT_SKEW_INIT,
    resolve_method,
    resolve_skew_init,
    skew,
)
from gradflow.cells.parts import init_matrices
from gradflow.checks import check_integer, check_sizes
from gradflow.initializers import InitSpec, resolve_initializer


class ComplexCarry(NamedTuple):
    """The real and the imaginary part of a complex state of `hidden` units."""

    re: Float[Array, " hidden"]
    im: Float[Array, " hidden"]


def unitary(
    input_size: int,
    hidden_size: int,
    *,
    permutation_seed: int = 0,
    input_init: InitSpec = "glorot",
) -> Cell:
    """A uRNN: a complex state and a unitary recurrent matrix with O(hidden) parameters.

    With F the unitary Fourier transform, Π a fixed permutation, D_j = diag(exp(i D_j)) for the
    angles D_j, and R_j = I - 2 v v*/‖v‖² the reflection along the complex vector v = R_j::

        W_h = D_3 R_2 F⁻¹ D_2 Π R_1 F D_1
        s_t = modReLU(W_x x_t + W_h s_{t-1}, b)

    modReLU(a, b) = (|a| + b) a/|a| where |a| + b ≥ 0, else 0. With b = 0, its initial value, the
    network is linear. A step costs O(hidden log hidden). The carry is (re, im), and h is the whole
    carry: hidden_size complex units are 2 hidden_size real numbers.

    Parameters, all real, are the angles D_1, D_2, D_3 (hidden,), initialised from U(±π), in
    radians; R_1 and R_2, each a pair re, im (hidden,), from U(±1); W_x, a pair re, im
    (hidden, input); and b (hidden,). The paper learns s_0, initialised from U(±√(3/(2 hidden)));
    here s_0 = 0 unless a carry is given. The authors' code divides by |a| + 1e-5, not by |a|.

    Args:
      permutation_seed: Seed of the permutation Π.
      input_init: Initialiser of both parts of W_x.

    Raises:
      TypeError: If permutation_seed is not an integer.
      ValueError: If it is not between 0 and 2³² - 1.

    Source: Arjovsky, Shah, Bengio 2016, arXiv:1511.06464.
    """
    check_sizes(input_size, hidden_size)
    check_integer("permutation_seed", permutation_seed, 0, 2**32 - 1)  # the range of NumPy's seeds
    permutation = np.random.default_rng(permutation_seed).permutation(hidden_size)
    init_input = _complex_input(input_size, hidden_size, input_init)

    def init(key: Key) -> Params:
        keys = iter(split_key(key, 8))
        angles = {f"D_{j}": _uniform(next(keys), hidden_size, math.pi) for j in (1, 2, 3)}
        vectors = {
            f"R_{j}": {part: _uniform(next(keys), hidden_size, 1.0) for part in ("re", "im")}
            for j in (1, 2)
        }
        return {**angles, **vectors, **init_input(next(keys))}

    def step(params: Params, carry: ComplexCarry, x: Array) -> tuple[ComplexCarry, Array]:
        s = jax.lax.complex(*carry)
        s = _reflect(params["R_1"], jnp.fft.fft(_rotate(params["D_1"], s), norm="ortho"))
        s = jnp.fft.ifft(_rotate(params["D_2"], s[permutation]), norm="ortho")
        s = _rotate(params["D_3"], _reflect(params["R_2"], s))
        re, im = (params["W_x"][part] @ x for part in ("re", "im"))
        carry = complex_modrelu(re + s.real, im + s.imag, params["b"])
        return carry, jnp.concatenate(carry)

    return Cell(init, step, initial_carry=lambda: zero_carry(hidden_size))


def full_unitary(
    input_size: int,
    hidden_size: int,
    *,
    method: str = "exponential",
    skew_init: str | None = None,
    input_init: InitSpec = "glorot",
) -> Cell:
    """A full-capacity unitary RNN: any unitary matrix, parametrised by a skew-Hermitian one.

    With B skew-symmetric and C symmetric, so that A = B + iC is skew-Hermitian::

        W_h = exp(A)   or   W_h = (I + A)⁻¹ (I - A)
        s_t = modReLU(W_x x_t + W_h s_{t-1}, b)

    with the modReLU, the carry and h of `unitary`. The step transforms the real matrix
    [[B, -C], [C, B]] into the orthogonal matrix [[Re W_h, -Im W_h], [Im W_h, Re W_h]].

    Parameters, all real, are B (hidden (hidden - 1)/2,), the entries above its diagonal row by
    row; C (hidden (hidden + 1)/2,), the entries on and above its diagonal; W_x, a pair re, im
    (hidden, input); and b (hidden,). At initialisation B, b and all of C except its diagonal are
    zero. Computing W_h costs O(hidden³), as in `gradflow.cells.orthogonal`. The paper has no A: it
    initialises a unitary W_h and updates it by the gradient on the manifold of unitary matrices.

    Args:
      method: ``exponential`` or ``cayley``.
      skew_init: Initialiser of C's diagonal: s ~ U(±π) (``henaff``) or s = -tan(u/2),
        u ~ U(0, π/2) (``cayley``). By default ``henaff`` for the exponential and ``cayley`` for
        the Cayley transform.
      input_init: Initialiser of both parts of W_x.

    Raises:
      ValueError: For an unknown method or initialiser.

    Source: Wisdom, Powers, Hershey, Le Roux, Atlas 2016, arXiv:1611.00035.
    """
    check_sizes(input_size, hidden_size)
    transform = resolve_method(method)
    init_angles = resolve_skew_init(DEFAULT_SKEW_INIT[method] if skew_init is None else skew_init)
    init_input = _complex_input(input_size, hidden_size, input_init)
    diagonal = np.flatnonzero(np.equal(*np.triu_indices(hidden_size)))

    def init(key: Key) -> Params:
        key_x, key_c = split_key(key)
        angles = init_angles(key_c, (hidden_size,), jnp.zeros(()).dtype)
        return {
            "B": jnp.zeros(hidden_size * (hidden_size - 1) // 2),
            "C": jnp.zeros(hidden_size * (hidden_size + 1) // 2).at[diagonal].set(angles),
            **init_input(key_x),
        }

    def step(params: Params, carry: ComplexCarry, x: Array) -> tuple[ComplexCarry, Array]:
        B, C = skew(params["B"], hidden_size), _symmetric(params["C"], hidden_size)
        W_h = transform(jnp.block([[B, -C], [C, B]]))
        re, im = jnp.split(W_h @ jnp.concatenate(carry), 2)
        W_x = params["W_x"]
        carry = complex_modrelu(W_x["re"] @ x + re, W_x["im"] @ x + im, params["b"])
        return carry, jnp.concatenate(carry)

    return Cell(init, step, initial_carry=lambda: zero_carry(hidden_size))


def complex_modrelu(
    re: Float[Array, " n"], im: Float[Array, " n"], b: Float[Array, " n"]
) -> ComplexCarry:
    """Computes ReLU(|a| + b) a/|a| for a = re + i im, with slope 1 at a = 0 where b = 0."""
    square = re**2 + im**2
    # At the origin a has no phase and the root no derivative. The argument is replaced by 1 before
    # the root: a NaN derivative in the branch that `where` discards would still reach the gradient.
    modulus = jnp.sqrt(jnp.where(square > 0, square, 1))
    scale = jnp.where(square > 0, 1 + b / modulus, 1)
    scale = jnp.where(jnp.where(square > 0, modulus, 0) + b >= 0, scale, 0)
    return ComplexCarry(scale * re, scale * im)


def _rotate(angles: Float[Array, " n"], s: Complex[Array, " n"]) -> Complex[Array, " n"]:
    return jax.lax.complex(jnp.cos(angles), jnp.sin(angles)) * s


def _reflect(vector: dict[str, Array], s: Complex[Array, " n"]) -> Complex[Array, " n"]:
    v = jax.lax.complex(vector["re"], vector["im"])
    return s - v * (2 * jnp.vdot(v, s) / jnp.vdot(v, v))


def _symmetric(entries: Float[Array, " pairs"], size: int) -> Float[Array, "n n"]:
    upper = jnp.zeros((size, size), entries.dtype).at[np.triu_indices(size)].set(entries)
    return upper + jnp.triu(upper, 1).T


def _uniform(key: Key, size: int, bound: float) -> Float[Array, " n"]:
    return jax.random.uniform(key, (size,), minval=-bound, maxval=bound)


def zero_carry(size: int) -> ComplexCarry:
    """Returns the carry s_0 = 0."""
    return ComplexCarry(jnp.zeros(size), jnp.zeros(size))


def _complex_input(
    input_size: int, hidden_size: int, input_init: InitSpec
) -> Callable[[Key], Params]:
    init_part = resolve_initializer(input_init)

    def init(key: Key) -> Params:
        parts = {part: (init_part, (hidden_size, input_size)) for part in ("re", "im")}
        return {"W_x": init_matrices(key, parts), "b": jnp.zeros(hidden_size)}

    return init
