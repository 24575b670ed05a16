"""The cell that a recurrent operator of ONNX is, and its parameters."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gradflow.cell import Params
from gradflow.interop.gates import ORDERS, spec_of, split_gates

ACTIVATIONS: dict[str, tuple[tuple[float, ...], dict[tuple[float, ...], str]]] = {
    "affine": ((math.nan, math.nan), {(1.0, 0.0): "identity"}),
    "elu": ((1.0,), {(1.0,): "elu"}),
    "hardsigmoid": ((0.2, 0.5), {(0.2, 0.5): "hard_sigmoid_fifth", (1 / 6, 0.5): "hard_sigmoid"}),
    "leakyrelu": ((0.01,), {(0.01,): "leaky_relu"}),
    "relu": ((), {(): "relu"}),
    "scaledtanh": ((math.nan, math.nan), {(1.0, 1.0): "tanh"}),
    "sigmoid": ((), {(): "sigmoid"}),
    "softplus": ((), {(): "softplus"}),
    "softsign": ((), {(): "soft_sign"}),
    "tanh": ((), {(): "tanh"}),
    "thresholdedrelu": ((1.0,), {(0.0,): "relu"}),
}
"""The default alpha and beta of each activation, and our names by alpha and beta.

Affine and ScaledTanh have no defaults; onnxruntime takes zeros.
"""

DEFAULTS = {"RNN": ("tanh",), "GRU": ("sigmoid", "tanh"), "LSTM": ("sigmoid", "tanh", "tanh")}
"""The activations of each operator: of the gates, of the candidate, of the cell state."""


class Weights(NamedTuple):
    """The constants of a node: W, R, B and P, each with an axis of directions in front."""

    W: np.ndarray
    R: np.ndarray
    B: np.ndarray | None
    P: np.ndarray | None

    def of(self, direction: int) -> "Weights":
        """Returns those of one direction."""
        W, R, B, P = (None if part is None else part[direction] for part in self)
        assert W is not None and R is not None
        return Weights(W, R, B, P)


def activations_of(kind: str, options: dict[str, Any], directions: int) -> list[tuple[str, ...]]:
    """Returns our names of the activations of a node, for each direction.

    Raises:
      ValueError: If one of them is unknown.
    """
    count = len(DEFAULTS[kind])
    given = [
        one.decode() if isinstance(one, bytes) else str(one)
        for one in options.get("activations") or DEFAULTS[kind] * directions
    ]
    if len(given) == count:  # given once for both directions
        given = given * directions
    if len(given) != count * directions:
        raise ValueError(f"its activations {given} are not {count} for each direction")
    alphas = iter(options.get("activation_alpha") or ())
    betas = iter(options.get("activation_beta") or ())
    names = [_activation(one, (alphas, betas)) for one in given]
    return [tuple(names[k * count : (k + 1) * count]) for k in range(directions)]


def _activation(name: str, scales: Sequence[Any]) -> str:
    if name.lower() not in ACTIVATIONS:
        raise ValueError(f"the activation {name} is unknown")
    defaults, ours = ACTIVATIONS[name.lower()]
    # alpha and beta are lists that only the activations which have such a constant take from.
    found = tuple(next(scale, d) for d, scale in zip(defaults, scales, strict=False))
    for constants, own in ours.items():
        if np.allclose(found, constants, rtol=1e-6, atol=0):
            return own
    values = ", ".join(f"{value:g}" for value in found)
    raise ValueError(f"no cell has the activation {name} with alpha and beta ({values})")


def cell_of(
    kind: str, options: dict[str, Any], names: tuple[str, ...], weights: Weights
) -> tuple[str, Params]:
    """Returns the spec of the cell and its parameters, for one direction of a node.

    Args:
      kind: The operator.
      options: The attributes of the node.
      names: What `activations_of` returns for this direction.
      weights: The weights, without the axis of directions.

    Raises:
      ValueError: If no cell computes the same function.
    """
    cell = kind.lower()
    if kind == "GRU" and not options.get("linear_before_reset", 0):
        cell = "gru_reset_before"
    biases = () if weights.B is None else np.split(weights.B, 2)
    order = ORDERS["onnx"][kind.lower()]
    params = split_gates(cell, order, weights.W, weights.R, *biases)
    given: dict[str, Any] = {"activation": names[-1] if kind != "LSTM" else names[1]}
    if kind != "RNN":
        given["gate_activation"] = names[0]
    if "clip" in options:
        given["clip"] = float(options["clip"])
    if kind == "LSTM":
        if weights.P is not None:
            given["peephole"] = True
            for gate, p in zip("iof", np.split(weights.P, 3), strict=True):
                params[gate]["p"] = p
        given["coupled"] = bool(options.get("input_forget", 0))
        if given["coupled"]:
            _couple(params, names[0])
        given["output_activation"] = names[2]
    return spec_of(cell, **given), params


def _couple(params: Params, sigma: str) -> None:
    """Replaces f = 1 - i, as runtimes compute it, by i = 1 - f: 1 - σ(a) = σ(-a)."""
    if sigma not in ("sigmoid", "hard_sigmoid", "hard_sigmoid_fifth"):
        raise ValueError(f"input_forget with the gate activation {sigma} is no known cell")
    params["f"] = {name: -value for name, value in params.pop("i").items()}
