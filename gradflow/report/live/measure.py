"""Measures the recurrent layers of a model as it is at one update of its training."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradflow import flow
from gradflow.cell import Carry, Cell, Params
from gradflow.devices import map_runs
from gradflow.flow.norms import Norm
from gradflow.interop import Layer
from gradflow.report.losses import turned
from gradflow.statistics import slope
from gradflow.unroll import unroll


@dataclass(frozen=True, eq=False)
class Subject:
    """A layer with what it computes on at one update.

    Attributes:
      name: Its name.
      cell: Its cell.
      params: The parameters.
      inputs: The inputs (N, T, input) in the time of the model; None for the outputs of others.
      fed_by: The layers whose outputs are the inputs, where none are given.
      is_reverse: Whether it reads the time in reverse.
      carry: s_0 of every sequence, with an axis N in front of each leaf; None for the cell's own.
      lengths: The number of real steps of each sequence; None if all are real.
    """

    name: str
    cell: Cell
    params: Params
    inputs: Float[np.ndarray, "n t input"] | None
    fed_by: tuple[str, ...] = ()
    is_reverse: bool = False
    carry: Carry | None = None
    lengths: np.ndarray | None = None


def subject_of(layer: Layer, inputs: np.ndarray | None, count: int) -> Subject:
    """Returns a layer of a net as it reads ``count`` sequences, from its own initial state."""
    carry = layer.carry
    if carry is not None:
        carry = jax.tree.map(lambda s: np.broadcast_to(s, (count, *np.shape(s))), carry)
    reverse = layer.direction == "reverse"
    return Subject(layer.name, layer.cell, layer.params, inputs, layer.fed_by, reverse, carry)


class Measured(NamedTuple):
    """What was measured of one layer: medians over the sequences.

    Attributes:
      log_norms: log ‖∂h_T/∂h_k‖ by the lag T - k, in nats.
      horizon: The first lag at which the norm is 1e-3 or less; infinite where it never is.
      factor: The factor per step by which the norm changes.
      nonfinite_step: The first step at which a state of a sequence is not finite; -1 for none.
      saturation: The fractions of units and steps at which each gate is shut and open.
    """

    log_norms: Float[np.ndarray, " lags"]
    horizon: float
    factor: float
    nonfinite_step: int
    saturation: dict[str, tuple[float, float]]


class Measurer:
    """Measures layers in float64; compiles once for each cell and shape.

    Args:
      norm: ``spectral`` or ``frobenius``.

    Attributes:
      compiling: The time that all compilations together took, in seconds.
    """

    def __init__(self, norm: Norm) -> None:
        self.compiling = 0.0
        self._norm: Norm = norm
        self._programs: dict[Any, Any] = {}

    def __call__(self, subjects: Sequence[Subject]) -> dict[str, Measured]:
        """Returns what was measured, by the names of the layers, in the order of computation.

        Layers that are fed by others, but have none of their outputs, are missing.
        """
        outputs: dict[str, np.ndarray] = {}
        found = {}
        for subject in subjects:
            if subject.inputs is None:
                if not subject.fed_by or not set(subject.fed_by) <= set(outputs):
                    continue
                joined = np.concatenate([outputs[name] for name in subject.fed_by], axis=-1)
                subject = replace(subject, inputs=joined)
            found[subject.name], outputs[subject.name] = self._one(subject)
        return found

    def _one(self, subject: Subject) -> tuple[Measured, np.ndarray]:
        assert subject.inputs is not None
        count, steps = subject.inputs.shape[:2]
        lengths = np.full(count, steps) if subject.lengths is None else subject.lengths
        padded = max(self._padded(subject, steps), steps)
        turn = turned if subject.is_reverse else lambda sequences, _: sequences
        with jax.enable_x64(True):
            x = np.zeros((count, padded, subject.inputs.shape[2]))
            x[:, :steps] = turn(np.asarray(subject.inputs, np.float64), lengths)
            is_full = bool(np.all(lengths == padded))
            arguments = (
                jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), subject.params),
                jnp.asarray(x),
                jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), subject.carry),
                None if is_full else jnp.asarray(lengths),
            )
            result = jax.device_get(self._program(subject.cell, arguments)(*arguments))
        return _summarised(result, lengths), turn(result["outputs"][:, :steps], lengths)

    def _padded(self, subject: Subject, steps: int) -> int:
        """Returns the number of steps to measure with, of those compiled for where one fits.

        Sequences of many lengths would otherwise be compiled for over and over.
        """
        assert subject.inputs is not None
        known = [
            key[1][1]
            for key in self._programs
            if key[0] == subject.cell and key[1][0] == len(subject.inputs)
        ]
        fitting = [one for one in known if steps <= one <= 2 * steps]
        if fitting or not known:
            return min(fitting, default=steps)
        return 1 << (steps - 1).bit_length()

    def _program(self, cell: Cell, arguments: tuple[Any, ...]) -> Any:
        _, x, carry, lengths = arguments
        key = (cell, x.shape, carry is None, lengths is None)
        if key not in self._programs:
            start = time.perf_counter()
            program = jax.jit(partial(_all_sequences, cell, self._norm))
            self._programs[key] = program.lower(*arguments).compile()
            self.compiling += time.perf_counter() - start
        return self._programs[key]


def _all_sequences(
    cell: Cell, norm: Norm, params: Params, xs: Array, carry: Carry, lengths: Array | None
) -> dict[str, Any]:
    def one(x: Array, s_0: Carry, length: Array | None) -> dict[str, Any]:
        given: dict[str, Any] = {"carry": s_0, "lengths": length}
        trajectory = unroll(cell, params, x, **given)
        found = {
            "outputs": trajectory.outputs,
            "log_norms": flow.log_norms(cell, params, x, norm=norm, **given),
            "nonfinite_step": flow.first_nonfinite_step(trajectory),
        }
        if cell.gates is not None:
            parts = flow.saturation(flow.gates(cell, params, x, **given))
            found["saturation"] = jax.tree.map(partial(jnp.nanmean, axis=0), parts)
        return found

    return map_runs(one)(xs, carry, lengths)


def _summarised(result: Mapping[str, Any], lengths: np.ndarray) -> Measured:
    curves = result["log_norms"]
    longest = int(np.max(lengths))
    at_lag = np.full((longest + 1, len(curves)), np.nan)
    has_lag = np.arange(longest + 1)[:, None] <= lengths
    for row, (curve, length) in enumerate(zip(curves, lengths, strict=True)):
        # The steps of padding are identities: they repeat the norm at lag 0.
        at_lag[: length + 1, row] = curve[len(curve) - 1 - length :]
    with np.errstate(invalid="ignore"):  # the mean of the two infinities is NaN, as it should be
        median = np.array([np.median(at_lag[k, has_lag[k]]) for k in range(longest + 1)])
    bad = result["nonfinite_step"][result["nonfinite_step"] >= 0]
    shut_and_open = {
        gate: (float(np.mean(parts[:, 0])), float(np.mean(parts[:, 1])))
        for gate, parts in result.get("saturation", {}).items()
    }
    return Measured(
        log_norms=median,
        horizon=float(flow.horizons(median)),
        factor=float(np.exp(slope(median))),
        nonfinite_step=int(np.min(bad)) if len(bad) else -1,
        saturation=shut_and_open,
    )
