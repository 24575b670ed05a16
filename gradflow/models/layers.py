"""Models as layers of Flax NNX, to combine with layers that are not recurrent."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gradflow.models.shapes import Model
from gradflow.unroll import Lengths


class Recurrent(nnx.Module):
    """A model as an NNX layer, called like the model's ``apply`` without the parameters.

    Attributes:
      params: The model's parameters, each leaf an ``nnx.Param``.
    """

    def __init__(self, model: Model, *, rngs: nnx.Rngs) -> None:
        self.model = nnx.static(model)
        self.params = nnx.data(jax.tree.map(nnx.Param, model.init(rngs.params())))

    def __call__(self, *arguments: Any, **options: Any) -> Array:
        """Applies the model."""
        is_variable = lambda leaf: isinstance(leaf, nnx.Variable)  # noqa: E731
        params = jax.tree.map(lambda leaf: leaf[...], self.params, is_leaf=is_variable)
        return self.model.apply(params, *arguments, **options)


class Classifier(nnx.Module):
    """A classifier of sequences: a front, models with BatchNorm between them, a Linear layer.

    The front is a layer that is not recurrent, such as ``nnx.Embed`` of tokens, or an ``nnx.Conv``
    along time (which expects the batch first: gradflow's arrays are time-major). If the last model
    returns one vector, as `many_to_one` does, there is one vector of logits per sequence, else one
    per step. Padding is left out of the batch's mean and variance; after ``model.eval()`` their
    running means are used.

    Attributes:
      front: From the inputs to (T, B, features).
      layers: The models, as `Recurrent` layers.
      norms: A ``nnx.BatchNorm`` after each layer but the last.
      head: An ``nnx.Linear`` to the logits.
    """

    def __init__(
        self,
        front: Callable[[Array], Array],
        models: Sequence[Model],
        *,
        features: int,
        num_classes: int,
        rngs: nnx.Rngs,
    ) -> None:
        """Makes the layers.

        Args:
          front: Any NNX module or function of the inputs alone.
          models: From the first to the last; all but the last return a sequence.
          features: The output size of the front.
          num_classes: The number of classes.
          rngs: The random streams of the parameters.

        Raises:
          ValueError: If there is no model.
        """
        if not models:
            raise ValueError(
                "Expected at least one model, got none. Use for example many_to_one(lstm(8, 64))."
            )
        sizes = [features]
        for model in models:
            sizes.append(_output_size(model, sizes[-1]))
        self.front = nnx.data(front) if isinstance(front, nnx.Module) else front
        self.layers = nnx.List([Recurrent(model, rngs=rngs) for model in models])
        self.norms = nnx.List([_batch_norm(size, rngs) for size in sizes[1:-1]])
        self.head = nnx.Linear(sizes[-1], num_classes, param_dtype=_default_float(), rngs=rngs)

    def __call__(
        self, inputs: Array, *, lengths: Lengths | None = None
    ) -> Float[Array, "*steps_and_batch classes"]:
        """Computes the logits of inputs (T, B) or (T, B, ...), as the front takes them."""
        hidden = self.front(inputs)
        steps = jnp.arange(len(hidden))[:, None, None]
        mask = None if lengths is None else steps < jnp.asarray(lengths)[:, None]
        for layer, norm in zip(self.layers, [*self.norms, None], strict=True):
            hidden = layer(hidden, lengths=lengths)
            hidden = hidden if norm is None else norm(hidden, mask=mask)
        return self.head(hidden)


def _default_float() -> Any:
    return jnp.zeros(()).dtype


def _batch_norm(size: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    norm = nnx.BatchNorm(size, param_dtype=_default_float(), rngs=rngs)
    # Flax makes them in float32, and refuses to update them with float64 statistics.
    norm.mean, norm.var = nnx.BatchStat(jnp.zeros(size)), nnx.BatchStat(jnp.ones(size))
    return norm


def _output_size(model: Model, input_size: int) -> int:
    params = jax.eval_shape(model.init, jax.eval_shape(jax.random.key, 0))
    inputs = jax.ShapeDtypeStruct((1, input_size), _default_float())
    return jax.eval_shape(model.apply, params, inputs).shape[-1]
