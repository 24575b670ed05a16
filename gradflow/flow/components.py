"""The share of every step in ∂L/∂θ, for each parameter."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.reverse import (
    NOTHING,
    Loss,
    Recorded,
    Scaled,
    linearise,
    log_norm,
    pull_back,
    record,
)
from gradflow.flow.steps import Steps
from gradflow.unroll import Lengths, Mask, check_inputs, valid_steps

_OUTER = (((), ()), ((), ()))
"""The dimension numbers of a product that sums over nothing."""


def components(
    loss: Loss,
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> Params:
    """The log norm of the share of each step k in ∂L/∂θ, for every parameter θ.

    With ∂⁺s_k/∂θ the immediate partial derivative, in which s_{k-1} is held fixed::

        ∂L/∂θ = Σ_k (∂L/∂s_k) (∂⁺s_k/∂θ)

    and the result is the logarithm of the Frobenius norm of each term. The share in a matrix W
    that is multiplied by a vector v is an outer product δ ⊗ v, of norm ‖δ‖·‖v‖: it is never
    formed. Any other parameter's share is formed one step at a time.

    Args:
      loss: Takes the outputs h_1 ... h_T, of shape (T, hidden), to a scalar.
      cell: The cell.
      params: θ.
      inputs: x_1 ... x_T of one sequence. `jax.vmap` over a batch gives the shares of each
        sequence; the norm of their sum over the batch is not to be had from their norms.
      carry: s_0; by default the cell's own.
      lengths: The number of real steps; a padded step has no share.
      mask: True where a step is real.

    Returns:
      A pytree like the parameters, each leaf (T,), index = k - 1: natural logarithms, exact far
      below the smallest float, and exactly -inf for a step without a share.

    Raises:
      TypeError: If the loss is not floating.
      ValueError: If it is not a scalar, or the inputs are not one sequence.

    Source: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, eq. 3 to 5.
    """
    mask = valid_steps(check_inputs(inputs), lengths, mask)
    return _log_components(cell, record(loss, cell, (params, inputs, carry, mask)))


def component_map(
    losses: Loss,
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> Params:
    """The log norm of the share of each step k in ∂ℓ_t/∂θ, for a loss ℓ_t at every step t.

    ∂ℓ_t/∂θ = Σ_{k ≤ t} (∂ℓ_t/∂s_k) (∂⁺s_k/∂θ). One pass back takes all T adjoints along. The
    arguments are those of `components`, but

    Args:
      losses: Takes the outputs, of shape (T, hidden), to ℓ_1 ... ℓ_T, of shape (T,). ℓ_t must
        depend on h_t alone.

    Returns:
      A pytree like the parameters, each leaf (T, T), ``[t-1, k-1]``: natural logarithms, NaN for
      k > t.

    Raises:
      TypeError: If the losses are not floating.
      ValueError: If they are not of shape (T,), or the inputs are not one sequence.

    Source: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, eq. 4.
    """
    mask = valid_steps(check_inputs(inputs), lengths, mask)
    recorded = record(losses, cell, (params, inputs, carry, mask), per_step=True)
    return _log_component_map(cell, recorded)


def component_gradients(
    loss: Loss,
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> Params:
    """The share of each step k in ∂L/∂θ itself, (∂L/∂s_k) (∂⁺s_k/∂θ), where there is room for it.

    The arguments and the errors are those of `components`.

    Returns:
      A pytree like the parameters with a leading axis T, index = k - 1, in units of the loss a
      unit of the parameter; the sum over that axis is ∂L/∂θ.
    """
    mask = valid_steps(check_inputs(inputs), lengths, mask)
    return _component_gradients(cell, record(loss, cell, (params, inputs, carry, mask)))


@partial(jax.jit, static_argnums=0)
def _log_components(cell: Cell, recorded: Recorded) -> Params:
    with jax.default_matmul_precision("highest"):
        return _log_shares(*linearise(cell, recorded))


@partial(jax.jit, static_argnums=0)
def _log_component_map(cell: Cell, recorded: Recorded) -> Params:
    with jax.default_matmul_precision("highest"):
        steps, direct = linearise(cell, recorded)
        num_steps = len(direct.exponent)
        past = jnp.tri(num_steps, dtype=bool)
        # Row t of the map is the pass that starts from ℓ_t, with nothing from the other losses.
        exponents = jnp.where(jnp.eye(num_steps, dtype=bool), direct.exponent, NOTHING)
        shares = jax.vmap(lambda e: _log_shares(steps, Scaled(direct.value, e)))(exponents)
        return jax.tree.map(lambda leaf: jnp.where(past, leaf, jnp.nan), shares)


@partial(jax.jit, static_argnums=0)
def _component_gradients(cell: Cell, recorded: Recorded) -> Params:
    with jax.default_matmul_precision("highest"):
        steps, direct = linearise(cell, recorded)

        def pull(s: Carry, x: Any, adjoint: Carry) -> tuple[Carry, Params]:
            share, pulled = _pull_both(steps, steps.params, s, x, adjoint)
            return pulled, share

        _, (shares, exponent) = pull_back(steps, direct, pull)
        return jax.tree.map(lambda leaf: jax.vmap(jnp.ldexp)(leaf, exponent), shares)


def _pull_both(
    steps: Steps, params: Params, s: Carry, x: Any, adjoint: Carry
) -> tuple[Params, Carry]:
    """The adjoint times ∂⁺s_k/∂θ, and times J_k."""
    _, vjp = jax.vjp(lambda params, s: steps.cell.step(params, s, x)[0], params, s)
    return vjp(adjoint)


def _log_shares(steps: Steps, direct: Scaled) -> Params:
    factored = _factored_pull(steps)

    def pull(s: Carry, x: Any, adjoint: Carry) -> tuple[Carry, list[Array]]:
        shares, pulled = factored(s, x, adjoint)
        logs = [jnp.stack([log_norm(factor) for factor in share]) for share in shares]
        return pulled, [jnp.sum(log) for log in logs]

    _, kept = pull_back(steps, direct, pull)
    norms = [norm + kept.log_scale() for norm in kept.value]
    return jax.tree.unflatten(jax.tree.structure(steps.params), norms)


def _factored_pull(
    steps: Steps,
) -> Callable[[Carry, Any, Carry], tuple[list[list[Array]], Carry]]:
    """`_pull_both`, with the share in each parameter as factors whose norms multiply to its own.

    The traced program is made to return the two vectors of an outer product that it would have
    formed; what is not asked for is not computed.
    """
    s, x = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (steps.before, steps.xs)
    )
    traced = jax.make_jaxpr(partial(_pull_both, steps))(steps.params, s, x, s)
    made_by = {var: eqn for eqn in traced.jaxpr.eqns for var in eqn.outvars}
    num_params = len(jax.tree.leaves(steps.params))
    outvars = traced.jaxpr.outvars
    factors = [_outer_factors(var, made_by) for var in outvars[:num_params]]
    wanted = [var for pair in factors for var in pair] + outvars[num_params:]
    program = core.ClosedJaxpr(traced.jaxpr.replace(outvars=wanted), traced.consts)

    def pull(s: Carry, x: Any, adjoint: Carry) -> tuple[list[list[Array]], Carry]:
        leaves = jax.tree.leaves((steps.params, s, x, adjoint))
        results = iter(core.jaxpr_as_fun(program)(*leaves))
        shares = [[next(results) for _ in pair] for pair in factors]
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
