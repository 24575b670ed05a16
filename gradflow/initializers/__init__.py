"""Initialisers of weight matrices, per gate and by name.

An initialiser is a function (key, shape, dtype) -> array of shape (outputs, inputs), for products
``W @ h`` with a column vector. Each gate's matrix is initialised separately. Some libraries
initialise one matrix for all gates. If that one is orthogonal, the block of a single gate is not;
`gradflow.presets` has this variant.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from gradflow.initializers.biases import BiasInitializer, chrono, constant
from gradflow.initializers.laws import (
    Initializer,
    critical,
    glorot,
    identity,
    lecun,
    normal,
    orthogonal,
    scaled_identity,
    sparse,
)
from gradflow.spec import make_from_spec

__all__ = [
    "INITIALIZERS",
    "BiasInitializer",
    "BiasSpec",
    "InitSpec",
    "Initializer",
    "chrono",
    "critical",
    "glorot",
    "identity",
    "lecun",
    "normal",
    "orthogonal",
    "per_gate",
    "resolve_bias",
    "resolve_initializer",
    "scaled_identity",
    "sparse",
]

InitSpec: TypeAlias = str | Initializer
"""A name with options, such as ``"normal(radius=0.95)"``, or an initialiser itself."""

BiasSpec: TypeAlias = float | str | BiasInitializer
"""A constant, a name with options such as ``"chrono(max_lag=100)"``, or an initialiser itself."""

INITIALIZERS: dict[str, Callable[..., Initializer]] = {
    "critical": critical,
    "glorot": glorot,
    "identity": identity,
    "lecun": lecun,
    "normal": normal,
    "orthogonal": orthogonal,
    "scaled_identity": scaled_identity,
    "sparse": sparse,
}
"""The initialisers of weight matrices by name; options are those of each function."""


BIAS_INITIALIZERS: dict[str, Callable[..., BiasInitializer]] = {"chrono": chrono}


def resolve_bias(spec: BiasSpec) -> BiasInitializer:
    """Returns the initialiser of a bias, from a number, a name with options, or an initialiser.

    Raises:
      TypeError: If it is none of these.
      ValueError: For an unknown name, an unknown option, or an invalid value.
    """
    if isinstance(spec, BiasInitializer):
        return spec
    if not isinstance(spec, str):
        return constant(spec)
    return _by_name("bias initialiser", spec, BIAS_INITIALIZERS)


def resolve_initializer(spec: InitSpec) -> Initializer:
    """Returns the initialiser for a name with options; returns an initialiser unchanged.

    Raises:
      TypeError: If it is neither.
      ValueError: For an unknown name, an unknown option, or an invalid value.
    """
    if callable(spec):
        return spec
    return _by_name("initialiser", spec, INITIALIZERS)


def _by_name(kind: str, spec: str, known: Mapping[str, Callable[..., Any]]) -> Any:
    try:
        return make_from_spec(kind, spec, known)
    except TypeError as error:
        raise ValueError(
            f"Expected valid values of all options of the {kind} {spec!r}, got: "
            f"{str(error).rstrip('.')}. Correct its options."
        ) from None


def per_gate(
    spec: InitSpec | Mapping[str, InitSpec], gates: Sequence[str]
) -> dict[str, Initializer]:
    """Returns an initialiser for each gate, from one for all gates or a mapping with every gate.

    Raises:
      ValueError: If the keys of the mapping are not exactly the gates.
    """
    if not isinstance(spec, Mapping):
        return dict.fromkeys(gates, resolve_initializer(spec))
    if set(spec) != set(gates):
        raise ValueError(
            f"Expected an initialiser for each of the gates {sorted(gates)}, got them for "
            f"{sorted(spec)}. Give one for each of these gates, or one for all."
        )
    return {gate: resolve_initializer(spec[gate]) for gate in gates}
