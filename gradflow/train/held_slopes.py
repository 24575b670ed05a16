"""Rewrites a function so that the slopes of its pointwise parts are constant."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array

from gradflow.numerics.jaxprs import apply_equation, evaluate

_POINTWISE = frozenset(
    "atan atanh cbrt cos erf erf_inv erfc exp exp2 expm1 integer_pow log log1p logistic rsqrt sin "
    "sinh cosh sqrt square tan tanh asin asinh acos acosh".split()
)

_CALLS = frozenset("jit pjit closed_call custom_jvp_call custom_vjp_call".split())


def hold_slopes(function: Callable) -> Callable:
    """Returns a function with the same values and first derivatives, and constant pointwise slopes.

    Every y = φ(z) of one argument, such as a tanh, becomes its tangent at the point z_0 where the
    function is evaluated::

        y = φ(z_0) + φ'(z_0) (z - z_0)      z_0, φ(z_0) and φ'(z_0) held fixed

    Second derivatives then come from the products alone: for h' = tanh(W h), with
    ∂h'/∂h = diag(1 - h'²) W, only the explicit W is differentiated.
    """

    def held(*arguments: Any) -> Any:
        closed, out = jax.make_jaxpr(function, return_shape=True)(*arguments)
        results = evaluate(closed, jax.tree.leaves(arguments), _apply)
        return jax.tree.unflatten(jax.tree.structure(out), results)

    return held


def _apply(jaxpr: core.Jaxpr, equation: core.JaxprEqn, arguments: Sequence[Any]) -> Sequence[Any]:
    params = equation.params
    if equation.primitive.name in _CALLS:
        inner = params["jaxpr" if "jaxpr" in params else "call_jaxpr"]
        return evaluate(inner, arguments, _apply)
    if equation.primitive.name not in _POINTWISE:
        return apply_equation(jaxpr, equation, arguments)
    return [_tangent(lambda z: apply_equation(jaxpr, equation, [z])[0], *arguments)]


def _tangent(function: Callable[[Array], Array], z: Array) -> Array:
    fixed = jax.lax.stop_gradient(z)
    value, slope = jax.jvp(function, (fixed,), (jnp.ones_like(fixed),))
    return value + slope * (z - fixed)
