"""Checks of imported layers: against the original, their parameters, and what to say of them."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from gradflow.cell import Params, param_shapes
from gradflow.interop.net import Layer, Net

TOLERANCE = 1e-4
"""Largest difference from the original's outputs that rounding in float32 can cause."""

Run = Callable[[np.ndarray], np.ndarray]
"""Inputs (N, T, input) -> outputs (N, T, output) of an original."""


def noted(layer: Layer, *notes: str) -> Layer:
    """Returns the layer with more notes, of which empty ones are left out."""
    return replace(layer, note=joined_notes(layer.note, *notes))


def joined_notes(*notes: str) -> str:
    """Returns the notes that are not empty as one text."""
    return "; ".join(filter(None, notes))


def compared(layer: Layer, original: Run, *, reads_forwards: bool = False) -> Layer:
    """Returns the layer with the largest difference of its outputs from the original's.

    Args:
      layer: The layer.
      original: Runs the original, in any precision, in the time of the model.
      reads_forwards: Whether it reads its inputs forwards instead, whatever the layer's direction.

    Raises:
      ValueError: If the outputs differ by more than rounding: the import is wrong.
    """
    inputs = np.random.default_rng(0).normal(size=(2, 7, layer.input_size))
    turn = slice(None, None, -1 if reads_forwards and layer.direction == "reverse" else 1)
    expected = np.asarray(original(np.ascontiguousarray(inputs[:, turn])), np.float64)[:, turn]
    found = layer.run(inputs)
    if found.shape != expected.shape:
        raise ValueError(
            f"Expected outputs of shape {found.shape} from the original of {layer.name}, got "
            f"{expected.shape}. Report this model: its layout is not understood."
        )
    error = largest_difference(found, expected)
    if not error <= TOLERANCE * max(1.0, float(np.nanmax(np.abs(expected), initial=0.0))):
        raise ValueError(
            f"Expected the outputs of the original of {layer.name}, but those of the imported cell "
            f"{layer.spec} differ by up to {error:.3g}. The original follows another convention: "
            "name it with convention, or report this model."
        )
    return replace(layer, error=error)


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest absolute difference; equal infinities and two NaN do not differ."""
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(found - expected))
    return float(np.max(difference, initial=0.0))


def checked(net: Net) -> Net:
    """Returns the net, with a note for each layer whose parameters are not finite.

    Raises:
      ValueError: If names or shapes of a layer's parameters are not those of its cell.
    """
    for layer in net.layers:
        shapes = jax.tree.map(np.shape, layer.params)
        expected = jax.tree.map(jnp.shape, param_shapes(layer.cell))
        if shapes != expected:
            raise ValueError(
                f"Expected parameters of the shapes {expected} for layer {layer.name}, a "
                f"{layer.spec}, got {shapes}. The convention of the file is another one."
            )
    layers = [noted(layer, describe_nonfinite(layer.params)) for layer in net.layers]
    return replace(net, layers=tuple(layers))


def describe_nonfinite(params: Params) -> str:
    """Returns which parameters have NaN or infinities and where the first is; "" if none has."""
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        bad = np.argwhere(~np.isfinite(leaf))
        if len(bad):
            place = tuple(bad[0].tolist())
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            found.append(
                f"{name} has {len(bad)} numbers that are not finite, the first {leaf[place]} at "
                f"{place}"
            )
    return joined_notes(*found)


def importable(net: Net) -> Net:
    """Returns the net, after a check that it has a layer.

    Raises:
      ValueError: If no layer was imported; the message has the reasons.
    """
    if net.layers:
        return net
    reasons = [f"{name}: {why}" for name, why in net.unsupported.items()]
    more = f" And {len(reasons) - 3} more." * (len(reasons) > 3)
    raise ValueError(
        "Expected a recurrent layer that can be imported, but there is none. "
        f"{' '.join(reasons[:3])}{more}"
    )
