"""The share of every step in ∂L/∂θ, for each parameter."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.broken import broken_pairs, broken_steps, last_broken, void
from gradflow.flow.closed_over import open_cell, own_params
from gradflow.flow.reverse import NOTHING, Loss, Recorded, Scaled, linearise, pull_back, record
from gradflow.flow.shares import log_shares, pull_both
from gradflow.flow.steps import Steps
from gradflow.unroll import Lengths, Mask, check_inputs, valid_steps


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
      below the smallest float, and exactly -inf for a step without a share, as for a parameter that
      is not floating. NaN for the steps up
      to one at which the trajectory is not finite.

    Raises:
      TypeError: If the loss is not floating.
      ValueError: If it is not a scalar, or the inputs are not one sequence.

    Source: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, eq. 3 to 5.
    """
    mask = valid_steps(check_inputs(inputs), lengths, mask)
    cell, params, carry = open_cell(cell, params, inputs, carry)
    recorded = record(loss, cell, (params, inputs, carry, mask))
    return own_params(log_components(cell, recorded)[1])


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
    cell, params, carry = open_cell(cell, params, inputs, carry)
    recorded = record(losses, cell, (params, inputs, carry, mask), per_step=True)
    return own_params(_log_component_map(cell, recorded))


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
    cell, params, carry = open_cell(cell, params, inputs, carry)
    recorded = record(loss, cell, (params, inputs, carry, mask))
    return own_params(_component_gradients(cell, recorded))


@partial(jax.jit, static_argnums=0)
def log_components(
    cell: Cell, recorded: Recorded, later: Scaled | None = None
) -> tuple[Scaled, Params]:
    """∂L/∂s_0 and the log norms of the shares, after what comes back from later."""
    with jax.default_matmul_precision("highest"):
        steps, direct = linearise(cell, recorded)
        first, shares = log_shares(steps, direct, later)
        return first, void(_broken_shares(steps), shares)


@partial(jax.jit, static_argnums=0)
def _log_component_map(cell: Cell, recorded: Recorded) -> Params:
    with jax.default_matmul_precision("highest"):
        steps, direct = linearise(cell, recorded)
        num_steps = len(direct.exponent)
        past = jnp.tri(num_steps, dtype=bool)
        # Row t of the map is the pass that starts from ℓ_t, with nothing from the other losses.
        exponents = jnp.where(jnp.eye(num_steps, dtype=bool), direct.exponent, NOTHING)
        shares = jax.vmap(lambda e: log_shares(steps, Scaled(direct.value, e))[1])(exponents)
        return void(~past | broken_pairs(steps)[1:, :-1], shares)


@partial(jax.jit, static_argnums=0)
def _component_gradients(cell: Cell, recorded: Recorded) -> Params:
    with jax.default_matmul_precision("highest"):
        steps, direct = linearise(cell, recorded)

        def pull(s: Carry, x: Any, adjoint: Carry) -> tuple[Carry, Params]:
            share, pulled = pull_both(steps, steps.params, s, x, adjoint)
            return pulled, share

        _, (shares, exponent) = pull_back(steps, direct, pull)
        shares = jax.tree.map(lambda leaf: jax.vmap(jnp.ldexp)(leaf, exponent), shares)
        return void(_broken_shares(steps), shares)


def _broken_shares(steps: Steps) -> Bool[Array, " steps"]:
    """For which k one of the steps k ... T is broken."""
    return jnp.arange(1, steps.num_steps + 1) <= last_broken(broken_steps(steps))
