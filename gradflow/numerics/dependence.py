"""How the results of a program depend on some of its arguments: not, by an affine map, or else."""

from collections.abc import Collection, Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend import core

from gradflow.numerics.jaxprs import CALLS, nested

Dependence = str | None
"""None without any dependence, empty for an affine one, else the operation that is not affine."""

AFFINE = ""

_TOGETHER = frozenset(
    "add add_any broadcast_in_dim complex concatenate convert_element_type copy cumsum "
    "dynamic_slice dynamic_update_slice expand_dims fft gather imag neg pad real reduce_sum "
    "reshape rev select_n slice split squeeze stack sub tile transpose".split()
)
"""Operations that are linear in all of their operands together, but for indices and conditions.

Those are no floating numbers, and so never affine themselves.
"""

_APART = frozenset("conv_general_dilated dot_general mul".split())
"""Operations that are linear in each operand while the others are constant."""


def dependences(closed: core.ClosedJaxpr, places: Collection[int]) -> list[Dependence]:
    """Finds how each result of a program depends on the arguments at some places.

    An affine dependence is proven by the program: only operations that are linear whatever the
    values, and whose derivative is their own, lie on the way. A comparison, a conversion to
    integers, `jax.lax.stop_gradient` or a derivative rule of a user's own is not among them, nor
    is a loop, even where its body is affine.

    Args:
      closed: The program; what else it depends on counts as constant.
      places: Which of its arguments vary.
    """
    given = [AFFINE if i in places else None for i in range(len(closed.jaxpr.invars))]
    return _walk(closed.jaxpr, given)


def _walk(jaxpr: core.Jaxpr, given: Sequence[Dependence]) -> list[Dependence]:
    known = dict(zip(jaxpr.invars, given, strict=True))

    def read(atom: Any) -> Dependence:
        return None if isinstance(atom, core.Literal) else known.get(atom)

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        known.update(zip(equation.outvars, _results(equation, operands), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _results(equation: core.JaxprEqn, operands: Sequence[Dependence]) -> list[Dependence]:
    if equation.primitive.name in CALLS:
        (inner,) = nested(equation)
        return _walk(inner, operands)
    reasons = [operand for operand in operands if operand is not None]
    reason = next(filter(None, reasons), None)
    if reasons and reason is None:
        reason = AFFINE if _is_affine(equation, operands) else equation.primitive.name
    return [reason] * len(equation.outvars)


def _is_affine(equation: core.JaxprEqn, operands: Sequence[Dependence]) -> bool:
    """Whether results are affine in the operands that vary, each of which is affine itself."""
    name = equation.primitive.name
    varying = [place for place, operand in enumerate(operands) if operand is not None]
    avals: list[Any] = [result.aval for result in equation.outvars]
    if not all(jnp.issubdtype(aval.dtype, jnp.inexact) for aval in avals):
        return False
    if name in _APART:
        return len(varying) == 1
    return name in _TOGETHER or (name == "div" and varying == [0])
