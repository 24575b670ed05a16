"""What the gates do along a trajectory: their activations, saturation and histograms."""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.cells import CELLS
from gradflow.flow.broken import broken_steps, void
from gradflow.flow.closed_over import open_cell
from gradflow.flow.steps import trajectory
from gradflow.unroll import Lengths, Mask, check_inputs, valid_steps

Gates = Mapping[str, Float[Array, "steps hidden"]]
"""The activations of each gate by name; ``[t-1]`` is step t."""

Range = tuple[float, float]

CANDIDATES = ("g", "n")
"""The names of what is not a gate but a proposal for the state, squashed by tanh."""


def gates(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> dict[str, Float[Array, "steps hidden"]]:
    """The activations of the cell's gates at every step of its trajectory, by name.

    Args:
      cell: A cell that has gates.
      params: Its parameters.
      inputs: x_1 ... x_T of one sequence; `jax.vmap` over more.
      carry: s_0; by default the cell's own.
      lengths: The number of real steps.
      mask: True where a step is real.

    Returns:
      Activations, dimensionless, (T, hidden) each; NaN at a step that is padding, and at one from
      or to a carry that is not finite.

    Raises:
      ValueError: If the cell has no gates, or the inputs are not one sequence.
    """
    check_gates(cell)
    mask = valid_steps(check_inputs(inputs), lengths, mask)
    cell, params, carry = open_cell(cell, params, inputs, carry)
    return activations(cell, (params, inputs, carry, mask))


def check_gates(cell: Cell) -> None:
    """Checks that a cell has gates.

    Raises:
      ValueError: If it has none.
    """
    if cell.gates is None:
        raise ValueError(
            "a cell with gates is expected, got one whose gates is None: give it a function "
            "gates(params, carry, x) -> {name: activation}, or take one of the cells that have "
            f"them, {', '.join(_gated_cells())}"
        )


def _gated_cells() -> list[str]:
    return [name for name, factory in CELLS.items() if factory(8, 8).gates is not None]


@partial(jax.jit, static_argnums=0)
def activations(cell: Cell, arguments: tuple) -> dict[str, Array]:
    """The activations for the arguments (params, inputs, s_0, mask)."""
    assert cell.gates is not None
    params, inputs, carry, mask = arguments
    with jax.default_matmul_precision("highest"):
        steps = trajectory(cell, params, inputs, carry=carry, mask=mask)
        values = dict(jax.vmap(partial(cell.gates, params))(steps.before, inputs))
    absent = broken_steps(steps)
    return void(absent if mask is None else absent | ~mask, values)


def gate_range(name: str) -> Range:
    """The values between which a gate of that name lies, by the convention of the names.

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
    """The share of the units at which a gate is saturated, shut or open, at every step.

    Args:
      gates: Activations by name, from `gates`. Transposed, ``[unit, step]``, they give the
        share of the steps for every unit, as in the paper.
      low: Where between the ends of its range a gate counts as shut, from 0 to 1: a candidate,
        from -1 to 1, does below -0.8.
      high: Where it counts as open.
      ranges: The ranges of gates by name, where `gate_range` does not have them.

    Returns:
      Shares from 0 to 1, ``[:, 0]`` below ``low`` and ``[:, 1]`` above ``high``; NaN where an
      activation is NaN.

    Raises:
      ValueError: If not 0 ≤ low < high ≤ 1, or a range is not one.

    Source: Karpathy, Johnson, Fei-Fei 2015, arXiv:1506.02078 (left- and right-saturated).
    """
    if not 0 <= low < high <= 1:
        raise ValueError(
            f"0 <= low < high <= 1 is expected, got low={low} and high={high}: give both as "
            "parts of a gate's range"
        )

    def shares(places: Array) -> Array:
        both = jnp.stack([places < low, places > high], axis=-1)
        return jnp.mean(both, axis=-2, dtype=places.dtype)

    return _by_gate(shares, gates, ranges)


def gate_histograms(
    gates: Gates, *, bins: int = 20, ranges: Mapping[str, Range] | None = None
) -> dict[str, Float[Array, "steps bins"]]:
    """The share of the units whose activation falls in each bin, at every step.

    Args:
      gates: Activations by name, from `gates`.
      bins: How many bins of equal width there are from end to end of a gate's range.
      ranges: The ranges of gates by name, where `gate_range` does not have them.

    Returns:
      Shares from 0 to 1, which sum to 1 at a step unless an activation is out of the range; NaN
      where an activation is NaN.

    Raises:
      ValueError: If there is no bin, or a range is not one.
    """
    if bins < 1:
        raise ValueError(f"at least one bin is expected, got bins={bins}: the default is 20")

    def shares(places: Array) -> Array:
        def count(row: Array) -> Array:
            return jnp.histogram(row, bins=bins, range=(0.0, 1.0))[0]

        return jax.vmap(count)(places).astype(places.dtype) / places.shape[-1]

    return _by_gate(shares, gates, ranges)


def _by_gate(
    shares: Callable[[Array], Array], gates: Gates, ranges: Mapping[str, Range] | None
) -> dict[str, Array]:
    """Shares of each gate's activations, as places from 0 to 1 within its range."""
    ranges = ranges or {}
    for name, (lowest, highest) in ranges.items():
        if name not in gates or not lowest < highest:
            raise ValueError(
                f"ranges (lowest, highest) of gates among {sorted(gates)} are expected, got "
                f"{name}: {(lowest, highest)}; correct it or leave it out"
            )

    def one(name: str, values: Array) -> Array:
        lowest, highest = ranges.get(name, gate_range(name))
        places = (values - lowest) / (highest - lowest)
        is_number = ~jnp.any(jnp.isnan(places), axis=-1, keepdims=True)
        return jnp.where(is_number, shares(places), jnp.nan)

    return {name: one(name, values) for name, values in gates.items()}
