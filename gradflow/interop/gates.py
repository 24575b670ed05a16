"""Parameters of cells from the joined matrices in which other frameworks keep all gates."""

import numpy as np
from jaxtyping import Float

from gradflow.cell import Params

NUM_GATES = {"rnn": 1, "gru": 3, "gru_reset_before": 3, "lstm": 4}
"""The number of gates of each cell, by which joined matrices tell the cells apart."""


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
      order: The letters of the gates in the order of the blocks: ``ifgo`` for PyTorch's LSTM,
        ``rzn`` for its GRU, ``iofg`` and ``zrn`` for ONNX. Any letter for an RNN.
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
