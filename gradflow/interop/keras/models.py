"""Models and layers of Keras in memory: their configuration, their arrays, and their runs."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import numpy as np

from gradflow.checks import shorten
from gradflow.interop.keras.cells import CellArrays
from gradflow.interop.keras.config import Found, snake_case, unique_name
from gradflow.interop.net import Capture, Captured, Layer, Net, feed

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""Codes by which Keras makes its errors bold in a terminal."""


def as_config(keras: Any, model: Any) -> dict[str, Any]:
    """Returns the configuration of a model, or of a layer as that of a model of one layer.

    A subclass of a model has no configuration of its layers; there it is their list, from which
    nothing follows about what feeds what.
    """
    if isinstance(model, keras.Sequential) or hasattr(model, "operations"):
        return keras.saving.serialize_keras_object(model)
    layers = model.layers if isinstance(model, keras.Model) else [model]
    entries = [
        as_config(keras, layer)
        if isinstance(layer, keras.Model)
        else keras.saving.serialize_keras_object(layer)
        for layer in layers
    ]
    config = {"name": model.name, "layers": entries}
    return {"class_name": "Functional", "module": "keras", "config": config}


def _object_at(keras: Any, model: Any, steps: Sequence[str]) -> Any:
    """The layer or cell of a model, or of a single layer, to which the steps of a `Found` lead."""
    found, rest = model, iter(steps)
    if not isinstance(model, keras.Model):
        found = SimpleNamespace(layers=[model])
    try:
        for step in rest:
            children = getattr(found, step)
            found = _by_group(children)[next(rest)] if step in ("layers", "cells") else children
    except (AttributeError, KeyError, StopIteration):
        raise ValueError(
            f"Expected a layer {'/'.join(steps)} in the Keras model, got none. Report this model."
        ) from None
    return found


def _by_group(children: Sequence[Any]) -> dict[str, Any]:
    """Layers or cells by the names that Keras 3 gives to their groups in files."""
    counts: dict[str, int] = {}
    return {unique_name(snake_case(type(one).__name__), counts): one for one in children}


def arrays_in_memory(keras: Any, model: Any, found: Found) -> CellArrays:
    """Returns the arrays of a cell of a model in memory, or of a single layer."""
    cell = _object_at(keras, model, found.steps)
    if not getattr(cell, "built", False):
        raise ValueError(
            f"Expected a Keras model with weights, but the layer {found.name!r} has none yet. "
            "Build the model: call it once on a batch."
        )

    def array(variable: Any) -> np.ndarray:
        return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)

    bias = None if cell.bias is None else array(cell.bias)
    return array(cell.kernel), array(cell.recurrent_kernel), bias


def captured_inputs(
    keras: Any, load: Callable[[], Any], cells: Sequence[Found], layers: Sequence[Layer]
) -> Capture:
    """Returns a function that runs the model and returns the inputs of its recurrent layers.

    The inputs of a batch go by their names in the model; a single one by any name. A layer that
    Keras calls with other than one sequence for each example is missing in the result. Where a
    layer is called several times, the first call counts.

    Args:
      keras: The module.
      load: Returns the model, once it is needed.
      cells: Where the recurrent cells of the model are.
      layers: The imported layers; those that read others within one layer of Keras get the
        outputs of these.
    """

    def capture(batch: Mapping[str, np.ndarray]) -> Captured:
        model = load()
        observed = _observed_layers(keras, model, cells)
        inputs = _model_inputs(model, batch)
        seen: dict[int, _Call] = {}
        with contextlib.ExitStack() as stack:
            for layer, _ in observed.values():
                stack.enter_context(_observed(keras, layer, seen))
            try:
                with jax.enable_x64(_is_exact(model)):
                    model(inputs, training=False)
            except Exception as error:  # the model is the user's: it can raise anything
                raise ValueError(
                    f"Expected a sample that the Keras model takes, but it raised "
                    f"{type(error).__name__}: {shorten(_COLOURS.sub('', str(error)))}. Pass arrays "
                    "of the shapes of its inputs, by their names."
                ) from None
        found: dict[str, np.ndarray] = {}
        masks: dict[str, np.ndarray] = {}
        for name, (layer, turned) in observed.items():
            if id(layer) in seen:
                sequences, mask = seen[id(layer)]
                found[name] = sequences[:, :: -1 if turned else 1]
                if mask is not None:
                    masks[name] = mask[:, :: -1 if turned else 1]
        for layer in layers:  # the cells of one layer of Keras have the same mask
            if layer.name not in found and layer.fed_by and layer.fed_by[0] in masks:
                masks[layer.name] = masks[layer.fed_by[0]]
        return Captured(feed(Net("Keras", tuple(layers)), found), masks)

    return capture


