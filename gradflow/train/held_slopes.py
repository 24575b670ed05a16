"""A function with its pointwise parts replaced by their tangents: the slopes no longer move."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array

_POINTWISE = frozenset(
    "atan atanh cbrt cos erf erf_inv erfc exp exp2 expm1 integer_pow log log1p logistic rsqrt sin "
    "sinh cosh sqrt square tan tanh asin asinh acos acosh".split()
)

_CALLS = frozenset("jit pjit closed_call custom_jvp_call custom_vjp_call".split())


def hold_slopes(function: Callable) -> Callable:
    """The same values and first derivatives, with the slopes of the pointwise functions constant.

    Every y = φ(z) of one argument, such as a tanh, becomes its tangent at the point z_0 where the
    function is evaluated::

        y = φ(z_0) + φ'(z_0) (z - z_0)      z_0, φ(z_0) and φ'(z_0) held fixed

    What is left of a second derivative is what the products give: for h' = tanh(W h), with
    ∂h'/∂h = diag(1 - h'²) W, that of W as it stands there.
    """

    def held(*arguments: Any) -> Any:
        closed, out = jax.make_jaxpr(function, return_shape=True)(*arguments)
        results = _evaluate(closed, jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(out), results)

    return held


def _evaluate(closed: core.ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
    jaxpr = closed.jaxpr
    variables = [*jaxpr.constvars, *jaxpr.invars]
    values = dict(zip(variables, [*closed.consts, *arguments], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        results = _apply(jaxpr, equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(jaxpr: core.Jaxpr, equation: core.JaxprEqn, arguments: Sequence[Any]) -> Sequence[Any]:
    params = equation.params
    if equation.primitive.name in _CALLS:
        return _evaluate(params["jaxpr" if "jaxpr" in params else "call_jaxpr"], arguments)
    if equation.primitive.name not in _POINTWISE:
        return _as_it_is(jaxpr, equation, arguments)
    return [_tangent(lambda z: _as_it_is(jaxpr, equation, [z])[0], *arguments)]


def _as_it_is(
    jaxpr: core.Jaxpr, equation: core.JaxprEqn, arguments: Sequence[Any]
) -> Sequence[Any]:
    """One equation by itself, as a program."""
    pairs = zip(equation.invars, arguments, strict=True)
    given = {atom: value for atom, value in pairs if not isinstance(atom, core.Literal)}
    alone = jaxpr.replace(
        constvars=[],
        invars=list(given),  # x * x takes one variable twice
        outvars=equation.outvars,
        eqns=[equation],
        effects=equation.effects,
    )
    return core.jaxpr_as_fun(core.ClosedJaxpr(alone, []))(*given.values())


def _tangent(function: Callable[[Array], Array], z: Array) -> Array:
    fixed = jax.lax.stop_gradient(z)
    value, slope = jax.jvp(function, (fixed,), (jnp.ones_like(fixed),))
    return value + slope * (z - fixed)
