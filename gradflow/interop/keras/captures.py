"""Runs of whole Keras models that keep what each of their recurrent layers reads."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gradflow.checks import shorten
from gradflow.interop.keras.config import Found
from gradflow.interop.keras.objects import object_at, root_of
from gradflow.interop.net import Capture, Layer


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

    def capture(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        model = load()
        observed = observed_layers(keras, model, cells)
        seen: dict[int, np.ndarray] = {}
        with contextlib.ExitStack() as stack:
            for layer, _ in observed.values():
                stack.enter_context(_observed(keras, layer, seen))
            try:
                with jax.enable_x64(_is_exact(model)):
                    model(_model_inputs(model, batch), training=False)
            except Exception as error:  # the model is the user's: it can raise anything
                raise ValueError(
                    f"Expected a sample that the Keras model takes, but it raised "
                    f"{type(error).__name__}: {shorten(error)}. Pass arrays of the shapes of its "
                    "inputs, by their names."
                ) from None
        found = {
            name: seen[id(layer)][:, ::-1] if turned else seen[id(layer)]
            for name, (layer, turned) in observed.items()
            if id(layer) in seen
        }
        return _with_stacked(found, layers)

    return capture


def observed_layers(keras: Any, model: Any, cells: Sequence[Found]) -> dict[str, tuple[Any, bool]]:
    """Returns the layer of Keras in which the inputs of each cell can be observed.

    The second value is whether its inputs have the model's time in reverse. Of the cells that one
    layer stacks only the first is there: the inputs of the others are inside.
    """
    root = root_of(keras, model)
    layers: dict[str, tuple[Any, bool]] = {}
    seen: set[tuple[str, ...]] = set()
    for found in cells:
        last = len(found.steps) - 1 - found.steps[::-1].index("cell")
        steps = found.steps[:last]
        if steps not in seen:
            layers[found.name] = (object_at(root, steps), found.turned)
        seen.add(steps)
    return layers


@contextlib.contextmanager
def _observed(keras: Any, layer: Any, seen: dict[int, np.ndarray]) -> Iterator[None]:
    """Keeps what the layer is first called with, while the context is open."""
    call = layer.call

    def observe(sequences: Any, *args: Any, **kwargs: Any) -> Any:
        # Inputs that are being traced have no values; such a layer is missing in the result.
        with contextlib.suppress(jax.errors.TracerArrayConversionError):
            values = np.asarray(keras.ops.convert_to_numpy(sequences))
            if values.ndim == 3:
                seen.setdefault(id(layer), values)
        return call(sequences, *args, **kwargs)

    layer.call = observe
    try:
        yield
    finally:
        del layer.call


def _with_stacked(found: dict[str, np.ndarray], layers: Sequence[Layer]) -> dict[str, np.ndarray]:
    """Adds the inputs of layers that read others, which were not observed themselves."""
    by_name = {layer.name: layer for layer in layers}
    for layer in layers:
        if layer.name not in found and layer.fed_by and set(layer.fed_by) <= set(found):
            outputs = [by_name[name].run(found[name]) for name in layer.fed_by]
            found[layer.name] = np.concatenate(outputs, axis=-1)
    return found


def _is_exact(model: Any) -> bool:
    """Whether a model computes in float64; in float32 Keras's loops on JAX fail with x64 on."""
    return any(str(variable.dtype) == "float64" for variable in model.variables)


def _model_inputs(model: Any, batch: Mapping[str, np.ndarray]) -> Any:
    """The batch in the structure of the model's inputs, if it declares one."""
    single = next(iter(batch.values())) if len(batch) == 1 else None
    structure = getattr(model, "input", None)
    if isinstance(structure, Mapping):
        return dict(batch) if single is None else dict.fromkeys(structure, single)
    if isinstance(structure, list | tuple):
        names = [str(tensor.name) for tensor in structure]
        return [batch.get(name, single) for name in names]
    return dict(batch) if single is None else single
