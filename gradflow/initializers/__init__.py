"""Initialisers of weight matrices, per gate and by name.

An initialiser is a function (key, shape, dtype) -> array with shape (outputs, inputs), so that
it stands to the left of a column vector: ``W @ h``. Each gate's matrix is drawn by itself.
(Drawing one matrix for all the gates at once, as some libraries do, is another law: its blocks
are not orthogonal. `gradflow.presets` has it.)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from gradflow.initializers.biases import BiasLaw, chrono, constant
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
    "BiasLaw",
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

BiasSpec: TypeAlias = float | str | BiasLaw
"""A number, a name with options such as ``"chrono(max_lag=100)"``, or a law itself."""

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


BIAS_INITIALIZERS: dict[str, Callable[..., BiasLaw]] = {"chrono": chrono}


def resolve_bias(spec: BiasSpec) -> BiasLaw:
    """Gives the law of a bias for a number or a name with options, or returns the one given.

    Raises:
      ValueError: For an unknown name, an option it does not take, or a bad value.
    """
    if isinstance(spec, BiasLaw):
        return spec
    if not isinstance(spec, str):
        return constant(spec)
    return _by_name("bias initialiser", spec, BIAS_INITIALIZERS)


def resolve_initializer(spec: InitSpec) -> Initializer:
    """Gives the initialiser for a name with options, or returns the one it is given.

    Raises:
      ValueError: For an unknown name, an option it does not take, or a bad value.
    """
    if callable(spec):
        return spec
    return _by_name("initialiser", spec, INITIALIZERS)


def _by_name(kind: str, spec: str, known: Mapping[str, Callable[..., Any]]) -> Any:
    try:
        return make_from_spec(kind, spec, known)
    except TypeError as error:
        raise ValueError(f"{kind} {spec!r}: {error}") from None


def per_gate(
    spec: InitSpec | Mapping[str, InitSpec], gates: Sequence[str]
) -> dict[str, Initializer]:
    """One initialiser a gate, from one for all of them or a mapping that names every gate.

    Raises:
      ValueError: If the mapping's keys are not exactly the gates.
    """
    if not isinstance(spec, Mapping):
        return dict.fromkeys(gates, resolve_initializer(spec))
    if set(spec) != set(gates):
        raise ValueError(
            f"an initialiser for each of the gates {sorted(gates)} is expected, "
            f"got them for {sorted(spec)}"
        )
    return {gate: resolve_initializer(spec[gate]) for gate in gates}
