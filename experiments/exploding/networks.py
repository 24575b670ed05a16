"""The networks of the study: their cells, critical gains and exponents by theory."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax

from gradflow import Cell, Params
from gradflow.cells import resolve
from gradflow.initializers.meanfield import critical_gain, mean_field_exponent


class Net(NamedTuple):
    """A network of the study.

    Attributes:
      spec: The cell, as it is resolved.
      critical: input_std -> the gain at which λ = 0, by theory.
      exponent: (gain, input_std) -> λ by theory; NaN where there is none.
      kept: The gate that multiplies h itself, without a matrix, if there is one.
    """

    spec: str
    critical: Callable[[float], float]
    exponent: Callable[[float, float], float]
    kept: str | None = None


def _plain(activation: str) -> Net:
    def critical(input_std: float) -> float:
        return critical_gain(activation, input_std=input_std if activation == "tanh" else 0.0)

    spec = f"rnn(activation={activation!r}, recurrent_init='normal')"
    return Net(spec, critical, partial(mean_field_exponent, activation))


def _gated(name: str, gate: float, kept: str | None = None) -> Net:
    """λ of s_t = (gate + gain/4 · W) s_{t-1}, whose largest eigenvalue is gate + gain/4."""
    critical = 4 * (1 - gate)

    def exponent(gain: float, input_std: float) -> float:
        del input_std  # the theory is that of inputs near 0
        return math.log(gate + gain / 4) if gain <= critical else math.nan

    return Net(f"{name}(recurrent_init='normal')", lambda input_std: critical, exponent, kept)


NETS = {
    "linear": _plain("identity"),
    "relu": _plain("relu"),
    "tanh": _plain("tanh"),
    "lstm": _gated("lstm", gate=1 / (1 + math.exp(-1))),
    "gru": _gated("gru", gate=0.5, kept="z"),
}


def scaled(name: str, input_size: int, hidden_size: int) -> Cell:
    """Makes a network of the study with parameters {"cell": ..., "gain": the factor of each W_h}.

    The product is W_h (gain · h), so that under `jax.vmap` over gains W_h stays one matrix.
    """
    cell, kept = resolve(NETS[name].spec)(input_size, hidden_size), NETS[name].kept

    def step(params: Params, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        inner, gain, h = params["cell"], params["gain"], cell.hidden(carry)
        larger = carry._replace(h=gain * h) if hasattr(carry, "_replace") else gain * h
        carry, output = cell.step(inner, larger, x)
        if kept and cell.gates:  # h multiplied by a gate has no matrix, and no gain
            carry = output = output + cell.gates(inner, larger, x)[kept] * (1 - gain) * h
        return carry, output

    return cell._replace(step=step)
