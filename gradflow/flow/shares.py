"""The share of one step in ∂L/∂θ, as factors: an outer product is measured without being formed."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array

from gradflow.cell import Carry, Params
from gradflow.flow.reverse import Scaled, pull_back
from gradflow.flow.steps import Steps, log_scaled, rescale

_OUTER = (((), ()), ((), ()))
"""The dimension numbers of a product that sums over nothing."""


def pull_both(
    steps: Steps, params: Params, s: Carry, x: Any, adjoint: Carry
) -> tuple[Params, Carry]:
    """The adjoint times ∂⁺s_k/∂θ, and times J_k; zero for a parameter that is not floating."""
    leaves, tree = jax.tree.flatten(params)
    moving = [
        i for i, leaf in enumerate(leaves) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
    ]

    def step(moved: list[Array], s: Carry) -> Carry:
        given = dict(enumerate(leaves)) | dict(zip(moving, moved, strict=True))
        return steps.cell.step(jax.tree.unflatten(tree, given.values()), s, x)[0]

    _, vjp = jax.vjp(step, [leaves[i] for i in moving], s)
    shares, pulled = vjp(adjoint)
    dtype = jnp.result_type(*jax.tree.leaves(s))
    every = {
        i: jnp.zeros(jnp.shape(leaf), dtype) for i, leaf in enumerate(leaves) if i not in moving
    }
    every |= dict(zip(moving, shares, strict=True))
    return jax.tree.unflatten(tree, [every[i] for i in range(len(leaves))]), pulled


def log_shares(steps: Steps, direct: Scaled, later: Scaled | None = None) -> tuple[Scaled, Params]:
    """∂L/∂s_0, and the log norm of the share of each step in every parameter's gradient.

    Args:
      steps: The steps.
      direct: (∂L/∂h_k) (∂h_k/∂s_k) for k = 1 ... T.
      later: What comes back to s_T from steps after it; by default nothing.
    """
    factored = factored_pull(steps)

    def pull(s: Carry, x: Any, adjoint: Carry) -> tuple[Carry, list[Scaled]]:
        shares, pulled = factored(s, x, adjoint)
        return pulled, [_norm_of_product(share) for share in shares]

    first, kept = pull_back(steps, direct, pull, later)
    norms = [log_scaled(norm.value, norm.exponent + kept.exponent) for norm in kept.value]
    return first, jax.tree.unflatten(jax.tree.structure(steps.params), norms)


def _norm_of_product(factors: list[Array]) -> Scaled:
    """The norm of an outer product of factors, whose powers of two add up without rounding."""
    scaled = [rescale(factor.ravel(), jnp.zeros((), jnp.int32)) for factor in factors]
    norms = jnp.stack([jnp.linalg.norm(factor) for factor, _ in scaled])
    return Scaled(jnp.prod(norms), jnp.sum(jnp.stack([exponent for _, exponent in scaled])))


def factored_pull(
    steps: Steps,
) -> Callable[[Carry, Any, Carry], tuple[list[list[Array]], Carry]]:
    """`pull_both`, with the share in each parameter as factors whose norms multiply to its own.

    The traced program is made to return the two vectors of an outer product that it would have
    formed; what is not asked for is not computed.
    """
    s, x = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (steps.before, steps.xs)
    )
    traced = jax.make_jaxpr(partial(pull_both, steps))(steps.params, s, x, s)
    made_by = {var: eqn for eqn in traced.jaxpr.eqns for var in eqn.outvars}
    num_params = len(jax.tree.leaves(steps.params))
    outvars = traced.jaxpr.outvars
    factors = [_outer_factors(var, made_by) for var in outvars[:num_params]]
    wanted = [var for pair in factors for var in pair] + outvars[num_params:]
    program = core.ClosedJaxpr(traced.jaxpr.replace(outvars=wanted), traced.consts)

    def pull(s: Carry, x: Any, adjoint: Carry) -> tuple[list[list[Array]], Carry]:
        leaves = jax.tree.leaves((steps.params, s, x, adjoint))
        results = iter(core.jaxpr_as_fun(program)(*leaves))
        # A parameter that has no share has the literal 0, which is no array.
        shares = [[jnp.asarray(next(results)) for _ in pair] for pair in factors]
        return shares, jax.tree.unflatten(jax.tree.structure(s), list(results))

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
