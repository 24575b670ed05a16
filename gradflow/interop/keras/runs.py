"""Runs of single layers by Keras, to verify an import; and the import of Keras itself."""

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gradflow.checks import shorten
from gradflow.interop.gates import NUM_GATES
from gradflow.interop.keras.cells import ACTIVATIONS, CellArrays, CellOptions
from gradflow.interop.verification import Run

_CLASSES = {"rnn": "SimpleRNN", "lstm": "LSTM", "gru": "GRU", "gru_reset_before": "GRU"}


def keras_module() -> tuple[Any, str]:
    """Imports Keras 3, and returns the module, or None and why it cannot be used.

    Keras needs a backend. Where the one that Keras would take is not installed, and the user has
    not chosen it by ``KERAS_BACKEND``, JAX is taken, which gradflow needs anyway.
    """
    if "keras" not in sys.modules:
        if find_spec("keras") is None:
            return None, "Keras is not installed"
        backend = os.environ.get("KERAS_BACKEND") or _configured_backend()
        is_missing = find_spec(backend) is None
        if is_missing and os.environ.get("KERAS_BACKEND"):
            return None, f"the backend {backend} of Keras is not installed"
        try:
            with _backend("jax") if is_missing else contextlib.nullcontext():
                importlib.import_module("keras")
        except Exception as error:  # a broken backend can raise anything
            return None, f"Keras cannot be imported ({shorten(error)})"
    keras = sys.modules["keras"]
    if not str(keras.__version__).startswith("3"):
        return None, f"Keras {keras.__version__} is installed, but Keras 3 is needed"
    return keras, ""


@contextlib.contextmanager
def _backend(name: str) -> Iterator[None]:
    """Chooses the backend of Keras while it is imported."""
    os.environ["KERAS_BACKEND"] = name
    try:
        yield
    finally:
        del os.environ["KERAS_BACKEND"]


def _configured_backend() -> str:
    """The backend in Keras's own settings, or its default."""
    folder = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    with contextlib.suppress(OSError, ValueError, AttributeError):
        settings = json.loads(Path(folder, "keras.json").read_text(encoding="utf-8"))
        backend = settings.get("backend")
        if isinstance(backend, str) and backend.isidentifier():
            return backend
    return "tensorflow"


def original_layer(keras: Any, options: CellOptions, arrays: CellArrays) -> Run:
    """Returns a function that runs the layer by Keras, forwards.

    Nothing that a file names is looked up: the layer is made anew, from one of three classes, and
    from options and activations that were checked. It runs in float64, or in float32 where Keras
    cannot: on JAX it rounds some activations to float32, which its loop over time may refuse.
    """
    weights = [a for a in _plain(options, arrays) if a is not None]
    settings: dict[str, Any] = {
        "activation": keras_function(keras, options.activation),
        "use_bias": len(weights) > 2,
        # The weights are replaced; those that Keras initialises by default take a second.
        "kernel_initializer": "zeros",
        "recurrent_initializer": "zeros",
    }
    if options.cell != "rnn":
        settings["recurrent_activation"] = keras_function(keras, options.gate_activation)
    if options.cell.startswith("gru"):
        settings["reset_after"] = options.cell == "gru"

    def run_in(dtype: str, inputs: np.ndarray) -> np.ndarray:
        make = getattr(keras.layers, _CLASSES[options.cell])
        layer = make(len(weights[1]), return_sequences=True, dtype=dtype, **settings)
        layer.build(inputs.shape)
        layer.set_weights([np.asarray(weight, dtype) for weight in weights])
        outputs = layer(keras.ops.convert_to_tensor(inputs.astype(dtype)))
        return np.asarray(keras.ops.convert_to_numpy(outputs))

    def run(inputs: np.ndarray) -> np.ndarray:
        with jax.enable_x64(True), contextlib.suppress(TypeError):
            return run_in("float64", inputs)
        with jax.enable_x64(False):
            return run_in("float32", inputs)

    return run


def _plain(options: CellOptions, arrays: CellArrays) -> CellArrays:
    """The arrays as a layer of Keras 3 has them, where those of one for cuDNN are given.

    This is the formula of Keras 2's own conversion, and not the one by which they are imported.
    """
    kernel, recurrent, bias = arrays
    if bias is None or bias.shape != (2 * recurrent.shape[1],):
        return arrays
    num_gates = NUM_GATES[options.cell]
    kernels = [k.T.reshape(k.shape, order="F") for k in np.hsplit(kernel, num_gates)]
    recurrents = [k.T for k in np.hsplit(recurrent, num_gates)]
    both = bias.reshape(2, -1)
    merged = both.sum(axis=0) if options.cell == "lstm" else both
    return np.hstack(kernels), np.hstack(recurrents), merged


def keras_function(keras: Any, name: str) -> Any:
    """Returns Keras's own activation for gradflow's name."""
    if name == "hard_sigmoid_fifth":  # Keras 3 does not have that of Keras 2
        return lambda x: keras.ops.clip(x / 5 + 0.5, 0, 1)
    if name == "tanh":  # Keras's own rounds to float32 on JAX unless x64 is on from the start
        return lambda x: 2 * keras.ops.sigmoid(2 * x) - 1
    names = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
    return getattr(keras.activations, names.get(name, name))
