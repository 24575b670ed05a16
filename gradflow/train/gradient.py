"""The gradient of one update: full or truncated, with clipped adjoints, with a regulariser."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, Params
from gradflow.devices import sum_over_batch
from gradflow.flow.reverse import Loss
from gradflow.tasks.task import Batch
from gradflow.train.adjoint_clipping import counted
from gradflow.train.clip_record import Unclipped
from gradflow.train.model import predict, read_out
from gradflow.train.objective import batch_loss, step_losses
from gradflow.train.truncation import WindowGradient, truncated_gradient

Regulariser = Callable[[Cell, Params, Array, Loss], Array]
"""(loss of the outputs, cell, its parameters, inputs (T, B, input)) -> scalar."""


class Gradient(NamedTuple):
    """The loss and the gradient of one update.

    Attributes:
      loss: The loss of the task.
      added: The value of the regulariser, 0 without one.
      value: The gradient of their sum, like the parameters.
      unclipped: The gradient without clipping, if it was clipped inside the recurrence.
    """

    loss: Float[Array, ""]
    added: Float[Array, ""]
    value: Params
    unclipped: Unclipped | None = None


def full_gradient(
    kind: str, cell: Cell, params: Params, batch: Batch, *, shared: bool = True
) -> Gradient:
    """Computes the loss of a batch and its gradient through all steps, on all devices or on one."""

    def share(shared: tuple[Params, Array], batch: Batch) -> tuple[tuple[Array, Params], tuple[()]]:
        params, weight = shared

        def loss(params: Params) -> Array:
            predictions = predict(cell, params, batch.inputs)
            return jnp.sum(step_losses(kind, predictions, batch)) / weight

        return jax.value_and_grad(loss)(params), ()

    args = (params, jnp.sum(batch.weights)), batch
    (value, gradient), _ = sum_over_batch(share, *args) if shared else share(*args)
    return Gradient(value, jnp.zeros_like(value), gradient)


def tbptt_gradient(
    kind: str, cell: Cell, params: Params, batch: Batch, *, k1: int, k2: int, shared: bool = True
) -> Gradient:
    """Computes the loss of a batch and its gradient by TBPTT(k1, k2)."""

    def losses(params: Params, outputs: Array, extra: tuple[Array, Array]) -> Array:
        predictions = read_out(params["readout"], outputs)
        return step_losses(kind, predictions, batch._replace(targets=extra[0], weights=extra[1]))

    def share(params: Params, batch: Batch) -> tuple[WindowGradient, tuple[()]]:
        extra = batch.targets, batch.weights
        return truncated_gradient(losses, cell, params, batch.inputs, extra, k1=k1, k2=k2), ()

    args = params, batch._replace(weights=batch.weights / jnp.sum(batch.weights))
    (loss, gradient), _ = sum_over_batch(share, *args) if shared else share(*args)
    return Gradient(loss, jnp.zeros_like(loss), gradient)


def adjoint_clipped(
    compute: Callable[[Cell, Params], Gradient], cell: Cell, clipped: Cell, params: Params
) -> Gradient:
    """Computes a gradient with clipped adjoints, and the one without by a second pass.

    Args:
      compute: (cell, parameters) -> gradient.
      cell: The cell.
      clipped: The cell from `gradflow.train.adjoint_clipping.count_clipped`.
      params: The parameters of the model with the cell.
    """
    found = compute(clipped, params | {"cell": counted(params["cell"])})
    own, count = found.value["cell"]
    unclipped = Unclipped(compute(cell, params).value, count > 0)
    return Gradient(found.loss, found.added, found.value | {"cell": own}, unclipped)


def with_regulariser(
    gradient: Gradient,
    regulariser: Regulariser,
    kind: str,
    cell: Cell,
    params: Params,
    batch: Batch,
) -> Gradient:
    """Adds the gradient of a regulariser."""

    def added(params: Params) -> Array:
        def loss(outputs: Array) -> Array:
            return batch_loss(kind, read_out(params["readout"], outputs), batch)

        return regulariser(cell, params["cell"], batch.inputs, loss)

    value, more = jax.value_and_grad(added)(params)
    total = jax.tree.map(jnp.add, gradient.value, more)
    unclipped = gradient.unclipped
    if unclipped is not None:
        whole = jax.tree.map(jnp.add, unclipped.gradient, more)
        unclipped = unclipped._replace(gradient=whole)
    return Gradient(gradient.loss, value, total, unclipped)
