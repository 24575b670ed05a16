"""Lyapunov exponents of a driven network: the mean growth of its tangent vectors, all of them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradflow.cell import Carry, Cell, Params, whole_carry
from gradflow.flow.chunks import Path, Runner
from gradflow.flow.decoupled import BlockStates, Method, by_blocks
from gradflow.flow.lyapunov.growths import (
    FrameOptions,
    growths_by_steps,
    growths_by_stretches,
    joined_growths,
)
from gradflow.flow.lyapunov.mean_error import standard_error_of_mean
from gradflow.flow.real_carry import as_real, real_parts
from gradflow.flow.trace import Trace, compiled, trace_of
from gradflow.unroll import Lengths, Mask, check_is_cell, check_sequence, start, valid_steps


class LyapunovExponents(NamedTuple):
    """Lyapunov exponents along one trajectory, in nats per step, in descending order.

    Attributes:
      exponents: Their estimates from all T' counted steps; -inf where the gradient is cut.
      running: The running estimates: ``running[i]`` is from the first i + 1 counted steps.
        (Growth over several steps at once is attributed to them in equal parts.)
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
    """Computes the Lyapunov exponents of the whole carry along the trajectory of the inputs.

    An orthonormal frame Q_0 is pushed along and made orthonormal again after every few steps::

        J_t ... J_{k+1} Q_k = Q_t R_t        exponent_i = 1/T' Σ_t log (R_t)_ii

    They come in descending order by themselves, once the frame aligns with the leading directions
    (the larger the gap to the next exponent, the sooner): its first k columns span the k directions
    that grow the most. All of them sum to the mean of log |det J_t| over the counted steps.

    The arguments are those common to all measurements (`gradflow.flow`), inputs of shape (T, 0) for
    an autonomous run, and

    Args:
      num_exponents: How many, from the largest; by default all, one for each entry of the carry.
      burn_in: Steps that come first and do not count, for the trajectory to reach its
        attractor and the frame to align with the leading directions.
      qr_every: Steps from one QR to the next. By default as many, up to 8, as leave six tenths
        of the digits of the smallest growth: it is measured, and a stretch that went too far is
        gone through again. A number given is kept to; what rounding then hides is -inf.
      time_reversed: Pulls rows back from s_T instead: the spectrum of the transposed product,
        the same in the limit, as a check. Burn-in then falls at both ends: the frame's at
        the end, the trajectory's at the start.

    Returns:
      Exponents, running estimates and standard errors, in nats per step; a padded step is left
      out, of the count as well. The derivative is that of the form with a QR at every step.

    Raises:
      ValueError: If num_exponents is not within 1 ... the size of the carry, burn_in is negative
        or leaves no step to count, qr_every is below 1, or the inputs are not one sequence.

    Source: Benettin, Galgani, Giorgilli, Strelcyn 1980, doi:10.1007/BF02128236; Geist, Parlitz,
    Lauterborn 1990, doi:10.1143/PTP.83.875.
    """
    options = FrameOptions(num_exponents, burn_in, qr_every, time_reversed)
    given = {"carry": carry, "lengths": lengths, "mask": mask}
    return lyapunov_exponents_along(trace_of, cell, params, inputs, **options._asdict(), **given)


def lyapunov_exponents_along(
    run: Runner,
    cell: Cell,
    params: Params,
    inputs: Array,
    *,
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
    **options: Any,
) -> LyapunovExponents:
    """Computes `lyapunov_exponents` along the path that the cell is run on."""
    settings = FrameOptions(**options)
    check_is_cell(cell)
    cell, carry = as_real(cell), real_parts(carry)
    inputs = check_sequence(inputs)
    mask = valid_steps(inputs, lengths, mask)
    num_real = len(inputs) if mask is None else jnp.sum(mask)
    if mask is not None:  # A padded step changes nothing: all come last in the order of the sweep.
        order = jnp.argsort(mask if settings.time_reversed else ~mask, stable=True)
        inputs, mask = inputs[order], mask[order]
    like = jax.eval_shape(lambda x: whole_carry(start(cell, params, x, carry)), inputs)
    _check(settings, like.size, len(inputs))
    path = run(cell, params, inputs, carry=carry, mask=mask)
    num_real = jnp.asarray(num_real)
    if isinstance(path, Trace):
        return _exponents(settings, path, num_real)
    return _statistics_along(growths_by_stretches, settings, path, num_real)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _exponents(options: FrameOptions, trace: Trace, num_real: Int[Array, ""]) -> LyapunovExponents:
    return _statistics_along(growths_by_stretches, options, trace, num_real)


@_exponents.defjvp
def _(options: FrameOptions, primals: tuple, tangents: tuple) -> tuple:
    # The loop over stretches has no reverse mode: how many there are is found on the way.
    return jax.jvp(partial(_statistics_along, growths_by_steps, options), primals, tangents)


def _statistics_along(
    grow: Callable[..., tuple], options: FrameOptions, path: Path, num_real: Int[Array, ""]
) -> LyapunovExponents:
    through = by_blocks(Method(grow, joined_growths), options, None)
    state, growths = path.sweep(through, num_real, backward=options.time_reversed)
    found = statistics(options, growths, num_real)
    if not isinstance(state, BlockStates):
        return found
    order = jnp.argsort(-found.exponents)[: options.num_exponents]  # each block brings its own
    return jax.tree.map(lambda leaf: leaf[..., order], found)


def _check(options: FrameOptions, size: int, num_steps: int) -> None:
    count, burn_in, every, time_reversed = options
    if count is not None and not 1 <= count <= size:
        raise ValueError(
            f"Expected num_exponents within 1 ... {size}, the size of the carry, got {count}. "
            "Remove it to measure all of them."
        )
    most = (num_steps - 1) // (2 if time_reversed else 1)
    if not 0 <= burn_in <= most:
        raise ValueError(
            f"Expected burn_in within 0 ... {most} for T = {num_steps} steps"
            f"{' that are cut at both ends' if time_reversed else ''}, got {burn_in}. Give "
            "longer inputs or burn in for fewer steps."
        )
    if every is not None and every < 1:
        raise ValueError(
            f"Expected qr_every of at least 1, got {every}. Remove it to have it chosen."
        )


@compiled("options")
def statistics(
    options: FrameOptions, growths: Float[Array, "steps exponents"], num_real: Int[Array, ""] | int
) -> LyapunovExponents:
    """Computes the statistics of the growths that count; NaN where there is none."""
    growths = growths[::-1] if options.time_reversed else growths
    burn_ins = options.burn_in * (2 if options.time_reversed else 1)
    growths, count = growths[options.burn_in :][: len(growths) - burn_ins], num_real - burn_ins
    index = jnp.arange(len(growths))
    passed = jnp.minimum(index + 1, count)[:, None]
    growths = jnp.where(index[:, None] < count, growths, 0)
    running = jnp.where(passed > 0, jnp.cumsum(growths, axis=0) / passed, jnp.nan)
    return LyapunovExponents(running[-1], running, standard_error_of_mean(growths, count))
