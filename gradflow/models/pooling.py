"""Pooling of a sequence over its real steps, and a convolution along time."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool

from gradflow.cell import Key, Params
from gradflow.models.shapes import Model, Sequence, Vector
from gradflow.spec import check_name
from gradflow.unroll import Lengths

POOLINGS = ("max", "mean")


def pooled(model: Model, how: str = "max") -> Model:
    """Pools the outputs of a model over the real steps, unit by unit.

    ``apply(params, inputs, *, lengths=None)`` returns (*batch, size). The path from a loss of the
    mean to each h_t has one step, where that from a loss of the last h has T - t.

    Args:
      model: A model that returns a sequence.
      how: ``max`` or ``mean``.

    Raises:
      ValueError: For an unknown pooling.
    """
    check_name("pooling", how, POOLINGS)

    def apply(params: Params, inputs: Sequence, *, lengths: Lengths | None = None) -> Vector:
        outputs = model.apply(params, inputs, lengths=lengths)
        real = real_steps(inputs, lengths)[..., None]
        if how == "max":
            return jnp.max(outputs, axis=0, where=real, initial=-jnp.inf)
        return jnp.mean(outputs, axis=0, where=real)

    return Model(model.init, apply)


def convolution(input_size: int, channels: int, width: int) -> Model:
    """Makes a convolution of ``width`` steps along time with a ReLU; padding is read as zeros.

    ``apply(params, inputs, *, lengths=None)`` takes (T, B, input) and returns (T, B, channels). The
    layer is Flax's.

    Source: Kim 2014, arXiv:1408.5882, eq. 2 (whose windows are those within the sequence).
    """

    def make(key: Key) -> nnx.Conv:
        dtype = jnp.zeros(()).dtype
        kernel = (width,)
        return nnx.Conv(input_size, channels, kernel, param_dtype=dtype, rngs=nnx.Rngs(key))

    def init(key: Key) -> Params:
        return nnx.to_pure_dict(nnx.state(make(key)))

    def apply(params: Params, inputs: Sequence, *, lengths: Lengths | None = None) -> Sequence:
        inputs = jnp.where(real_steps(inputs, lengths)[..., None], inputs, 0)
        graph, state = nnx.split(nnx.eval_shape(lambda: make(jax.random.key(0))))
        nnx.replace_by_pure_dict(state, params)
        return jax.nn.relu(nnx.merge(graph, state)(inputs.swapaxes(0, 1))).swapaxes(0, 1)

    return Model(init, apply)


def real_steps(inputs: Sequence, lengths: Lengths | None) -> Bool[Array, " steps *batch"]:
    """Marks the steps that are not padding."""
    steps, *batch = inputs.shape[:-1]
    if lengths is None:
        return jnp.ones((steps, *batch), bool)
    return jnp.arange(steps).reshape(-1, *(1 for _ in batch)) < jnp.asarray(lengths)
