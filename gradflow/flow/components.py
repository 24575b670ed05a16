"""The component of every step in ∂L/∂θ, for each parameter."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.chunks import Runner
from gradflow.flow.closed_over import own_params
from gradflow.flow.nonfinite import last_nonfinite, nonfinite_pairs, nonfinite_steps, set_nan
from gradflow.flow.outer_products import log_components, pull_with_params
from gradflow.flow.reverse import (
    NOTHING,
    Cotangents,
    Loss,
    linearise,
    pull_back,
    run_with_loss,
)
from gradflow.flow.trace import Trace, compiled, trace_of
from gradflow.numerics.scaling import Scaled
from gradflow.unroll import Lengths, Mask


def components(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    loss: Loss,
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> Params:
    """Computes the log norm of the component of each step k in ∂L/∂θ, for every parameter θ.

    With ∂⁺s_k/∂θ the immediate partial derivative, in which s_{k-1} is held fixed::

        ∂L/∂θ = Σ_k (∂L/∂s_k) (∂⁺s_k/∂θ)

    and the result is the logarithm of the Frobenius norm of each term. The component in a matrix W
    that is multiplied by a vector v is an outer product δ ⊗ v, of norm ‖δ‖·‖v‖: it is never
    formed. Any other parameter's component is formed one step at a time.

    The arguments are those of `adjoints`. (`jax.vmap` over a batch gives the components of each
    sequence; the norm of their sum over the batch does not follow from their norms.)

    Returns:
      A pytree like the parameters, each leaf (T,), index = k - 1: natural logarithms, exact far
      below the smallest float, and exactly -inf for a step without a component, such as a padded
      one, and for a parameter that is not floating. NaN for the steps up to one at which the
      trajectory is not finite.

    Raises:
      TypeError: If the loss is not floating.
      ValueError: If it is not a scalar, or the inputs are not one sequence.

    Source: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, eq. 3 to 5.
    """
    given = {"carry": carry, "lengths": lengths, "mask": mask}
    return components_along(trace_of, cell, params, inputs, loss=loss, **given)


def components_along(
    run: Runner, cell: Cell, params: Params, inputs: Array, **given: Any
) -> Params:
    """Computes `components` along the path that the cell is run on."""
    path, cotangents = run_with_loss(run, cell, params, inputs, **given)
    return own_params(path.sweep(_through, None, cotangents, backward=True)[1])


def component_map(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    losses: Loss,
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> Params:
    """Computes the log norm of the component of each step k in ∂ℓ_t/∂θ, for a loss ℓ_t a step.

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
    given = {"carry": carry, "lengths": lengths, "mask": mask}
    run = run_with_loss(trace_of, cell, params, inputs, loss=losses, per_step=True, **given)
    return own_params(_map(*run))


def component_gradients(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    loss: Loss,
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> Params:
    """Computes the component of each step k in ∂L/∂θ itself, where there is room for it.

    The arguments and the errors are those of `components`.

    Returns:
      (∂L/∂s_k) (∂⁺s_k/∂θ) as a pytree like the parameters with a leading axis T, index = k - 1, in
      units of the loss a unit of the parameter; the sum over that axis is ∂L/∂θ.
    """
    given = {"carry": carry, "lengths": lengths, "mask": mask}
    return own_params(
        _gradients(*run_with_loss(trace_of, cell, params, inputs, loss=loss, **given))
    )


@compiled()
def _through(later: Scaled | None, trace: Trace, cotangents: Cotangents) -> tuple[Scaled, Params]:
    """Computes ∂L/∂s_0 and the log norms, from the adjoint that later steps give s_T."""
    first, log_norms = log_components(trace, linearise(trace, cotangents), later)
    return first, set_nan(_nonfinite(trace), log_norms)


@compiled()
def _map(trace: Trace, cotangents: Cotangents) -> Params:
    direct = linearise(trace, cotangents)
    num_steps = trace.num_steps
    past = jnp.tri(num_steps, dtype=bool)
    # Row t of the map is the pass that starts from ℓ_t, with nothing from the other losses.
    exponents = jnp.where(jnp.eye(num_steps, dtype=bool), direct.exponent, NOTHING)
    rows = jax.vmap(lambda e: log_components(trace, Scaled(direct.value, e))[1])(exponents)
    return set_nan(~past | nonfinite_pairs(trace)[1:, :-1], rows)


@compiled()
def _gradients(trace: Trace, cotangents: Cotangents) -> Params:
    def pull(s: Carry, x: Any, adjoint: Carry) -> tuple[Carry, Params]:
        gradient, pulled = pull_with_params(trace, trace.params, s, x, adjoint)
        return pulled, gradient

    _, (gradients, exponent) = pull_back(trace, linearise(trace, cotangents), pull)
    gradients = jax.tree.map(lambda leaf: jax.vmap(jnp.ldexp)(leaf, exponent), gradients)
    return set_nan(_nonfinite(trace), gradients)


def _nonfinite(trace: Trace) -> Bool[Array, " steps"]:
    """Returns for which k one of the steps k ... T is not finite."""
    return jnp.arange(1, trace.num_steps + 1) <= last_nonfinite(nonfinite_steps(trace))
