"""The layers of a recurrent node of an ONNX graph, one for each direction."""

import numpy as np

from gradflow.cells.lstm import LSTMCarry
from gradflow.interop.gates import NUM_GATES
from gradflow.interop.net import Layer, layer_of
from gradflow.interop.onnx.cells import Weights, activations_of, cell_of
from gradflow.interop.onnx.constants import Constants
from gradflow.interop.onnx.graph import RECURRENT, Place
from gradflow.interop.verification import joined_notes

DIRECTIONS = {
    "forward": ("forward",),
    "reverse": ("reverse",),
    "bidirectional": ("forward", "reverse"),
}

CONVENTIONS = {
    "RNN": "ONNX RNN",
    "GRU": "ONNX GRU, gates in the order z r h",
    "LSTM": "ONNX LSTM, gates in the order i o f c",
}
"""The layout of the weights of each operator, in words."""


def layers_of(place: Place, constants: Constants) -> list[Layer]:
    """Returns the layers of a recurrent node, one for each direction.

    Raises:
      ValueError: If no cell computes the same function, or its weights are not constants; the
        message is the reason, without the name of the node.
    """
    node, options = place.node, place.options
    if node.op_type not in RECURRENT or node.domain not in ("", "ai.onnx"):
        raise ValueError(
            f"the operator {node.op_type} of {node.domain} is none of RNN, LSTM and GRU; export "
            "the model without quantization and without operators of a runtime"
        )
    directions = DIRECTIONS.get(options.get("direction", "forward"))
    if directions is None:
        raise ValueError(f"the direction {options['direction']!r} is unknown")
    weights = weights_of(place, constants, len(directions))
    activations = activations_of(node.op_type, options, len(directions))
    states, note = initial_states(place, constants, len(directions), weights.R.shape[2])
    layers = []
    for index, direction in enumerate(directions):
        spec, params = cell_of(node.op_type, options, activations[index], weights.of(index))
        own = [state[index] for state in states.values()]
        carry = LSTMCarry(*own) if len(own) > 1 else own[0]
        name = place.name + (f".{direction}" if len(directions) > 1 else "")
        layer = layer_of(
            name,
            spec,
            params,
            CONVENTIONS[node.op_type],
            direction == "reverse",
            carry=carry if np.any(own) else None,
            note=note,
        )
        _ = layer.cell  # raises for an option that no cell takes, such as a clip of 0
        layers.append(layer)
    return layers


def weights_of(place: Place, constants: Constants, directions: int) -> Weights:
    """Returns the weights of a node.

    Raises:
      ValueError: If they are not constants, or their shapes do not belong together.
    """

    def get(index: int) -> np.ndarray | None:
        name = place.input(index)
        return np.asarray(constants.value(place.scope, name), np.float64) if name else None

    W, R, B = get(1), get(2), get(3)
    P = get(7) if place.node.op_type == "LSTM" else None
    if W is None or R is None or W.ndim != 3 or R.ndim != 3:
        raise ValueError("the weights W and R are missing or have not three axes")
    hidden, rows = R.shape[2], NUM_GATES[place.node.op_type.lower()] * R.shape[2]
    expected = {"W": (directions, rows, W.shape[2]), "R": (directions, rows, hidden)}
    expected |= {"B": (directions, 2 * rows), "P": (directions, 3 * hidden)}
    for (name, shape), array in zip(expected.items(), (W, R, B, P), strict=True):
        if array is not None and (array.shape != shape or not array.size):
            raise ValueError(f"{name} has the shape {array.shape} where {shape} was expected")
    if place.options.get("hidden_size", hidden) != hidden:
        raise ValueError(f"its hidden_size contradicts its weights, which have {hidden} units")
    return Weights(W, R, B, P)


def initial_states(
    place: Place, constants: Constants, directions: int, hidden: int
) -> tuple[dict[int, np.ndarray], str]:
    """Returns h and, of an LSTM, c that all sequences begin with, and what has to be said.

    The states have the shape (directions, hidden), and go by the number of the input; a state that
    is not constant in the model is zero here.
    """
    notes, states = [], {}
    for index in (5, 6) if place.node.op_type == "LSTM" else (5,):
        states[index] = np.zeros((directions, hidden))
        if name := place.input(index):
            try:
                state = np.asarray(constants.initial(place.scope, name), np.float64)
                states[index] = _state(state, place.options.get("layout", 0), directions, hidden)
            except ValueError:
                notes.append("its initial state is not constant in the model, and zero here")
    if place.input(4):
        notes.append("the model gives it the lengths of sequences, which are not used here")
    return states, joined_notes(*dict.fromkeys(notes))


def _state(state: np.ndarray, layout: int, directions: int, hidden: int) -> np.ndarray:
    """Returns the state (directions, hidden) that all sequences begin with."""
    if state.size == 1:
        return np.full((directions, hidden), state.item())
    if state.ndim != 3:
        raise ValueError("the initial state does not have three axes")
    rows = state.swapaxes(0, 1) if layout else state
    if len(rows) not in (1, directions):
        raise ValueError("the initial state has another number of directions")
    if not rows.shape[1] or np.any(rows != rows[:, :1]):
        raise ValueError("the sequences of a batch begin with different states")
    return np.array(np.broadcast_to(rows[:, 0], (directions, hidden)))
