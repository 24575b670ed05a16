"""The layers of a recurrent node of an ONNX graph, one for each direction."""

import numpy as np

from gradflow.cell import Carry
from gradflow.cells.lstm import LSTMCarry
from gradflow.interop.net import Direction, Layer
from gradflow.interop.onnx.cells import ORDERS, Weights, activations_of, cell_of
from gradflow.interop.onnx.constants import Constants
from gradflow.interop.onnx.graph import RECURRENT, Place, attributes

DIRECTIONS: dict[str, tuple[Direction, ...]] = {
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


def input_of(place: Place, index: int) -> str:
    """Returns the name of an input of a node, empty if it is not given."""
    return place.node.input[index] if index < len(place.node.input) else ""


def layers_of(place: Place, constants: Constants) -> list[Layer]:
    """Returns the layers of a recurrent node, one for each direction.

    Raises:
      ValueError: If no cell computes the same function, or its weights are not constants; the
        message is the reason, without the name of the node.
    """
    node, options = place.node, attributes(place.node)
    if node.op_type not in RECURRENT or node.domain not in ("", "ai.onnx"):
        raise ValueError(
            f"the operator {node.op_type} of {node.domain} is none of RNN, LSTM and GRU; export "
            "the model without quantization and without operators of a runtime"
        )
    directions = DIRECTIONS.get(options.get("direction", "forward"))
    if directions is None:
        raise ValueError(f"the direction {options['direction']!r} is unknown")
    weights = weights_of(place, constants, len(directions))
    names = activations_of(node.op_type, options, len(directions))
    several = len(directions) > 1
    layers = []
    for index, direction in enumerate(directions):
        own = weights.of(index)
        spec, params = cell_of(node.op_type, options, names[index], own)
        carry, note = _carry(place, constants, index, own.R.shape[1])
        layer = Layer(
            name=place.name + (f".{direction}" if several else ""),
            spec=spec,
            input_size=own.W.shape[1],
            hidden_size=own.R.shape[1],
            params=params,
            convention=CONVENTIONS[node.op_type],
            direction=direction,
            carry=carry,
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
    gates = len(ORDERS[place.node.op_type])

    def get(index: int) -> np.ndarray | None:
        name = input_of(place, index)
        return np.asarray(constants.value(place.scope, name), np.float64) if name else None

    W, R, B = get(1), get(2), get(3)
    P = get(7) if place.node.op_type == "LSTM" else None
    if W is None or R is None or W.ndim != 3 or R.ndim != 3:
        raise ValueError("the weights W and R are missing or have not three axes")
    hidden, rows = R.shape[2], gates * R.shape[2]
    expected = {"W": (directions, rows, W.shape[2]), "R": (directions, rows, hidden)}
    expected |= {"B": (directions, 2 * rows), "P": (directions, 3 * hidden)}
    for (name, shape), array in zip(expected.items(), (W, R, B, P), strict=True):
        if array is not None and (array.shape != shape or not array.size):
            raise ValueError(f"{name} has the shape {array.shape} where {shape} was expected")
    if attributes(place.node).get("hidden_size", hidden) != hidden:
        raise ValueError(f"its hidden_size contradicts its weights, which have {hidden} units")
    return Weights(W, R, B, P)


def _carry(place: Place, constants: Constants, index: int, hidden: int) -> tuple[Carry | None, str]:
    """Returns s_0 of a direction, if the model has a constant one, and what has to be said."""
    options = attributes(place.node)
    layout, directions = (
        options.get("layout", 0),
        len(DIRECTIONS[options.get("direction", "forward")]),
    )
    names = [input_of(place, 5)] + [input_of(place, 6)] * (place.node.op_type == "LSTM")
    notes, states = [], []
    for name in names:
        try:
            state = np.zeros(hidden) if not name else constants.initial(place.scope, name)
            states.append(
                _state(np.asarray(state, np.float64), layout, (index, directions), hidden)
            )
        except ValueError:
            states.append(np.zeros(hidden))
            notes.append("its initial state is not constant in the model, and zero here")
    if input_of(place, 4):
        notes.append("the model gives it the lengths of sequences, which are not used here")
    note = "; ".join(dict.fromkeys(notes))
    if not any(np.any(state) for state in states):
        return None, note
    return (LSTMCarry(*states) if len(states) > 1 else states[0]), note


def _state(state: np.ndarray, layout: int, place: tuple[int, int], hidden: int) -> np.ndarray:
    """Returns the state that all sequences begin with, for (direction, number of directions)."""
    index, directions = place
    if state.size == 1:
        return np.full(hidden, state.item())
    if state.ndim != 3:
        raise ValueError("the initial state does not have three axes")
    rows = state.swapaxes(0, 1) if layout else state
    if len(rows) not in (1, directions):
        raise ValueError("the initial state has another number of directions")
    own = rows[index if len(rows) > 1 else 0]
    if len(own) == 0 or np.any(own != own[0]):
        raise ValueError("the sequences of a batch begin with different states")
    return np.array(np.broadcast_to(own[0], hidden))
