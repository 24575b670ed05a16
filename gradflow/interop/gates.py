"""Specs and parameters of cells from the joined matrices in which frameworks keep all gates."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from gradflow.cell import Params

NUM_GATES = {"rnn": 1, "gru": 3, "gru_reset_before": 3, "lstm": 4}
"""The number of gates of each cell."""

KINDS = {1: "rnn", 3: "gru", 4: "lstm"}
"""The kind of a cell by its number of gates."""

ORDERS = {
    "torch": {"rnn": "n", "gru": "rzn", "lstm": "ifgo"},  # Equinox and Flax too
    "keras": {"rnn": "n", "gru": "zrn", "lstm": "ifgo"},
    "onnx": {"rnn": "n", "gru": "zrn", "lstm": "iofg"},
    "haiku": {"rnn": "n", "gru": "zrn", "lstm": "igfo"},
}
"""Our letters of the gates of each kind, in the order of the framework's blocks."""

DEFAULTS = {
    "activation": "tanh",
    "gate_activation": "sigmoid",
    "clip": None,
    "peephole": False,
    "coupled": False,
    "residual": False,
}
"""Options of our cells that a spec need not have."""

BIASES = ("no bias", "one bias", "two biases")


def spec_of(cell: str, **options: Any) -> str:
    """Returns the spec of a cell, without the options that have their defaults."""
    usual = {**DEFAULTS, "output_activation": options.get("activation")}
    shown = [f"{name}={value!r}" for name, value in options.items() if value != usual[name]]
    return f"{cell}({', '.join(shown)})" if shown else cell


def split_gates(
    cell: str,
    order: str,
    W_x: Float[np.ndarray, "rows input"],
    W_h: Float[np.ndarray, "rows output"],
    *biases: Float[np.ndarray, " rows"] | None,
) -> Params:
    """Splits matrices that hold the gates as blocks of rows into the parameters of a cell.

    Args:
      cell: ``rnn``, ``lstm``, ``gru`` or ``gru_reset_before``.
      order: The letters of the gates in the order of the blocks, as in `ORDERS`.
      W_x: The matrix of the inputs, (gates * hidden, input).
      W_h: The matrix of the hidden state, (gates * hidden, hidden or projection).
      *biases: The bias, or those of the inputs and of the hidden state; None where there is none.
        They are added in float64, but for n of ``gru``, which keeps them apart.

    Raises:
      ValueError: If the sizes do not match.
    """
    hidden = len(W_h) // len(order)
    given = [np.zeros(len(W_h)) if b is None else np.asarray(b, np.float64) for b in biases]
    given += [np.zeros(len(W_h))] * (2 - len(given))
    parts = (np.asarray(W_x, np.float64), np.asarray(W_h, np.float64), *given)
    if hidden * len(order) != len(W_h) or any(len(part) != len(W_h) for part in parts):
        raise ValueError(
            f"Expected {len(order)} gates of equal size in the matrices of a {cell}, got arrays of "
            f"the shapes {[part.shape for part in parts]}. Check the kind of the cell."
        )
    blocks = {}
    for place, gate in enumerate(order):
        x, h, b_x, b_h = (part[place * hidden : (place + 1) * hidden] for part in parts)
        if cell == "gru" and gate == "n":
            blocks[gate] = {"W_x": x, "W_h": h, "b": b_x, "b_h": b_h}
        else:
            blocks[gate] = {"W_x": x, "W_h": h, "b": b_x + b_h}
    return blocks[order] if cell == "rnn" else blocks


def keras_cell(shapes: Sequence[tuple[int, ...]]) -> str | None:
    """Returns the cell that arrays of Keras have: kernel, recurrent kernel and, if any, bias.

    A GRU without a bias does not show whether it resets before the product, and counts as ``gru``,
    Keras's default. None if the shapes do not belong together.
    """
    kernel, recurrent, *biases = shapes
    if len(kernel) != 2 or len(recurrent) != 2 or not recurrent[0] or kernel[1] != recurrent[1]:
        return None
    hidden, columns = recurrent
    num_gates, rest = divmod(columns, hidden)
    cell = None if rest else KINDS.get(num_gates)
    one, cudnn, two = (columns,), (2 * columns,), (2, columns)
    allowed = {"rnn": {one}, "lstm": {one, cudnn}, "gru": {one, cudnn, two}}
    if cell is None or not set(biases) <= allowed[cell]:
        return None
    return "gru_reset_before" if cell == "gru" and biases == [one] else cell


def keras_params(
    cell: str,
    kernel: Float[np.ndarray, "input columns"],
    recurrent: Float[np.ndarray, "hidden columns"],
    bias: np.ndarray | None,
) -> tuple[Params, str]:
    """Converts arrays of Keras, whose gates are blocks of columns, and names their layout.

    The layers for cuDNN of Keras 2 are recognised by their two biases in one vector. Their kernels
    have the shapes of the others, but each gate's block was read as a matrix (hidden, input) row by
    row, whatever its own shape.

    Source: Keras 2, ``saving/hdf5_format.py``, ``_convert_rnn_weights``.
    """
    words = {"rnn": "Keras", "lstm": "Keras, blocks of columns i f c o"}
    text = words.get(cell, "Keras, blocks of columns z r h")
    hidden, columns = recurrent.shape
    if bias is not None and bias.shape == (2 * columns,):
        kernel, recurrent = _from_cudnn(kernel, hidden), _from_cudnn(recurrent, hidden)
        text += ", each gate transposed (CuDNN layer)"
    text += f", reset_after={cell == 'gru'}" * cell.startswith("gru")
    biases = [] if bias is None else list(bias.reshape(-1, columns))
    order = ORDERS["keras"][cell.partition("_")[0]]
    params = split_gates(cell, order, kernel.T, recurrent.T, *biases)
    return params, f"{text}, {BIASES[len(biases)]}"


def _from_cudnn(kernel: np.ndarray, hidden: int) -> np.ndarray:
    gates = np.split(kernel, kernel.shape[1] // hidden, axis=1)
    return np.concatenate([gate.reshape(hidden, -1).T for gate in gates], axis=1)


def torch_params(
    arrays: Mapping[str, np.ndarray],
) -> tuple[str, Params, str]:
    """Converts arrays of PyTorch, whose gates are blocks of rows, and names cell and layout.

    Args:
      arrays: W_x, W_h and, where there are some, W_hr, b_x and b_h, or a single b.
    """
    W_h, W_hr, single = arrays["W_h"], arrays.get("W_hr"), arrays.get("b")
    cell = "lstm" if W_hr is not None else KINDS[len(W_h) // W_h.shape[1]]
    biases = [arrays.get("b_x", single), arrays.get("b_h")]
    params = split_gates(cell, ORDERS["torch"][cell], arrays["W_x"], W_h, *biases)
    blocks = {"rnn": "", "gru": ", blocks of rows r z n", "lstm": ", blocks of rows i f g o"}[cell]
    words = f"PyTorch{blocks}, {BIASES[sum(bias is not None for bias in biases)]}"
    if W_hr is None:
        return cell, params, words
    params["projection"] = {"W": np.asarray(W_hr, np.float64)}
    return f"lstm(projection_size={len(W_hr)})", params, f"{words}, projected"
