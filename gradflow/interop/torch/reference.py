"""Layers of PyTorch that are built from arrays, to compare imported ones with."""

import importlib.util
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from gradflow.interop.arrays.layouts import Arrays


def is_torch_installed() -> bool:
    """Whether PyTorch can be imported."""
    return importlib.util.find_spec("torch") is not None


def torch_original(
    kind: str, arrays: Arrays, activation: str | None, *, is_reverse: bool = False
) -> Callable[[np.ndarray], np.ndarray]:
    """Builds a layer of `torch.nn` in float64 and returns a function that runs it.

    Args:
      kind: ``rnn``, ``gru`` or ``lstm``.
      arrays: Its arrays in PyTorch's layout.
      activation: The activation, if it is an RNN.
      is_reverse: Whether the layer reads the sequences in reverse.

    Raises:
      ModuleNotFoundError: If PyTorch is not installed.
    """
    torch = import_module("torch")

    projection = arrays.get("W_hr")
    hidden = len(arrays["W_h"]) // {"rnn": 1, "gru": 3, "lstm": 4}[kind]
    biases = {"bias_ih_l0": arrays.get("b_x", arrays.get("b")), "bias_hh_l0": arrays.get("b_h")}
    has_bias = any(bias is not None for bias in biases.values())
    options: dict[str, Any] = {"bias": has_bias, "batch_first": True, "dtype": torch.float64}
    options |= {"proj_size": len(projection)} if projection is not None else {}
    options |= {"nonlinearity": activation} if kind == "rnn" else {}
    weights = {"weight_ih_l0": arrays["W_x"], "weight_hh_l0": arrays["W_h"]}
    weights |= {"weight_hr_l0": projection} if projection is not None else {}
    if has_bias:
        zeros = np.zeros(len(arrays["W_h"]))
        weights |= {name: zeros if bias is None else bias for name, bias in biases.items()}
    # Named by its class: getattr(torch.nn, kind.upper()) would hide what is made here.
    make = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[kind]
    module = make(arrays["W_x"].shape[1], hidden, **options)
    module.load_state_dict(
        {name: torch.from_numpy(np.array(a, np.float64)) for name, a in weights.items()}
    )

    def run(inputs: np.ndarray) -> np.ndarray:
        turned = inputs[:, ::-1].copy() if is_reverse else inputs
        with torch.no_grad():
            outputs = module(torch.from_numpy(np.asarray(turned, np.float64)))[0].numpy()
        return outputs[:, ::-1] if is_reverse else outputs

    return run
