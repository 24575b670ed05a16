"""The cells of Keras: their options and arrays as specs and parameters."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from gradflow.cell import Params
from gradflow.interop.gates import NUM_GATES, split_gates

ORDERS = {"rnn": "h", "lstm": "ifgo", "gru": "zrn", "gru_reset_before": "zrn"}
"""The gates in the order of Keras's columns: i f c o, and z r h."""

CELLS = {"SimpleRNN": "rnn", "LSTM": "lstm", "GRU": "gru", "CuDNNLSTM": "lstm", "CuDNNGRU": "gru"}
"""The cell of each recurrent layer of Keras; those of ``LSTMCell`` and so on are the same."""

ACTIVATIONS = {
    "linear": "identity",
    "softsign": "soft_sign",
    "swish": "silu",
    "hard_swish": "hard_silu",
} | {
    name: name
    for name in (
        "celu elu hard_silu hard_tanh log_sigmoid mish relu relu6 selu sigmoid silu softplus "
        "sparse_plus squareplus tanh"
    ).split()
}
"""Keras's activations that `gradflow.cells.activations` has as well, by Keras's names.

Left out are ``leaky_relu``, whose slope is 0.2 in Keras and 0.01 in JAX, ``gelu``, which JAX
approximates, and those that are not elementwise or that JAX does not have.
"""


class CellOptions(NamedTuple):
    """What the configuration of a cell says.

    Attributes:
      cell: ``rnn``, ``lstm``, ``gru`` or ``gru_reset_before``.
      units: Its hidden size; None where it is unknown.
      use_bias: Whether it has a bias; None where it is unknown.
      activation: The activation by gradflow's name.
      gate_activation: That of the gates by gradflow's name.
    """

    cell: str
    units: int | None = None
    use_bias: bool | None = None
    activation: str = "tanh"
    gate_activation: str = "sigmoid"

    @property
    def spec(self) -> str:
        """The spec of the cell, as `gradflow.cells.resolve` takes it."""
        options = []
        if self.activation != "tanh":
            options.append(f"activation={self.activation!r}")
        if self.gate_activation != "sigmoid" and self.cell != "rnn":
            options.append(f"gate_activation={self.gate_activation!r}")
        return f"{self.cell}({', '.join(options)})" if options else self.cell


def cell_options(class_name: str, config: Mapping[str, Any], version: int) -> CellOptions:
    """Returns the options of a recurrent layer or cell of Keras from its configuration.

    Args:
      class_name: Such as ``LSTM`` or ``LSTMCell``.
      config: Its configuration.
      version: Keras's major version, on which the meaning of ``hard_sigmoid`` depends.

    Raises:
      ValueError: If it has an option that no cell of gradflow has; the message is the reason.
    """
    is_cudnn = class_name.startswith("CuDNN")
    cell = CELLS[class_name.removesuffix("Cell")]
    # Layers of Keras 2.0 and the CuDNN layers do not have the option.
    reset_after = config.get("reset_after", is_cudnn)
    if cell == "gru" and not reset_after:
        cell = "gru_reset_before"
    units = config["units"]
    if isinstance(units, bool) or not isinstance(units, int) or units < 1:
        raise ValueError(f"its number of units is {units!r}")
    gate = "sigmoid" if is_cudnn else config.get("recurrent_activation", "sigmoid")
    activation = "tanh" if is_cudnn else config.get("activation", "tanh")
    return CellOptions(
        cell,
        units,
        True if is_cudnn else bool(config.get("use_bias", True)),
        activation_name(activation, version),
        "sigmoid" if cell == "rnn" else activation_name(gate, version),
    )


def activation_name(given: Any, version: int) -> str:
    """Returns gradflow's name of an activation of Keras, of that major version.

    Raises:
      ValueError: If gradflow does not have it; the message is the reason.
    """
    if isinstance(given, Mapping):  # a function or layer that Keras would look up or call
        inner, module = given.get("config"), str(given.get("module") or "builtins")
        is_named = isinstance(inner, str) and module.partition(".")[0] in ("builtins", "keras")
        given = inner if is_named else f"{module}.{given.get('class_name')}"
    if given is None:
        return "identity"
    if given == "hard_sigmoid":
        return "hard_sigmoid_fifth" if version < 3 else "hard_sigmoid"
    if not isinstance(given, str) or given not in ACTIVATIONS:
        known = ", ".join(sorted({*ACTIVATIONS, "hard_sigmoid"}))
        raise ValueError(f"its activation {given!r} is not among {known}")
    return ACTIVATIONS[given]


def cell_params(
    options: CellOptions,
    kernel: Float[np.ndarray, "input columns"],
    recurrent: Float[np.ndarray, "hidden columns"],
    bias: np.ndarray | None,
) -> tuple[Params, str]:
    """Converts the arrays of a Keras cell to parameters, and names their layout.

    The layers for cuDNN of Keras 2 are recognised by their two biases in one vector. Their kernels
    have the same shapes as the others, but another order of the numbers: each gate's block was
    read as a matrix (hidden, input) row by row, whatever its own shape.

    Raises:
      ValueError: If the shapes contradict the options.

    Source: Keras 2, ``saving/hdf5_format.py``, ``_convert_rnn_weights``.
    """
    cell, order = options.cell, ORDERS[options.cell]
    columns = options.units and options.units * NUM_GATES[cell]
    shapes = [np.shape(a) for a in (kernel, recurrent, bias) if a is not None]
    is_right = kernel.ndim == recurrent.ndim == 2 and recurrent.shape == (options.units, columns)
    if not is_right or kernel.shape[1] != columns or (bias is not None) != options.use_bias:
        raise _contradiction(options, shapes)
    if bias is not None and bias.shape == (2 * recurrent.shape[1],) and cell in ("lstm", "gru"):
        W_x = np.concatenate([_row_by_row(block) for block in np.split(kernel, len(order), 1)])
        W_h = np.concatenate(np.split(recurrent, len(order), 1))
        params = split_gates(cell, order, W_x, W_h, *np.split(bias, 2))
        return params, f"Keras 2 for cuDNN: gates {_words(cell)}, two biases"
    expected = (2, columns) if cell == "gru" else (columns,)
    if bias is not None and bias.shape != expected:
        raise _contradiction(options, shapes)
    biases = (None,) if bias is None else tuple(bias) if cell == "gru" else (bias,)
    params = split_gates(cell, order, kernel.T, recurrent.T, *biases)
    reset = {"gru": ", reset_after=True", "gru_reset_before": ", reset_after=False"}
    return params, f"Keras: gates {_words(cell)}{reset.get(cell, '')}"


def _row_by_row(block: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(block).reshape(block.shape[::-1])


def _words(cell: str) -> str:
    return {"rnn": "none", "lstm": "i f c o"}.get(cell, "z r h")


def _contradiction(options: CellOptions, shapes: list[tuple[int, ...]]) -> ValueError:
    n, units = NUM_GATES[options.cell], options.units
    return ValueError(
        f"Expected the arrays of a Keras {options.cell} of {units} units, kernel "
        f"(input, {n * (units or 0)}), recurrent kernel ({units}, {n * (units or 0)}) and bias "
        f"{'as its form has it' if options.use_bias else 'none'}, got the shapes {shapes}. The "
        "configuration belongs to other weights: name the right one with config."
    )
