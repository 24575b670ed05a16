"""The loss of a batch, over the weighted steps."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.tasks.task import Batch, Predictions

LossKind = Literal["squared", "cross_entropy"]


def batch_loss(kind: str, predictions: Predictions, batch: Batch) -> Float[Array, ""]:
    """Computes the mean of the loss over the weighted steps of all sequences.

    With ℓ_tb the loss of sequence b at step t, and w the batch's weights::

        L = Σ_tb w_tb ℓ_tb / Σ_tb w_tb
        ℓ = Σ_i (y_i - target_i)²              squared, over the outputs
        ℓ = log Σ_i exp(y_i) - y_target        cross_entropy, in nats

    Predictions and targets at a step of weight 0, even NaN, affect neither value nor derivative.

    Args:
      kind: Which loss, one of `LossKind`.
      predictions: y, of shape (T, B, output).
      batch: Targets, of shape (T, B, output) or, for classes, (T, B), and weights (T, B).

    Raises:
      ValueError: For an unknown loss, or targets that do not fit the predictions.
    """
    total = jnp.sum(step_losses(kind, predictions, batch))
    return total / jnp.sum(batch.weights)


def step_losses(kind: str, predictions: Predictions, batch: Batch) -> Float[Array, " steps"]:
    """Computes Σ_b w_tb ℓ_tb for each step t, the numerator of `batch_loss` step by step.

    Raises:
      ValueError: For an unknown loss, or targets that do not fit the predictions.
    """
    if kind not in ("squared", "cross_entropy"):
        raise ValueError(f"Expected the loss 'squared' or 'cross_entropy', got {kind!r}.")
    expected = predictions.shape if kind == "squared" else predictions.shape[:-1]
    if batch.targets.shape != expected:
        raise ValueError(
            f"Expected targets of shape {expected} for a {kind} loss of predictions of shape "
            f"{predictions.shape}, got shape {batch.targets.shape}."
        )
    counts = batch.weights != 0
    # Not only the loss is masked: 0 · NaN, also in the derivative, would be NaN.
    predictions = jnp.where(counts[..., None], predictions, 0)
    losses = _squared if kind == "squared" else _cross_entropy
    return jnp.sum(batch.weights * losses(predictions, batch.targets, counts), axis=1)


def _squared(predictions: Array, targets: Array, counts: Array) -> Float[Array, "steps batch"]:
    return jnp.sum((predictions - jnp.where(counts[..., None], targets, 0)) ** 2, axis=-1)


def _cross_entropy(
    predictions: Array, targets: Array, counts: Array
) -> Float[Array, "steps batch"]:
    log_probabilities = jax.nn.log_softmax(predictions)
    classes = jnp.where(counts, targets, 0)[..., None]
    return -jnp.take_along_axis(log_probabilities, classes, axis=-1)[..., 0]
