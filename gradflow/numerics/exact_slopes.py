"""Exact derivatives of saturated units, for any function that JAX can trace."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from gradflow.numerics.jaxprs import apply_equation, apply_nested, evaluate, has_primitive
from gradflow.numerics.slopes import COMPLEMENTS, SLOPES, with_slope

SATURATING = frozenset(SLOPES)
"""The primitives whose derivatives are replaced."""


def exact_slopes(function: Callable) -> Callable:
    """Returns the same function with derivatives that saturation does not round to zero.

    The function is traced, and in its program, wherever it stands, also in a `jax.jit`, a loop or
    a conditional, these are differentiated in another form than JAX's own::

        tanh      sech² x = 4 e / (1 + e)²,  e = exp(-2|x|)      JAX: (1 + tanh x)(1 - tanh x)
        logistic  s(x) s(-x) = e / (1 + e)², e = exp(-|x|)       JAX: s (1 - s)
        expm1     e^x                                            JAX: (e^x - 1) + 1

    The factor 1 - s(x) of a coupled gate is a derivative by the state that it multiplies. It is
    evaluated as s(-x), and 1 ± tanh x and 1 + expm1 x likewise. These values change by rounding;
    all others are the same bits. (The derivatives that JAX has of erf, exp, softplus and log1p
    are no differences of rounded numbers.) This holds for derivatives of any order, in both modes.

    A derivative smaller than the smallest normal number, 2.2e-308 in float64, is that number, so
    that it is zero only where x is infinite. What has a rule of its own (`jax.custom_jvp`,
    `jax.custom_vjp`) keeps it.

    Args:
      function: Any function of pytrees of arrays, such as the step of a cell.
    """

    def exact(*arguments: Any) -> Any:
        closed, out = jax.make_jaxpr(function, return_shape=True)(*arguments)
        if not has_primitive(closed.jaxpr, SATURATING):
            return function(*arguments)
        results, _ = _Exact().transform(closed)(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(out), results)

    return exact


class _Exact:
    """One evaluation of a program with exact slopes."""

    def __init__(self) -> None:
        self.made: dict[int, tuple[Any, str, Any]] = {}
        """Each y = f(x) by its `id`: y, which keeps the id from another value, the name of f, x."""

    def transform(self, closed: core.ClosedJaxpr) -> Callable[..., tuple[list[Any], tuple[()]]]:
        return lambda *values: (evaluate(closed, values, self.apply), ())

    def apply(
        self, jaxpr: core.Jaxpr, equation: core.JaxprEqn, values: Sequence[Any]
    ) -> Sequence[Any]:
        name = equation.primitive.name
        if saturates(equation):
            exact = with_slope(lambda x: apply_equation(jaxpr, equation, [x])[0], SLOPES[name])
            x = jnp.asarray(values[0])
            result = exact(x)
            self.made[id(result)] = result, name, x
            return [result]
        complement = self._complement(equation, values)
        if complement is not None:
            return [complement]
        opened = apply_nested(equation, values, self.transform)
        return apply_equation(jaxpr, equation, values) if opened is None else opened[0]

    def _complement(self, equation: core.JaxprEqn, values: Sequence[Any]) -> Any:
        """Computes 1 - f(x) or 1 + f(x), if the equation subtracts or adds an f evaluated here."""
        name = equation.primitive.name
        if name not in ("add", "sub"):
            return None
        sides = ((0, 1), (1, 0)) if name == "add" else ((0, 1),)
        for one, other in sides:
            atom = equation.invars[one]
            if isinstance(atom, core.Literal) and jnp.ndim(atom.val) == 0 and atom.val == 1:
                _, function, x = self.made.get(id(values[other]), (None, "", None))
                if (name, function) in COMPLEMENTS:
                    return COMPLEMENTS[name, function](x)
        return None


def saturates(equation: core.JaxprEqn) -> bool:
    """Returns whether an equation is one of the functions of `SATURATING`, of real numbers."""
    if equation.primitive.name not in SATURATING:
        return False
    return jnp.issubdtype(equation.invars[0].aval.dtype, jnp.floating)  # pyright: ignore