def _observed_layers(keras: Any, model: Any, cells: Sequence[Found]) -> dict[str, tuple[Any, bool]]:
    """The layer of Keras in which the inputs of each cell can be observed.

    The second value is whether its inputs have the model's time in reverse. Of the cells that one
    layer stacks only the first is there: the inputs of the others are inside.
    """
    layers: dict[str, tuple[Any, bool]] = {}
    seen: set[tuple[str, ...]] = set()
    for found in cells:
        last = len(found.steps) - 1 - found.steps[::-1].index("cell")
        steps = found.steps[:last]
        if steps not in seen:
            layers[found.name] = (_object_at(keras, model, steps), found.turned)
        seen.add(steps)
    return layers


class _Call(NamedTuple):
    """What a layer is called with: sequences (N, T, input), and the steps (N, T) of its mask."""

    sequences: np.ndarray
    mask: np.ndarray | None


@contextlib.contextmanager
def _observed(keras: Any, layer: Any, seen: dict[int, _Call]) -> Iterator[None]:
    """Keeps what the layer is first called with, while the context is open."""
    call = layer.call

    def observe(sequences: Any, *args: Any, **kwargs: Any) -> Any:
        # Inputs that are being traced have no values; such a layer is missing in the result.
        with contextlib.suppress(jax.errors.TracerArrayConversionError):
            values = np.asarray(keras.ops.convert_to_numpy(sequences))
            given = args[1] if len(args) > 1 else kwargs.get("mask")
            (mask, *_) = keras.tree.flatten(given) or [None]
            if mask is not None:
                mask = np.asarray(keras.ops.convert_to_numpy(mask), bool)
            if values.ndim == 3:
                seen.setdefault(id(layer), _Call(values, mask))
        return call(sequences, *args, **kwargs)

    layer.call = observe
    try:
        yield
    finally:
        del layer.call


def _is_exact(model: Any) -> bool:
    """Whether a model computes in float64; in float32 Keras's loops on JAX fail with x64 on."""
    return any(str(variable.dtype) == "float64" for variable in model.variables)


def _model_inputs(model: Any, batch: Mapping[str, np.ndarray]) -> Any:
    """The batch in the structure of the model's inputs, if it declares one."""
    structure = getattr(model, "input", None)
    if structure is None:  # a Sequential model has its one input in a list alone
        (structure, *_) = getattr(model, "inputs", None) or [None]
    if structure is None:
        return next(iter(batch.values())) if len(batch) == 1 else dict(batch)
    if isinstance(structure, Mapping):
        names = [str(name) for name in structure]
    else:
        tensors = structure if isinstance(structure, list | tuple) else [structure]
        names = [str(tensor.name) for tensor in tensors]
    if len(batch) == 1:
        batch = dict.fromkeys(names, next(iter(batch.values())))
    if not set(names) <= set(batch):
        raise ValueError(
            f"Expected a sample with an array for each input of the Keras model, "
            f"{', '.join(names)}, got the arrays {', '.join(batch) or 'none'}. Save them under the "
            "names of the inputs, or the array of a model with one input alone."
        )
    arrays = [batch[name] for name in names]
    if isinstance(structure, Mapping):
        return dict(zip(structure, arrays, strict=True))
    return arrays if isinstance(structure, list | tuple) else arrays[0]
