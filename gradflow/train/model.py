"""The trained model: a cell with a linear readout of its hidden state."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params
from gradflow.initializers import lecun
from gradflow.unroll import unroll


def init_model(cell: Cell, output_size: int, key: Key) -> Params:
    """Initialises the parameters of a cell and of its readout.

    W is sampled from LeCun's distribution, of variance 1/hidden, and b is zero.

    Returns:
      ``{"cell": ..., "readout": {"W": (output, hidden), "b": (output,)}}``. Where h is an image,
      hidden stands for its three axes.

    Raises:
      ValueError: If there is no output.
    """
    if output_size < 1:
        raise ValueError(f"Expected output_size to be at least 1, got {output_size}.")
    k_cell, k_readout = jax.random.split(key)
    h = jax.eval_shape(lambda: cell.hidden(cell.initial_carry()))
    dtype = jnp.result_type(float)
    W = lecun()(k_readout, (output_size, h.size), dtype).reshape(output_size, *h.shape)
    return {"cell": cell.init(k_cell), "readout": {"W": W, "b": jnp.zeros(output_size, dtype)}}


def read_out(readout: Params, outputs: Float[Array, "..."]) -> Float[Array, "... output"]:
    """Computes y_t = W h_t + b at every step: W sums over all axes of h, which may be an image."""
    W = readout["W"]
    steps = outputs.shape[: outputs.ndim - (W.ndim - 1)]
    return outputs.reshape(*steps, -1) @ W.reshape(len(W), -1).T + readout["b"]


def predict(
    cell: Cell, params: Params, inputs: Float[Array, "steps batch input"]
) -> Float[Array, "steps batch output"]:
    """Computes the predictions of the model at every step of a batch of sequences."""
    return read_out(params["readout"], unroll(cell, params["cell"], inputs).outputs)
