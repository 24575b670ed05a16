"""One reverse pass through a trajectory, in which nothing under- or overflows."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.chunks import Path
from gradflow.flow.trace import Trace, trace_of
from gradflow.numerics.exact_slopes import exact_slopes
from gradflow.numerics.scaling import Scaled, rescale, with_room

Loss = Callable[[Float[Array, " steps *hidden"]], Float[Array, "*steps"]]
"""A scalar of the outputs h_1 ... h_T; for `component_map`, one number for each of them."""

Pull = Callable[[Carry, Any, Carry], tuple[Carry, Any]]
"""(s_{k-1}, x_k, ∂L/∂s_k) -> (its product with J_k, whatever is to be kept of the step)."""

NOTHING = -(2**30)
"""The exponent of an exact zero: below that of any number, however long the sequence."""

AnyPath = TypeVar("AnyPath", bound=Path)

Cotangents = Float[Array, " steps *hidden"]
"""∂L/∂h_1 ... ∂L/∂h_T."""


def run_with_loss(
    run: Callable[..., AnyPath],
    cell: Cell,
    params: Params,
    inputs: Array,
    *,
    loss: Loss,
    per_step: bool = False,
    **given: Any,
) -> tuple[AnyPath, Cotangents]:
    """Runs the cell and differentiates the loss by the outputs.

    The loss is called here and nowhere in what `jax.jit` keeps: it may be another each time.

    Args:
      run: Runs the cell.
      cell: The cell.
      params: Its parameters.
      inputs: x_1 ... x_T.
      loss: The loss.
      per_step: Whether the loss gives one number a step, the t-th of h_t alone.
      **given: The carry, the lengths or the mask.

    Raises:
      TypeError: If the loss is not floating.
      ValueError: If it has not the shape that is expected.
    """
    total = partial(_total, loss, per_step)
    with jax.default_matmul_precision("highest"):
        # The errors of the loss come before anything is compiled.
        jax.eval_shape(lambda x: total(trace_of(cell, params, x, **given).outputs()), inputs)
        path = run(cell, params, inputs, **given)
        return path, jax.grad(exact_slopes(total))(jnp.asarray(path.outputs()))


def linearise(trace: Trace, cotangents: Cotangents) -> Scaled:
    """Computes (∂L/∂h_k) (∂h_k/∂s_k) for k = 1 ... T along a leading axis."""
    _, vjp = jax.vjp(jax.vmap(trace.cell.hidden), trace.after())
    # Where h is a part of the carry the rest is zero, and the compiler would work its scales out
    # before it runs, step by step: 16 s at T = 100,000.
    (direct,) = jax.lax.optimization_barrier(vjp(cotangents))
    return jax.vmap(_normalise)(direct, jnp.zeros(len(cotangents), jnp.int32))


def _total(loss: Loss, per_step: bool, outputs: Array) -> Float[Array, ""]:
    value = loss(outputs)
    shape = outputs.shape[:1] if per_step else ()
    if not isinstance(value, float) and not (
        isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating)
    ):
        raise TypeError(
            f"Expected a loss that returns a floating array, got {value!r}. Return the loss "
            "alone, as a float."
        )
    if jnp.shape(value) != shape:
        raise ValueError(
            f"Expected a loss of shape {shape} from outputs of shape {outputs.shape}, got shape "
            f"{jnp.shape(value)}. Sum it over the axes that are left."
        )
    return jnp.sum(value)


def pull_back(
    trace: Trace, direct: Scaled, pull: Pull, later: Scaled | None = None
) -> tuple[Scaled, Scaled]:
    """Goes back through the steps, where nothing under- or overflows.

    Args:
      trace: The trajectory.
      direct: (∂L/∂h_k) (∂h_k/∂s_k) for k = 1 ... T.
      pull: What is computed at each step.
      later: The adjoint that steps after these give s_T; by default zero.

    Returns:
      ∂L/∂s_0, and what ``pull`` kept of the steps 1 ... T along a leading axis, with the exponent
      of the adjoint that it was given.
    """

    def body(later: Scaled, step: tuple[Carry, Any, Scaled]) -> tuple[Scaled, Scaled]:
        s, x, direct = step
        adjoint, exponent = _add(later, direct)
        adjoint, shift = with_room(adjoint)
        pulled, kept = pull(s, x, adjoint)
        return _normalise(pulled, exponent - shift), Scaled(kept, exponent - shift)

    nothing = Scaled(jax.tree.map(jnp.zeros_like, trace.last), jnp.asarray(NOTHING, jnp.int32))
    start = nothing if later is None else later
    return jax.lax.scan(body, start, (trace.before, trace.xs, direct), reverse=True)


def _normalise(value: Carry, exponent: Int[Array, ""]) -> Scaled:
    """Rescales, with the exponent of zero below all others, so that a sum ignores its scale."""
    value, exponent = rescale(value, exponent)
    any_left = jnp.any(jnp.stack([jnp.any(leaf != 0) for leaf in jax.tree.leaves(value)]))
    return Scaled(value, jnp.where(any_left, exponent, NOTHING))


def _add(a: Scaled, b: Scaled) -> Scaled:
    """The sum at the scale of the larger term, whose rounding hides what the smaller one loses."""
    top = jnp.maximum(a.exponent, b.exponent)
    one = jnp.ones((), jax.tree.leaves(a.value)[0].dtype)
    to_top_a, to_top_b = (
        jnp.where(scaled.exponent > NOTHING, jnp.ldexp(one, scaled.exponent - top), 0)
        for scaled in (a, b)
    )
    return Scaled(jax.tree.map(lambda x, y: to_top_a * x + to_top_b * y, a.value, b.value), top)
