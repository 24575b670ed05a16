"""The component of one step in ∂L/∂θ, as factors: no outer product is formed to be measured.

The component in a matrix W that is multiplied by a vector v is δ ⊗ v, of norm ‖δ‖ · ‖v‖. For an
LSTM of 256 units that saves 8 · 256² numbers a step.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array

from gradflow.cell import Carry, Params
from gradflow.flow.reverse import pull_back
from gradflow.flow.trace import Trace
from gradflow.numerics.scaling import Scaled, log_scaled, rescale

_OUTER = (((), ()), ((), ()))
"""The dimension numbers of a product that sums over nothing."""


def pull_with_params(
    trace: Trace, params: Params, s: Carry, x: Any, adjoint: Carry
) -> tuple[Params, Carry]:
    """Computes adjoint · ∂⁺s_k/∂θ and adjoint · J_k; zero for a parameter that is not floating."""
    leaves, tree = jax.tree.flatten(params)
    moving = [
        i for i, leaf in enumerate(leaves) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
    ]

    def step(moved: list[Array], s: Carry) -> Carry:
        given = dict(enumerate(leaves)) | dict(zip(moving, moved, strict=True))
        return trace.step(jax.tree.unflatten(tree, list(given.values())), s, x)

    _, vjp = jax.vjp(step, [leaves[i] for i in moving], s)
    of_moving, pulled = vjp(adjoint)
    dtype = jnp.result_type(*jax.tree.leaves(s))
    every = {
        i: jnp.zeros(jnp.shape(leaf), dtype) for i, leaf in enumerate(leaves) if i not in moving
    }
    every |= dict(zip(moving, of_moving, strict=True))
    return jax.tree.unflatten(tree, [every[i] for i in range(len(leaves))]), pulled


def log_components(
    trace: Trace, direct: Scaled, later: Scaled | None = None
) -> tuple[Scaled, Params]:
    """Computes ∂L/∂s_0, and the log norm of each step's component in every parameter's gradient.

    Args:
      trace: The trajectory.
      direct: (∂L/∂h_k) (∂h_k/∂s_k) for k = 1 ... T.
      later: The adjoint that steps after these give s_T; by default zero.
    """
    factored = factored_pull(trace)

    def pull(s: Carry, x: Any, adjoint: Carry) -> tuple[Carry, list[Scaled]]:
        factors, pulled = factored(s, x, adjoint)
        return pulled, [_norm_of_product(one) for one in factors]

    first, kept = pull_back(trace, direct, pull, later)
    norms = [log_scaled(norm.value, norm.exponent + kept.exponent) for norm in kept.value]
    return first, jax.tree.unflatten(jax.tree.structure(trace.params), norms)


def _norm_of_product(factors: list[Array]) -> Scaled:
    """The norm of an outer product of factors, whose powers of two add up without rounding."""
    scaled = [rescale(factor.ravel()) for factor in factors]
    norms = jnp.stack([jnp.linalg.norm(factor) for factor, _ in scaled])
    return Scaled(jnp.prod(norms), jnp.sum(jnp.stack([exponent for _, exponent in scaled])))


def factored_pull(
    trace: Trace,
) -> Callable[[Carry, Any, Carry], tuple[list[list[Array]], Carry]]:
    """Returns `pull_with_params`, with each component as factors whose norms multiply to its own.

    The traced program is made to return the two vectors of an outer product that it would have
    formed; what is not asked for is not computed.
    """
    s, x = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (trace.before, trace.xs)
    )
    traced = jax.make_jaxpr(partial(pull_with_params, trace))(trace.params, s, x, s)
    made_by = {var: eqn for eqn in traced.jaxpr.eqns for var in eqn.outvars}
    num_params = len(jax.tree.leaves(trace.params))
    outvars = traced.jaxpr.outvars
    factors = [_outer_factors(var, made_by) for var in outvars[:num_params]]
    wanted = [var for pair in factors for var in pair] + outvars[num_params:]
    program = core.ClosedJaxpr(traced.jaxpr.replace(outvars=wanted), traced.consts)

    def pull(s: Carry, x: Any, adjoint: Carry) -> tuple[list[list[Array]], Carry]:
        leaves = jax.tree.leaves((trace.params, s, x, adjoint))
        results = iter(core.jaxpr_as_fun(program)(*leaves))
        # A parameter without a component has the literal 0, which is no array.
        found = [[jnp.asarray(next(results)) for _ in pair] for pair in factors]
        return found, jax.tree.unflatten(jax.tree.structure(s), list(results))

    return pull


def _outer_factors(var: Any, made_by: Mapping[Any, core.JaxprEqn]) -> list[Any]:
    """The two factors of an outer product, transposed or not, or the variable itself."""
    if isinstance(var, core.Literal) or var not in made_by:
        return [var]
    eqn = made_by[var]
    if eqn.primitive.name == "transpose":
        return _outer_factors(eqn.invars[0], made_by)
    is_outer = eqn.primitive.name == "dot_general" and eqn.params["dimension_numbers"] == _OUTER
    return list(eqn.invars) if is_outer else [var]
