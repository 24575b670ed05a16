"""Layers that differ in the size of their inputs alone, measured by the same compiled programs.

Compiling takes longer than measuring a small layer. Inputs of a smaller layer get more channels,
all zero, and W_x the columns for them: no state and no derivative depends on these.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from gradflow.cell import Params
from gradflow.interop import Layer
from gradflow.report.losses import Batch

WIDEST = 4096
"""Largest size of inputs to which others are widened: beyond it the zeros would cost memory."""


def shared_widths(layers: Sequence[Layer]) -> dict[str, int]:
    """Returns the size of the inputs with which each layer is measured, by the layer's name."""
    groups: dict[tuple[str, int], list[Layer]] = {}
    for layer in layers:
        groups.setdefault((layer.spec, layer.hidden_size), []).append(layer)
    return {
        layer.name: max(
            (one.input_size for one in alike if one.input_size <= WIDEST >= layer.input_size),
            default=layer.input_size,
        )
        for alike in groups.values()
        for layer in alike
    }


def widened(layer: Layer, batch: Batch, width: int) -> tuple[Layer, Batch]:
    """Returns a layer and its inputs with as many channels as ``width``."""
    wide = replace(layer, input_size=width, params=widened_params(layer.params, width))
    return wide, batch._replace(inputs=_padded(batch.inputs, width))


def widened_params(params: Params, width: int) -> Params:
    """Returns parameters whose matrices W_x have as many columns as ``width``."""

    def one(path: tuple, leaf: Any) -> Any:
        return _padded(leaf, width) if path[-1].key == "W_x" else leaf

    return jax.tree_util.tree_map_with_path(one, params)


def _padded(array: Any, width: int) -> Any:
    """Appends zeros along the last axis."""
    missing = width - np.shape(array)[-1]
    return np.pad(array, [(0, 0)] * (np.ndim(array) - 1) + [(0, missing)]) if missing else array
