"""The number of slopes that the machine's arithmetic rounds to exactly zero, in each precision."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.nonfinite import nonfinite_steps, set_nan
from gradflow.flow.trace import Trace, compiled, trace_of
from gradflow.numerics.exact_slopes import saturates
from gradflow.numerics.jaxprs import apply_equation, apply_nested, evaluate
from gradflow.unroll import Lengths, Mask

PRECISIONS = ("float64", "float32", "bfloat16", "float16")

FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "tanh": jax.lax.tanh,
    "logistic": jax.lax.logistic,
    "expm1": jax.lax.expm1,
    "erf": jax.lax.erf,
    "erfc": jax.lax.erfc,
}
"""The functions whose slopes are counted, by the name of the primitive."""

FARTHEST = 1024.0
"""Beyond it every function here is saturated in every precision."""


class CutSlopes(NamedTuple):
    """Slopes of saturating functions at each step, index = t - 1; numbers and dimensionless.

    Attributes:
      total: How many slopes of tanh, logistic, expm1, erf and erfc there are in the step.
      cut: By the precision, how many of them are exactly 0 in it and not in truth.
    """

    total: Float[Array, " steps"]
    cut: dict[str, Float[Array, " steps"]]

    def fraction(self) -> dict[str, Float[Array, "*batch steps"]]:
        """The fraction of the slopes that each precision cuts; NaN where there is no slope."""
        return {name: count / self.total for name, count in self.cut.items()}


def cut_slopes(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> CutSlopes:
    """Counts the slopes that the machine rounds to exactly zero at each step, by precision.

    In the program of the cell's step, every y = f(z) with f = tanh, logistic, expm1, erf or erfc
    has a slope for each entry of z. It is cut in a precision where the derivative that JAX takes
    there, for z rounded to it, is exactly 0 although z is finite::

        cut_t = #{ entries z of step t :  f'(z) = 0 in that precision,  z finite }

    The measurements do not have these zeros (`exact_slopes`); training in that precision does. The
    slopes are those along the trajectory in the precision of the arguments. Not counted are
    zeros that belong to the function, such as those of relu, slopes of a function that has a rule
    of its own, and gradients lost to underflow in a product.

    The arguments are those common to all measurements (`gradflow.flow`).

    Returns:
      Counts by step; NaN at a step that is padding, and at one from or to a carry that is not
      finite. float64 is among the precisions only if JAX has it switched on.

    Raises:
      ValueError: If the inputs are not one sequence.
    """
    return _cut_slopes(trace_of(cell, params, inputs, carry=carry, lengths=lengths, mask=mask))


@compiled()
def _cut_slopes(trace: Trace) -> CutSlopes:
    count = partial(_count, trace.cell.step, trace.params)
    counts = jax.vmap(count)(trace.before, trace.inputs())
    absent = nonfinite_steps(trace)
    absent = absent if trace.mask is None else absent | ~trace.mask
    dtype = jnp.result_type(*jax.tree.leaves(trace.last))
    return set_nan(absent, jax.tree.map(lambda count: count.astype(dtype), counts))


def _count(step: Callable, params: Params, s: Carry, x: Array) -> CutSlopes:
    closed = jax.make_jaxpr(step)(params, s, x)
    return _counted(closed)(*jax.tree.leaves((params, s, x)))[1]


def _counted(closed: core.ClosedJaxpr) -> Callable[..., tuple[list[Any], CutSlopes]]:
    """The program with the counts of its slopes beside its results."""

    def run(*values: Any) -> tuple[list[Any], CutSlopes]:
        found = [_nothing()]

        def apply(
            jaxpr: core.Jaxpr, equation: core.JaxprEqn, values: Sequence[Any]
        ) -> Sequence[Any]:
            opened = apply_nested(equation, values, _counted)
            if opened is not None:
                found.append(opened[1])
                return opened[0]
            if saturates(equation):
                found.append(_count_one(equation.primitive.name, jnp.asarray(values[0])))
            return apply_equation(jaxpr, equation, values)

        results = evaluate(closed, values, apply)
        return results, jax.tree.map(lambda *counts: sum(counts[1:], counts[0]), *found)

    return run


def _precisions() -> Sequence[str]:
    return PRECISIONS if jax.config.jax_enable_x64 else PRECISIONS[1:]  # pyright: ignore


def _nothing() -> CutSlopes:
    zero = jnp.zeros((), jnp.int32)
    return CutSlopes(zero, dict.fromkeys(_precisions(), zero))


def _count_one(name: str, z: Float[Array, "..."]) -> CutSlopes:
    def cut(precision: str) -> Array:
        lower, upper = cut_range(name, precision)
        return jnp.sum(((z <= lower) | (z >= upper)) & jnp.isfinite(z), dtype=jnp.int32)

    total = jnp.asarray(z.size, jnp.int32)
    return CutSlopes(total, {precision: cut(precision) for precision in _precisions()})


@cache
def cut_range(name: str, precision: str) -> tuple[float, float]:
    """(a, b) such that the machine's slope of a function is 0 for z ≤ a and for z ≥ b.

    They are found on the machine itself, operation by operation: in a fused program the compiler
    may keep more digits between two operations than the precision has.

    Args:
      name: One of `FUNCTIONS`.
      precision: One of `PRECISIONS`.
    """

    def first_zero(sign: float) -> float:
        low, high = 0.0, FARTHEST
        while True:
            grid = np.linspace(low, high, 1025)
            z = jnp.asarray(sign * grid).astype(precision)
            slopes = jax.jvp(FUNCTIONS[name], (z,), (jnp.ones_like(z),))[1]
            zeros = np.flatnonzero(np.asarray(slopes) == 0)
            if not len(zeros):
                return sign * math.inf
            low, high = float(grid[max(zeros[0] - 1, 0)]), float(grid[zeros[0]])
            if high - low <= 1e-12 * high:
                return sign * high

    with jax.ensure_compile_time_eval():
        return first_zero(-1.0), first_zero(1.0)
