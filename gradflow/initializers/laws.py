"""The laws of weight matrices: functions (key, shape, dtype) -> W of shape (outputs, inputs)."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers as jax_initializers
from jaxtyping import Array, Float

from gradflow.cell import Key
from gradflow.initializers.meanfield import critical_gain
from gradflow.numerics.lapack import qr

Initializer: TypeAlias = Callable[[Key, tuple[int, int], Any], Array]


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is expected to be a positive number, got {value!r}")
    return float(value)


def _scaled(base: Callable[..., Array], gain: float) -> Initializer:
    return lambda key, shape, dtype: gain * base(key, shape, dtype)


def orthogonal(gain: float = 1.0) -> Initializer:
    """W = gain · Q with Q uniform among the orthogonal matrices (orthonormal rows if wide).

    Source: Saxe, McClelland, Ganguli 2014, arXiv:1312.6120.
    """
    gain = _positive("gain", gain)

    def init(key: Key, shape: tuple[int, int], dtype: Any) -> Array:
        tall = jax.random.normal(key, (max(shape), min(shape)), dtype)
        q, r = qr(tall)
        q = gain * q * jnp.sign(jnp.diag(r))  # else the law is not uniform
        return q if shape[0] >= shape[1] else q.T

    return init


def identity(gain: float = 1.0) -> Initializer:
    """W = gain · I. Source: Le, Jaitly, Hinton 2015, arXiv:1504.00941.

    Raises:
      ValueError: On a matrix that is not square.
    """
    gain = _positive("gain", gain)

    def init(key: Key, shape: tuple[int, int], dtype: Any) -> Array:
        del key  # nothing is random
        if shape[0] != shape[1]:
            raise ValueError(
                f"the identity initialiser needs a square matrix, got shape {shape}; "
                "use it for recurrent weights, and glorot or lecun for input weights"
            )
        return gain * jnp.eye(shape[0], dtype=dtype)

    return init


def scaled_identity(gain: float = 0.01) -> Initializer:
    """W = gain · I with a small gain, by which an identity RNN forgets: what `identity` gives.

    Raises:
      ValueError: On a matrix that is not square.

    Source: Le, Jaitly, Hinton 2015, arXiv:1504.00941, for tasks without long dependencies.
    """
    return identity(gain)


def glorot(gain: float = 1.0) -> Initializer:
    """W_ij ~ U(±gain·√(6/(n_in + n_out))). Source: Glorot & Bengio 2010."""
    return _scaled(jax_initializers.glorot_uniform(in_axis=1, out_axis=0), _positive("gain", gain))


def lecun(gain: float = 1.0) -> Initializer:
    """W_ij truncated normal with standard deviation gain/√n_in. Source: LeCun et al. 1998."""
    return _scaled(jax_initializers.lecun_normal(in_axis=1, out_axis=0), _positive("gain", gain))


def normal(
    gain: float | None = None, *, std: float | None = None, radius: float | None = None
) -> Initializer:
    """W_ij ~ N(0, σ²), with one of three ways to say how large.

    Args:
      gain: σ = gain/√n_in, so that a large square matrix has spectral radius near gain. The
        default, with gain 1.
      std: σ itself.
      radius: The spectral radius that the drawn (square) matrix is rescaled to, exactly.
    """
    given = {k: v for k, v in {"gain": gain, "std": std, "radius": radius}.items() if v is not None}
    if len(given) > 1:
        raise ValueError(f"one of gain, std and radius is expected, got {sorted(given)}")
    kind, value = next(iter(given.items()), ("gain", 1.0))
    value = _positive(kind, value)

    def init(key: Key, shape: tuple[int, int], dtype: Any) -> Array:
        if kind == "radius":
            return _with_spectral_radius(jax.random.normal(key, shape, dtype), value)
        sigma = value if kind == "std" else value / math.sqrt(shape[1])
        return sigma * jax.random.normal(key, shape, dtype)

    return init


def _with_spectral_radius(matrix: Float[Array, "n m"], radius: float) -> Float[Array, "n m"]:
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"a spectral radius needs a square matrix, got shape {matrix.shape}")
    # Eigenvalues of a general matrix are not to be had on every accelerator: the host has them.
    measured = jax.pure_callback(
        lambda m: np.abs(np.linalg.eigvals(m)).max().astype(m.dtype),
        jax.ShapeDtypeStruct((), matrix.dtype),
        matrix,
        vmap_method="sequential",
    )
    return matrix * (radius / measured)


def critical(
    activation: str = "tanh", *, bias_std: float = 0.0, input_std: float = 0.0
) -> Initializer:
    """W_ij ~ N(0, σ_w²/n_in) on the critical line of mean-field theory, between order and chaos.

    σ_w is such that a gradient keeps its mean square from step to step in a wide net
    h_t = φ(W h_{t-1} + W_x x_t + b), found by `gradflow.initializers.meanfield.critical_gain`.
    Without bias and input it is 1 for tanh and √2 for ReLU.

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
    """W with so many incoming connections a unit, at random places and of values N(0, 1), scaled.

    A row of a matrix of no more columns than connections is full.

    Args:
      connections: Entries that are not zero in each row.
      gain: Scales the values to N(0, gain²/connections).
      radius: The spectral radius that a square matrix is rescaled to, exactly. The default,
        with 0.95.

    Source: Martens 2010 (15 connections); Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063 (radius
    0.95, there for tanh).
    """
    if connections < 1:
        raise ValueError(f"connections is expected to be at least 1, got {connections}")
    if gain is not None and radius is not None:
        raise ValueError(f"one of gain and radius is expected, got gain={gain}, radius={radius}")
    name, value = ("radius", 0.95 if radius is None else radius) if gain is None else ("gain", gain)
    value = _positive(name, value)

    def init(key: Key, shape: tuple[int, int], dtype: Any) -> Array:
        k_where, k_value = jax.random.split(key)
        count = min(connections, shape[1])
        order = jnp.argsort(jax.random.uniform(k_where, shape, dtype), axis=1)
        where = jnp.argsort(order, axis=1) < count  # each row's ranks, of which count are so low
        W = jnp.where(where, jax.random.normal(k_value, shape, dtype), 0)
        if name == "radius":
            return _with_spectral_radius(W, value)
        return value / math.sqrt(count) * W

    return init
