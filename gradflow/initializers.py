"""Initialisers of weight matrices, per gate and by name.

An initialiser is a function (key, shape, dtype) -> array with shape (outputs, inputs), so that
it stands to the left of a column vector: ``W @ h``. Each gate's matrix is drawn by itself.
(Drawing one matrix for all the gates at once, as some libraries do, is another law: its blocks
are not orthogonal.)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers as jax_initializers
from jaxtyping import Array, Float

from gradflow.cell import Key
from gradflow.spec import parse_spec, unknown_name

Initializer: TypeAlias = Callable[[Key, tuple[int, int], Any], Array]
InitSpec: TypeAlias = str | Initializer
"""A name with options, such as ``"normal(radius=0.95)"``, or an initialiser itself."""


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
    return jax_initializers.orthogonal(_positive("gain", gain))


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


INITIALIZERS: dict[str, Callable[..., Initializer]] = {
    "glorot": glorot,
    "identity": identity,
    "lecun": lecun,
    "normal": normal,
    "orthogonal": orthogonal,
}


def resolve_initializer(spec: InitSpec) -> Initializer:
    """Gives the initialiser for a name with options, or returns the one it is given.

    Raises:
      ValueError: For an unknown name, an option it does not take, or a bad value.
    """
    if callable(spec):
        return spec
    name, options = parse_spec(spec)
    if name not in INITIALIZERS:
        raise ValueError(unknown_name("initialiser", name, INITIALIZERS))
    try:
        return INITIALIZERS[name](**options)
    except TypeError as error:
        raise ValueError(f"initialiser {spec!r}: {error}") from None


def per_gate(
    spec: InitSpec | Mapping[str, InitSpec], gates: Sequence[str]
) -> dict[str, Initializer]:
    """One initialiser a gate, from one for all of them or a mapping that names every gate.

    Raises:
      ValueError: If the mapping's keys are not exactly the gates.
    """
    if not isinstance(spec, Mapping):
        return {gate: resolve_initializer(spec) for gate in gates}
    if set(spec) != set(gates):
        raise ValueError(
            f"an initialiser for each of the gates {sorted(gates)} is expected, "
            f"got them for {sorted(spec)}"
        )
    return {gate: resolve_initializer(spec[gate]) for gate in gates}
