"""The gradient of a loss with respect to the outputs of every layer of a net."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gradflow.interop import Layer, Net
from gradflow.paths import user_path
from gradflow.spec import check_name
from gradflow.tasks.files import load_array

Sequences = Float[np.ndarray, "n t _"]

LOSSES = ("last", "mean")
"""Half the square of the last output, and of all outputs on average over the steps."""


class Batch(NamedTuple):
    """Sequences of one layer.

    Attributes:
      inputs: The inputs in the time of the model, padded at the end.
      lengths: The number of real steps of each sequence.
    """

    inputs: Sequences
    lengths: np.ndarray


def turned(sequences: Sequences, lengths: np.ndarray) -> Sequences:
    """Returns sequences in reverse, each up to its own length."""
    return np.take_along_axis(sequences, _reversal(lengths, sequences.shape[1]), axis=1)


def _reversal(lengths: np.ndarray, num_steps: int) -> Int[np.ndarray, "n t 1"]:
    """The step that comes to each place when a sequence is reversed up to its length."""
    steps, ends = np.arange(num_steps), lengths[:, None]
    return np.where(steps < ends, ends - 1 - steps, steps)[..., None]


def in_reading_order(layer: Layer, batch: Batch, *arrays: Sequences) -> list[np.ndarray]:
    """Returns sequences of a layer as it reads them, up to the longest one's last real step."""
    if layer.direction == "reverse":
        arrays = tuple(turned(array, batch.lengths) for array in arrays)
    return [array[:, : int(batch.lengths.max())] for array in arrays]


def output_gradients(net: Net, batches: Mapping[str, Batch], loss: str) -> dict[str, Sequences]:
    """Computes ∂L/∂h_t of every layer, in the time of the model.

    L is a function of the outputs of the layers that feed no other. It is pulled back through
    them to the layers below::

        last   L = ½ ‖h_T‖², with T the last step that the layer reads
        mean   L = 1/T Σ_t ½ ‖h_t‖²
        npy:   L = Σ_t ⟨G_t, h_t⟩ with G from a file: the gradient of the real loss

    Args:
      net: The net.
      batches: The inputs of each layer by its name; a layer without any is left out.
      loss: ``last``, ``mean`` or ``npy:PATH``, an array (T, output) or (N, T, output).

    Raises:
      ValueError: If there is no such loss, or the array does not fit the outputs.
    """
    layers = [layer for layer in net.layers if layer.name in batches]
    feeding = {name for layer in layers for name in layer.fed_by}
    tops = [layer for layer in layers if layer.name not in feeding]
    gradients = _of_tops(tops, batches, loss)
    for layer in reversed(layers):
        if layer.fed_by and layer.name in gradients:
            pulled = _pull(layer, batches[layer.name], gradients[layer.name])
            ends = np.cumsum([net[name].output_size for name in layer.fed_by])[:-1]
            for name, part in zip(layer.fed_by, np.split(pulled, ends, axis=-1), strict=True):
                gradients[name] = gradients.get(name, 0.0) + part
    return {layer.name: gradients[layer.name] for layer in layers}


def _of_tops(tops: list[Layer], batches: Mapping[str, Batch], loss: str) -> dict[str, Sequences]:
    kind, _, path = loss.partition(":")
    if kind == "npy":
        return _from_file(tops, batches, path)
    check_name("loss", loss, LOSSES, hint="The gradient of a loss of your own is npy:PATH.")
    return {layer.name: _of(loss, layer, batches[layer.name]) for layer in tops}


def _of(loss: str, layer: Layer, batch: Batch) -> Sequences:
    with jax.enable_x64(True):
        outputs = np.asarray(_outputs(layer, batch, jnp.asarray(batch.inputs, jnp.float64)))
    steps = np.arange(outputs.shape[1])
    lengths = batch.lengths[:, None]
    if loss == "mean":
        return outputs * ((steps < lengths) / lengths)[..., None]
    last = np.zeros_like(lengths) if layer.direction == "reverse" else lengths - 1
    return outputs * (steps == last)[..., None]


def _from_file(tops: list[Layer], batches: Mapping[str, Batch], path: str) -> dict[str, Sequences]:
    given = np.asarray(load_array(user_path(path)), np.float64)
    sizes = [layer.output_size for layer in tops]
    shape = (*batches[tops[0].name].inputs.shape[:2], sum(sizes))
    if given.shape not in (shape, shape[1:]) or not np.isfinite(given).all():
        raise ValueError(
            f"Expected finite numbers of shape {shape} or {shape[1:]} in {str(path)!r}, the "
            f"gradient with respect to the outputs of {', '.join(one.name for one in tops)}, got "
            f"shape {given.shape}. Save ∂L/∂outputs of the same sequences."
        )
    parts = np.split(np.broadcast_to(given, shape), np.cumsum(sizes)[:-1], axis=-1)
    return {layer.name: part for layer, part in zip(tops, parts, strict=True)}


def _pull(layer: Layer, batch: Batch, gradient: Sequences) -> Sequences:
    with jax.enable_x64(True):
        inputs = jnp.asarray(batch.inputs, jnp.float64)
        _, vjp = jax.vjp(lambda x: _outputs(layer, batch, x), inputs)
        return np.asarray(vjp(jnp.asarray(gradient, jnp.float64))[0])


def _outputs(layer: Layer, batch: Batch, inputs: Array) -> Array:
    """Computes the outputs in the time of the model; no padding is read before a real step."""
    if layer.direction == "forward":
        return layer.apply(inputs)
    reversal = _reversal(batch.lengths, inputs.shape[1])
    read = jnp.take_along_axis(inputs, reversal, axis=1)
    return jnp.take_along_axis(replace(layer, direction="forward").apply(read), reversal, axis=1)
