"""The gates along a trajectory: their activations, saturation and histograms."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.cells import CELLS
from gradflow.flow.chunks import Runner
from gradflow.flow.nonfinite import nonfinite_steps, set_nan
from gradflow.flow.trace import Trace, compiled, trace_of
from gradflow.unroll import Lengths, Mask, check_is_cell

Gates = Mapping[str, Float[Array, "steps hidden"]]
"""The activations of each gate by name; ``[t-1]`` is step t."""

Range = tuple[float, float]

CANDIDATES = ("g", "n")
"""The names of candidates for the state, which are no gates: tanh squashes them."""


def gates(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> dict[str, Float[Array, "steps hidden"]]:
    """Computes the activations of the cell's gates at every step of its trajectory, by name.

    The arguments are those common to all measurements (`gradflow.flow`), of a cell with gates.

    Returns:
      Activations, dimensionless, (T, hidden) each, also of gates that are images; NaN at a step
      that is padding, and at one from or to a carry that is not finite.

    Raises:
      ValueError: If the cell has no gates, or the inputs are not one sequence.
    """
    return gates_along(trace_of, cell, params, inputs, carry=carry, lengths=lengths, mask=mask)


def gates_along(
    run: Runner, cell: Cell, params: Params, inputs: Array, **given: Any
) -> dict[str, Float[Array, "steps hidden"]]:
    """Computes `gates` along the path that the cell is run on."""
    check_gates(cell)
    return run(cell, params, inputs, **given).sweep(_through, None)[1]


def check_gates(cell: Cell) -> None:
    """Checks that a cell has gates.

    Raises:
      TypeError: If the cell is none.
      ValueError: If it has none.
    """
    check_is_cell(cell)
    if cell.gates is None:
        raise ValueError(
            "Expected a cell with gates, got one whose gates is None. Give it a function "
            "gates(params, carry, x) -> {name: activation}, or take one of the cells that have "
            f"them: {', '.join(_gated_cells())}."
        )


def _gated_cells() -> list[str]:
    return [name for name, factory in CELLS.items() if factory(8, 8).gates is not None]


@compiled()
def _through(state: None, trace: Trace) -> tuple[None, dict[str, Array]]:
    assert trace.cell.gates is not None
    values = jax.vmap(partial(trace.cell.gates, trace.params))(trace.before, trace.inputs())
    values = {name: value.reshape(len(value), -1) for name, value in values.items()}
    absent = nonfinite_steps(trace)
    absent = absent if trace.mask is None else absent | ~trace.mask
    return state, set_nan(absent, values)


def gate_range(name: str) -> Range:
    """Returns the values between which a gate of that name lies, by convention of the names.

    (-1, 1) for the candidates, `CANDIDATES`, that tanh squashes; (0, 1) for the others, which are
    logistic.
    """
    return (-1.0, 1.0) if name in CANDIDATES else (0.0, 1.0)


def saturation(
    gates: Gates,
    *,
    low: float = 0.1,
    high: float = 0.9,
    ranges: Mapping[str, Range] | None = None,
) -> dict[str, Float[Array, "steps 2"]]:
    """Computes the fraction of the units at which a gate is saturated, shut or open, at each step.

    Args:
      gates: Activations by name, from `gates`. Transposed, ``[unit, step]``, they give the
        fraction of the steps for every unit, as in the paper.
      low: Where between the ends of its range a gate counts as shut, from 0 to 1: a candidate,
        from -1 to 1, does below -0.8.
      high: Where it counts as open.
      ranges: The ranges of gates by name, where `gate_range` does not have them.

    Returns:
      Fractions from 0 to 1, ``[:, 0]`` below ``low`` and ``[:, 1]`` above ``high``; NaN where an
      activation is NaN.

    Raises:
      ValueError: If not 0 ≤ low < high ≤ 1, or a range is not one.

    Source: Karpathy, Johnson, Fei-Fei 2015, arXiv:1506.02078 (left- and right-saturated).
    """
    if not 0 <= low < high <= 1:
        raise ValueError(
            f"Expected 0 <= low < high <= 1, got low={low} and high={high}. Give both as "
            "fractions of a gate's range."
        )

    def fractions(places: Array) -> Array:
        both = jnp.stack([places < low, places > high], axis=-1)
        return jnp.mean(both, axis=-2, dtype=places.dtype)

    return _by_gate(fractions, gates, ranges)


def gate_histograms(
    gates: Gates, *, bins: int = 20, ranges: Mapping[str, Range] | None = None
) -> dict[str, Float[Array, "steps bins"]]:
    """Computes the fraction of the units whose activation falls in each bin, at every step.

    Args:
      gates: Activations by name, from `gates`.
      bins: How many bins of equal width there are from end to end of a gate's range.
      ranges: The ranges of gates by name, where `gate_range` does not have them.

    Returns:
      Fractions from 0 to 1, which sum to 1 at a step unless an activation is out of the range; NaN
      where an activation is NaN.

    Raises:
      ValueError: If there is no bin, or a range is not one.
    """
    if bins < 1:
        raise ValueError(f"Expected at least one bin, got bins={bins}. The default is 20.")

    def fractions(places: Array) -> Array:
        def count(row: Array) -> Array:
            return jnp.histogram(row, bins=bins, range=(0.0, 1.0))[0]

        return jax.vmap(count)(places).astype(places.dtype) / places.shape[-1]

    return _by_gate(fractions, gates, ranges)


def _by_gate(
    fractions: Callable[[Array], Array], gates: Gates, ranges: Mapping[str, Range] | None
) -> dict[str, Array]:
    """Fractions of each gate's activations, as places from 0 to 1 within its range."""
    ranges = ranges or {}
    for name, (lowest, highest) in ranges.items():
        if name not in gates or not lowest < highest:
            raise ValueError(
                f"Expected ranges (lowest, highest) of gates among {sorted(gates)}, got "
                f"{name}: {(lowest, highest)}. Correct it or remove it."
            )

    def one(name: str, values: Array) -> Array:
        lowest, highest = ranges.get(name, gate_range(name))
        places = (values - lowest) / (highest - lowest)
        is_number = ~jnp.any(jnp.isnan(places), axis=-1, keepdims=True)
        return jnp.where(is_number, fractions(places), jnp.nan)

    return {name: one(name, values) for name, values in gates.items()}
