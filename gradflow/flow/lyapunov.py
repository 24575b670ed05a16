"""Lyapunov exponents of a driven net: how fast its tangent vectors grow, all of them."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradflow.cell import Carry, Cell, Params, whole_carry
from gradflow.flow.closed_over import open_cell
from gradflow.flow.growths import (
    Plan,
    Problem,
    Swept,
    before_first,
    growths_by_steps,
    growths_by_stretches,
)
from gradflow.flow.mean_error import standard_error_of_mean
from gradflow.flow.steps import trajectory
from gradflow.unroll import Lengths, Mask, check_inputs, valid_steps


class LyapunovExponents(NamedTuple):
    """Lyapunov exponents along one trajectory, in nats per step, in descending order.

    Attributes:
      exponents: Their estimates from all T' counted steps; -inf where the gradient is cut.
      running: The estimates on the way: ``running[i]`` is from the first i + 1 counted steps.
        (What is measured over several steps at once counts as growth in equal parts.)
      standard_error: Of the exponents as means over correlated steps, such that
        ``exponents ± 1.96 * standard_error`` are intervals of 95 % (`standard_error_of_mean`). NaN
        with 8 counted steps or fewer, and where an exponent is not finite. It is of one
        trajectory: networks of other seeds differ by more.
    """

    exponents: Float[Array, " exponents"]
    running: Float[Array, "counted exponents"]
    standard_error: Float[Array, " exponents"]


def lyapunov_exponents(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    num_exponents: int | None = None,
    burn_in: int = 0,
    carry: Carry | None = None,
    qr_every: int | None = None,
    time_reversed: bool = False,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> LyapunovExponents:
    """The Lyapunov exponents of the whole carry along the trajectory that the inputs drive.

    An orthonormal frame Q_0 is pushed along and made orthonormal again after every few steps::

        J_t ... J_{k+1} Q_k = Q_t R_t        exponent_i = 1/T' Σ_t log (R_t)_ii

    They come in descending order by themselves, once the frame has turned into line (the
    larger the gap to the next exponent, the sooner): its first k columns span the k directions
    that grow the most. All of them sum to the mean of log |det J_t| over the counted steps.

    Args:
      cell: The cell.
      params: Its parameters.
      inputs: x_1 ... x_T of one sequence, of shape (T, 0) for an autonomous run; `jax.vmap`
        over more.
      num_exponents: How many, from the largest; by default all, one for each entry of the carry.
      burn_in: Steps that come first and do not count, for the trajectory to reach its
        attractor and the frame to turn into line.
      carry: s_0; by default the cell's own.
      qr_every: Steps from one QR to the next. By default as many, up to 8, as leave six tenths
        of the digits of the smallest growth: it is measured, and a stretch that went too far is
        gone through again. A number given is kept to; what rounding then hides is -inf.
      time_reversed: Pulls rows back from s_T instead: the spectrum of the transposed product,
        the same in the limit, as a check. Burn-in then falls at both ends: the frame's at
        the end, the trajectory's at the start.
      lengths: The number of real steps. A padded step is left out, of the count as well.
      mask: True where a step is real.

    Returns:
      Exponents, running estimates and standard errors, in nats per step. To differentiate
      through them is to differentiate the form with a QR at every step.

    Raises:
      ValueError: If num_exponents is not within 1 ... the size of the carry, burn_in is negative
        or leaves no step to count, qr_every is below 1, or the inputs are not one sequence.

    Source: Benettin, Galgani, Giorgilli, Strelcyn 1980, doi:10.1007/BF02128236; Geist, Parlitz,
    Lauterborn 1990, doi:10.1143/PTP.83.875.
    """
    plan = Plan(num_exponents, burn_in, qr_every, time_reversed)
    inputs = check_inputs(inputs)
    mask = valid_steps(inputs, lengths, mask)
    cell, params, carry = open_cell(cell, params, inputs, carry)
    return _exponents(cell, plan, (params, inputs, carry, mask))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
@partial(jax.jit, static_argnums=(0, 1))
def _exponents(cell: Cell, plan: Plan, arguments: tuple) -> LyapunovExponents:
    with jax.default_matmul_precision("highest"):
        arguments, num_real = real_first(plan, arguments)
        problem, swept = start_sweep(cell, plan, arguments, num_real)
        return statistics(plan, growths_by_stretches(problem, swept)[1], num_real)


@_exponents.defjvp
def _(cell: Cell, plan: Plan, primals: tuple, tangents: tuple) -> tuple:
    def plain(arguments: tuple) -> LyapunovExponents:
        with jax.default_matmul_precision("highest"):
            arguments, num_real = real_first(plan, arguments)
            problem, swept = start_sweep(cell, plan, arguments, num_real)
            return statistics(plan, growths_by_steps(problem, swept), num_real)

    return jax.jvp(plain, primals, tangents)


def real_first(plan: Plan, arguments: tuple) -> tuple[tuple, Int[Array, ""] | int]:
    """The arguments with all padding last in the order gone through, and the number of real steps.

    A padded step changes nothing, wherever it comes.
    """
    params, inputs, carry, mask = arguments
    if mask is None:
        return arguments, len(inputs)
    order = jnp.argsort(mask if plan.time_reversed else ~mask, stable=True)
    return (params, inputs[order], carry, mask[order]), jnp.sum(mask)


def start_sweep(
    cell: Cell, plan: Plan, arguments: tuple, num_real: Int[Array, ""] | int
) -> tuple[Problem, Swept]:
    """The trajectory, and the frame at its start.

    Raises:
      ValueError: As `lyapunov_exponents`.
    """
    params, inputs, carry, mask = arguments
    steps = trajectory(cell, params, inputs, carry=carry, mask=mask)
    last = whole_carry(steps.last)
    _check(plan, last.size, len(inputs))
    # In general position, so that the first k rows always find the k fastest directions. (From
    # rows of the identity, a net of decoupled units would keep the order of its units.)
    noise = jax.random.normal(jax.random.key(0), (last.size, last.size), jnp.float32)
    frame = jnp.linalg.qr(noise.astype(last.dtype)[: plan.num_exponents].T)[0].T
    to_go = num_real - plan.burn_in * plan.time_reversed  # the trajectory's burn-in comes last
    return Problem(plan, steps), before_first(plan, to_go, frame)


@partial(jax.jit, static_argnums=(0, 1))
def frame_at_start(
    cell: Cell, plan: Plan, arguments: tuple, num_real: Int[Array, ""] | int
) -> Swept:
    """Where a sweep starts; all that does not fit is said here."""
    return start_sweep(cell, plan, arguments, num_real)[1]


def _check(plan: Plan, size: int, num_steps: int) -> None:
    count, burn_in, every, time_reversed = plan
    if count is not None and not 1 <= count <= size:
        raise ValueError(
            f"num_exponents is expected to be within 1 ... {size}, the size of the carry, "
            f"got {count}; leave it out for all of them"
        )
    most = (num_steps - 1) // (2 if time_reversed else 1)
    if not 0 <= burn_in <= most:
        raise ValueError(
            f"burn_in is expected to be within 0 ... {most} for T = {num_steps} steps"
            f"{' that are cut at both ends' if time_reversed else ''}, got {burn_in}; give "
            "longer inputs or burn in for fewer steps"
        )
    if every is not None and every < 1:
        raise ValueError(
            f"qr_every is expected to be at least 1, got {every}; leave it out to have it found"
        )


@partial(jax.jit, static_argnums=0)
def statistics(
    plan: Plan, growths: Float[Array, "steps exponents"], num_real: Int[Array, ""] | int
) -> LyapunovExponents:
    """The statistics of the growths that count; NaN where that is none."""
    burn_ins = plan.burn_in * (2 if plan.time_reversed else 1)
    growths, count = growths[plan.burn_in :][: len(growths) - burn_ins], num_real - burn_ins
    index = jnp.arange(len(growths))
    passed = jnp.minimum(index + 1, count)[:, None]
    growths = jnp.where(index[:, None] < count, growths, 0)
    running = jnp.where(passed > 0, jnp.cumsum(growths, axis=0) / passed, jnp.nan)
    return LyapunovExponents(running[-1], running, standard_error_of_mean(growths, count))
