"""The cells of Keras: their options and arrays as specs and parameters."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gradflow.cell import Params
from gradflow.interop.gates import NUM_GATES, keras_cell, keras_params, spec_of

CellArrays = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""Kernel, recurrent kernel and bias."""

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
      units: Its hidden size.
      use_bias: Whether it has a bias.
      activation: The activation by gradflow's name.
      gate_activation: That of the gates by gradflow's name.
    """

    cell: str
    units: int
    use_bias: bool
    activation: str = "tanh"
    gate_activation: str = "sigmoid"

    @property
    def spec(self) -> str:
        """The spec of the cell, as `gradflow.cells.resolve` takes it."""
        return spec_of(self.cell, activation=self.activation, gate_activation=self.gate_activation)


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


def cell_params(options: CellOptions, arrays: CellArrays) -> tuple[Params, str]:
    """Converts the arrays of a Keras cell to parameters, and names their layout.

    Raises:
      ValueError: If the shapes contradict the options.
    """
    shapes = [array.shape for array in arrays if array is not None]
    cell, units, has_bias = keras_cell(shapes), options.units, arrays[2] is not None
    if not has_bias and cell == "gru":
        cell = options.cell if options.cell.startswith("gru") else cell
    if cell != options.cell or shapes[1][0] != units or has_bias != options.use_bias:
        columns = NUM_GATES[options.cell] * units
        raise ValueError(
            f"Expected the arrays of a Keras {options.cell} of {units} units, kernel "
            f"(input, {columns}), recurrent kernel ({units}, {columns}) and bias "
            f"{'as its form has it' if options.use_bias else 'none'}, got the shapes {shapes}. The "
            "configuration belongs to other weights: name the right one with config."
        )
    return keras_params(options.cell, *arrays)
