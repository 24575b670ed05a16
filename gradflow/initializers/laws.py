"""Initialisers of matrices: functions (key, shape, dtype) -> W of shape (outputs, inputs)."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.nn import initializers as jax_initializers
from jaxtyping import Array, Float

from gradflow.cell import Key
from gradflow.checks import check_integer, check_number
from gradflow.initializers.meanfield import critical_gain
from gradflow.numerics.lapack import qr
from gradflow.numerics.radius import spectral_radius

Initializer: TypeAlias = Callable[[Key, tuple[int, int], Any], Array]
"""(key, shape, dtype) -> an array of shape (outputs, inputs)."""


def _scaled(base: Callable[..., Array], gain: float) -> Initializer:
    check_number("gain", gain, "positive", example=1.0)
    return lambda key, shape, dtype: gain * base(key, shape, dtype)


def orthogonal(gain: float = 1.0) -> Initializer:
    """Initialises W = gain · Q with Q uniformly distributed over the orthogonal matrices.

    If W has more columns than rows, the rows of Q are orthonormal.

    Source: Saxe, McClelland, Ganguli 2014, arXiv:1312.6120.
    """
    check_number("gain", gain, "positive", example=1.0)

    def init(key: Key, shape: tuple[int, int], dtype: Any) -> Array:
        tall = jax.random.normal(key, (max(shape), min(shape)), dtype)
        q, r = qr(tall)
        # A QR fixes the signs of R's diagonal by convention; without this, Q is not uniform.
        q = gain * q * jnp.sign(jnp.diag(r))
        return q if shape[0] >= shape[1] else q.T

    return init


def identity(gain: float = 1.0) -> Initializer:
    """Initialises W = gain · I.

    Raises:
      ValueError: If the matrix is not square.

    Source: Le, Jaitly, Hinton 2015, arXiv:1504.00941.
    """
    check_number("gain", gain, "positive", example=1.0)

    def init(key: Key, shape: tuple[int, int], dtype: Any) -> Array:
        del key  # nothing is random
        if shape[0] != shape[1]:
            raise ValueError(
                f"Expected a square matrix for the identity initialiser, got shape {shape}. "
                "Use it for recurrent weights, and glorot or lecun for input weights."
            )
        return gain * jnp.eye(shape[0], dtype=dtype)

    return init


def scaled_identity(gain: float = 0.01) -> Initializer:
    """Initialises W = gain · I with a small default gain, with which an identity RNN forgets.

    Raises:
      ValueError: If the matrix is not square.

    Source: Le, Jaitly, Hinton 2015, arXiv:1504.00941, for tasks without long dependencies.
    """
    return identity(gain)


def glorot(gain: float = 1.0) -> Initializer:
    """Initialises W_ij ~ U(±gain·√(6/(n_in + n_out))). Source: Glorot & Bengio 2010."""
    return _scaled(jax_initializers.glorot_uniform(in_axis=1, out_axis=0), gain)


def lecun(gain: float = 1.0) -> Initializer:
    """Initialises W_ij from a truncated normal distribution of standard deviation gain/√n_in.

    Source: LeCun et al. 1998.
    """
    return _scaled(jax_initializers.lecun_normal(in_axis=1, out_axis=0), gain)


def normal(
    gain: float | None = None, *, std: float | None = None, radius: float | None = None
) -> Initializer:
    """Initialises W_ij ~ N(0, σ²), with σ given in one of three ways; by default gain=1.

    Args:
      gain: σ = gain/√n_in. A large square matrix then has a spectral radius near gain.
      std: σ.
      radius: The spectral radius to which the sampled square matrix is rescaled, exactly.

    Raises:
      ValueError: If more than one is given, a value is not positive, or the matrix for a radius
        is not square.
    """
    given = {k: v for k, v in {"gain": gain, "std": std, "radius": radius}.items() if v is not None}
    if len(given) > 1:
        raise ValueError(
            f"Expected one of gain, std and radius, got {sorted(given)}. Remove all but one."
        )
    kind, value = next(iter(given.items()), ("gain", 1.0))
    check_number(kind, value, "positive", example=1.0)

    def init(key: Key, shape: tuple[int, int], dtype: Any) -> Array:
        if kind == "radius":
            return _with_spectral_radius(jax.random.normal(key, shape, dtype), value)
        sigma = value if kind == "std" else value / math.sqrt(shape[1])
        return sigma * jax.random.normal(key, shape, dtype)

    return init


def _with_spectral_radius(matrix: Float[Array, "n m"], radius: float) -> Float[Array, "n m"]:
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            f"Expected a square matrix for a spectral radius, got shape {matrix.shape}. Use radius "
            "for recurrent weights, and gain or std for input weights."
        )
    return matrix * (radius / spectral_radius(matrix))


def critical(
    activation: str = "tanh", *, bias_std: float = 0.0, input_std: float = 0.0
) -> Initializer:
    """Initialises W_ij ~ N(0, σ_w²/n_in) on the critical line between order and chaos.

    In mean-field theory, σ_w on this line conserves the mean square of a gradient from step to
    step in a wide network h_t = φ(W h_{t-1} + W_x x_t + b). It is computed by
    `gradflow.initializers.meanfield.critical_gain`. Without bias and input it is 1 for tanh and √2
    for ReLU.

    Args:
      activation: φ, identity, relu, sigmoid or tanh.
      bias_std: Standard deviation of b.
      input_std: Standard deviation of W_x x_t.

    Source: Chen, Pennington, Schoenholz 2018, arXiv:1806.05394.
    """
    return normal(gain=critical_gain(activation, bias_std=bias_std, input_std=input_std))


def sparse(
    connections: int = 15, *, gain: float | None = None, radius: float | None = None
) -> Initializer:
    """Initialises a sparse W with a fixed number of nonzero entries N(0, 1) in each row, scaled.

    The positions are random. A row with fewer columns than connections is full. By default the
    matrix is scaled to radius=0.95.

    Args:
      connections: Number of nonzero entries in each row.
      gain: Scales the entries to N(0, gain²/connections).
      radius: The spectral radius to which a square matrix is rescaled, exactly.

    Raises:
      ValueError: If both gain and radius are given, or a value is not positive.

    Source: Martens 2010 (15 connections); Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063 (radius
    0.95, there for tanh).
    """
    check_integer("connections", connections, 1)
    if gain is not None and radius is not None:
        raise ValueError(f"Expected gain or radius, got gain={gain}, radius={radius}. Remove one.")
    name, value = ("radius", 0.95 if radius is None else radius) if gain is None else ("gain", gain)
    check_number(name, value, "positive", example=0.95)

    def init(key: Key, shape: tuple[int, int], dtype: Any) -> Array:
        k_where, k_value = jax.random.split(key)
        count = min(connections, shape[1])
        order = jnp.argsort(jax.random.uniform(k_where, shape, dtype), axis=1)
        where = jnp.argsort(order, axis=1) < count  # the entries of the lowest ranks in each row
        W = jnp.where(where, jax.random.normal(k_value, shape, dtype), 0)
        if name == "radius":
            return _with_spectral_radius(W, value)
        return value / math.sqrt(count) * W

    return init
