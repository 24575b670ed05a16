"""Parameters of cells from the arrays of a layer, in the layouts of PyTorch and of Keras."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from gradflow.cell import Params
from gradflow.interop.gates import split_gates

Arrays = Mapping[str, np.ndarray]
"""The arrays of a layer by what they are: W_x, W_h, b, b_x, b_h, W_hr."""

BIASES = ("no bias", "one bias", "two biases")

KINDS = {1: "rnn", 3: "gru", 4: "lstm"}
"""The kind of a cell by its number of gates."""


class Layout(NamedTuple):
    """What the arrays of a layer are.

    Attributes:
      spec: The cell.
      input_size: Size of its inputs.
      hidden_size: Size of its hidden state, before a projection.
      params: Its parameters.
      words: The layout in words.
      note: What was assumed.
    """

    spec: str
    input_size: int
    hidden_size: int
    params: Params
    words: str
    note: str = ""


def kind_of(shape: tuple[int, ...], convention: str) -> str:
    """Returns ``rnn``, ``gru`` or ``lstm``, by the shape of a recurrent matrix.

    Raises:
      ValueError: If the shape is that of no cell.
    """
    tall, wide = shape if convention == "torch" else shape[::-1]
    if wide < 1 or tall % wide or tall // wide not in KINDS:
        fits = wide and not wide % tall if tall else False
        hint = " It fits the convention of the other framework." * bool(fits and tall < wide)
        usual = "(gates * hidden, hidden)" if convention == "torch" else "(hidden, gates * hidden)"
        raise ValueError(
            f"Expected a recurrent matrix of shape {usual} with 1, 3 or 4 gates by the convention "
            f"{convention}, got {shape}.{hint} Name the right one with convention."
        )
    return KINDS[tall // wide]


def torch_layout(arrays: Arrays, activation: str | None) -> Layout:
    """Reads arrays with blocks of rows: LSTM i f g o, GRU r z n, with two biases or with one.

    Args:
      arrays: The arrays of a layer.
      activation: The activation, if it is an RNN.

    Raises:
      ValueError: If the shapes contradict each other, or the activation is missing.
    """
    W_x, W_h, W_hr = arrays["W_x"], arrays["W_h"], arrays.get("W_hr")
    kind = "lstm" if W_hr is not None else kind_of(W_h.shape, "torch")
    num_gates = {name: number for number, name in KINDS.items()}[kind]
    rows, recurrent = W_h.shape
    hidden = recurrent if W_hr is None else W_hr.shape[1]
    single = arrays.get("b")
    if single is not None and (kind == "gru" or "b_x" in arrays or "b_h" in arrays):
        raise ValueError(
            "Expected the two biases bias_ih and bias_hh, got an array for a single bias. Rename "
            "the arrays as in PyTorch, or load a model of Equinox from memory."
        )
    biases = [arrays.get("b_x", single), arrays.get("b_h")]
    num_biases = sum(bias is not None for bias in biases)
    expected = {"W_x": (rows, W_x.shape[1]), "W_h": (num_gates * hidden, recurrent)}
    expected |= {"W_hr": (recurrent, hidden)}
    expected |= dict.fromkeys(("b", "b_x", "b_h"), (rows,))
    _check(arrays, expected, hidden)
    params = split_gates(kind, {"rnn": "n", "gru": "rzn", "lstm": "ifgo"}[kind], W_x, W_h, *biases)
    blocks = {"rnn": "", "gru": ", blocks of rows r z n", "lstm": ", blocks of rows i f g o"}[kind]
    words = f"PyTorch{blocks}, {BIASES[num_biases]}"
    spec = f"rnn(activation={_known(activation)!r})" if kind == "rnn" else kind
    if W_hr is not None:
        spec = f"lstm(projection_size={recurrent})"
        params = {**params, "projection": {"W": np.asarray(W_hr, np.float64)}}
        words += ", projected"
    return Layout(spec, W_x.shape[1], hidden, params, words)


def keras_layout(arrays: Arrays, activation: str | None, *, confirmed: bool) -> Layout:
    """Reads arrays with blocks of columns: LSTM i f c o, GRU z r h.

    Args:
      arrays: The arrays of a layer.
      activation: The activation, if it is an RNN.
      confirmed: Whether the user named the convention, and with it Keras's defaults.

    Raises:
      ValueError: If the shapes contradict each other, or the activation or the kind of a GRU
        without a bias is missing.
    """
    W_x, W_h, bias = arrays["W_x"], arrays["W_h"], arrays.get("b")
    kind = kind_of(W_h.shape, "keras")
    hidden, columns = W_h.shape
    is_double = bias is not None and bias.size == 2 * columns and kind != "rnn"
    sizes = {(columns,), (2, columns)} if kind == "gru" else {(columns,)}
    sizes |= {(2 * columns,)} if kind != "rnn" else set()
    shape = bias.shape if bias is not None and bias.shape in sizes else (columns,)
    _check(arrays, {"W_x": (W_x.shape[0], columns), "W_h": (hidden, columns), "b": shape}, hidden)
    words = {"rnn": "Keras", "gru": "Keras, blocks of columns z r h"}
    text = words.get(kind, "Keras, blocks of columns i f c o")
    if is_double and bias is not None and bias.ndim == 1:
        # cuDNN reads the same memory as (hidden, input): each gate is stored transposed.
        W_x, W_h = _from_cudnn(W_x, hidden), _from_cudnn(W_h, hidden)
        text += ", each gate transposed (CuDNN layer)"
    if kind == "gru" and bias is None and not confirmed:
        raise ValueError(
            "Expected a bias that tells whether a Keras GRU has reset_after, got none. Load the "
            ".keras file, or name the convention keras for Keras's default, reset_after=True."
        )
    is_before = kind == "gru" and bias is not None and not is_double
    name = "gru_reset_before" if is_before else kind
    text += f", reset_after={not is_before}" * (kind == "gru")
    biases = [] if bias is None else list(bias.reshape(-1, columns))
    order = {"rnn": "n", "gru": "zrn", "lstm": "ifgo"}[kind]
    params = split_gates(name, order, W_x.T, W_h.T, *biases)
    spec = f"rnn(activation={_known(activation)!r})" if kind == "rnn" else name
    text += f", {BIASES[len(biases)]}"
    note = "" if kind == "rnn" else "activations tanh and sigmoid are assumed"
    return Layout(spec, W_x.shape[0], hidden, params, text, note)


def _from_cudnn(kernel: np.ndarray, hidden: int) -> np.ndarray:
    """Transposes each gate of a kernel (input, gates * hidden) from the layout of cuDNN."""
    gates = np.split(kernel, kernel.shape[1] // hidden, axis=1)
    return np.concatenate([gate.reshape(hidden, -1).T for gate in gates], axis=1)


def _check(arrays: Arrays, expected: Mapping[str, tuple[int, ...]], hidden: int) -> None:
    shapes = {role: array.shape for role, array in arrays.items()}
    if hidden < 1 or any(shape != expected.get(role) for role, shape in shapes.items()):
        wanted = {role: expected.get(role) for role in shapes}
        raise ValueError(
            f"Expected arrays of the shapes {wanted} by its recurrent matrix, got {shapes}. If the "
            "layout is that of another framework, name it with convention."
        )


def _known(activation: str | None) -> str:
    if activation is None:
        raise ValueError(
            "Expected the activation of an RNN, which arrays do not tell. Set --activation=tanh "
            "or --activation=relu (in Python: activation='tanh')."
        )
    return activation
