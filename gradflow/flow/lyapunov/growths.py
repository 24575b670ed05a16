"""The growth of a frame of directions along a trajectory, by QR after one step or several."""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradflow.cell import whole_carry
from gradflow.flow.decoupled import Part
from gradflow.flow.joins import joined_columns
from gradflow.flow.nonfinite import nonfinite_steps, set_nan
from gradflow.flow.structure import Places, Structure
from gradflow.flow.trace import Trace, as_matrix, compiled
from gradflow.numerics.graded_frame import graded_frame
from gradflow.numerics.qr import log_frame
from gradflow.numerics.scaling import rescale, scaled, with_room

MOST_STEPS = 8
"""Steps between two QRs, at most, where their number is found by measuring."""

DIGITS = 0.6
"""Fraction of the digits of the smallest growth that such a stretch has to leave."""


class FrameOptions(NamedTuple):
    """The options of `lyapunov_exponents`, as one static value."""

    num_exponents: int | None
    burn_in: int
    qr_every: int | None
    time_reversed: bool


class Frame(NamedTuple):
    """The state of a sweep, in the order in which it goes through the steps."""

    place: Int[Array, ""]
    """Steps behind it."""
    num_real: Int[Array, ""]
    """Steps to go through, from the very first on; what follows is padding."""
    length: Int[Array, ""]
    """Steps that the next stretch will have."""
    rows: Float[Array, "exponents carry"]


def _frame_of(options: FrameOptions, state: Frame | Int[Array, ""], trace: Trace) -> Frame:
    """The frame of a sweep that goes on, or a first one for so many steps."""
    if isinstance(state, Frame):
        return state
    num_real, like = state, jax.eval_shape(whole_carry, trace.last)
    # In general position, so that the first k rows always find the k fastest directions. (From
    # rows of the identity, a net of decoupled units would keep the order of its units.)
    noise = jax.random.normal(jax.random.key(0), (like.size, like.size), jnp.float32)
    rows = jnp.linalg.qr(noise.astype(like.dtype)[: options.num_exponents].T)[0].T
    # Backward in time, the burn-in of the trajectory comes last.
    to_go = num_real - options.burn_in * options.time_reversed
    length = jnp.asarray(options.qr_every or 1, int)
    return Frame(jnp.zeros((), int), jnp.asarray(to_go, int), length, rows)


class _Problem(NamedTuple):
    """The trajectory, or a chunk of it; places are counted in the order of the sweep."""

    options: FrameOptions
    trace: Trace

    def step_at(self, place: Int[Array, ""]) -> Int[Array, ""]:
        return self.trace.num_steps - 1 - place if self.options.time_reversed else place

    def advance(self, place: Int[Array, ""], rows: Array) -> Array:
        """One step forward, or back in time."""
        move = self.trace.pull_rows if self.options.time_reversed else self.trace.push_columns
        return as_matrix(move(self.step_at(place), self.trace.as_rows(rows)))

    def graded(self, place: Int[Array, ""], rows: Array) -> tuple[Array, Array]:
        """The frame and its growth after one step, for a step of any condition."""
        unit = scaled(self.trace.as_rows(jnp.eye(rows.shape[1], dtype=rows.dtype)))
        jacobian = self.trace.pull(self.step_at(place), unit)
        matrix = as_matrix(jacobian.value)
        rows, growth = graded_frame(rows, matrix if self.options.time_reversed else matrix.T)
        return rows, growth + jacobian.log_scale()

    def finish(self, growths: Float[Array, "steps exponents"]) -> Float[Array, "steps exponents"]:
        """Growths in the order of time; NaN from the first step of the sweep that is not finite."""
        bad = nonfinite_steps(self.trace)
        bad = bad[::-1] if self.options.time_reversed else bad
        after = jnp.where(jnp.any(bad), jnp.argmax(bad), len(bad))
        growths = set_nan(jnp.arange(len(bad)) >= after, growths)
        return growths[::-1] if self.options.time_reversed else growths


@compiled("options", "blocks")
def growths_by_steps(
    options: FrameOptions, blocks: Places | None, state: Frame | Int[Array, ""], trace: Trace
) -> tuple[Frame, Float[Array, "steps exponents"]]:
    """Computes the growth of each direction at every step, by a QR at every step.

    Args:
      options: The options.
      blocks: Nothing is selected from the carry.
      state: The frame, or the number of steps to go through, from which a first one is made.
      trace: The trajectory.
    """
    del blocks
    frame, problem = _frame_of(options, state, trace), _Problem(options, trace)

    def step(rows: Array, place: Array) -> tuple[Array, Array]:
        enlarged, shift = with_room(rows)
        return _log_frame(problem.advance(place, enlarged), -shift)

    rows, growths = jax.lax.scan(step, frame.rows, jnp.arange(trace.num_steps))
    return frame._replace(rows=rows), problem.finish(growths)


def _log_frame(matrix: Array, exponent: int) -> tuple[Array, Array]:
    """`log_frame` of 2^exponent · matrix."""
    product = rescale(matrix, exponent)
    rows, growth = log_frame(product.value)
    return rows, growth + product.log_scale()


class _Stretch(NamedTuple):
    """The state before a stretch of steps that has one QR."""

    burn_in: Int[Array, ""]
    """Steps before the first one that counts; a stretch ends there."""
    num_real: Int[Array, ""]

    place: Int[Array, ""]
    length: Int[Array, ""]
    """Steps that the stretch will have."""
    rows: Float[Array, "exponents carry"]
    growths: Float[Array, "steps exponents"]
    """The growth a step so far, with room for one stretch at the end."""


@compiled("options", "blocks")
def growths_by_stretches(
    options: FrameOptions, blocks: Places | None, state: Frame | Int[Array, ""], trace: Trace
) -> tuple[Frame, Float[Array, "steps exponents"]]:
    """Computes the same with a QR after stretches of steps, each as long as rounding allows."""
    del blocks
    frame = _frame_of(options, state, trace)
    num_steps, like = trace.num_steps, frame.rows
    room = max(options.qr_every or 1, MOST_STEPS)
    start = _Stretch(
        burn_in=options.burn_in - frame.place,
        num_real=jnp.minimum(frame.num_real - frame.place, num_steps),
        place=jnp.zeros((), int),
        length=frame.length,
        rows=like,
        growths=jnp.zeros((num_steps + room, len(like)), like.dtype),
    )
    problem = _Problem(options, trace)
    body = partial(_try_stretch, problem, room)
    stretch = jax.lax.while_loop(lambda state: state.place < state.num_real, body, start)
    end = frame._replace(place=frame.place + num_steps, length=stretch.length, rows=stretch.rows)
    return end, problem.finish(stretch.growths[:num_steps])


def joined_growths(
    options: FrameOptions, structure: Structure, parts: Sequence[Part], trace: Trace
) -> Float[Array, "steps exponents"]:
    """Returns the growths of the directions of all blocks, and of entries that no step reads."""
    columns = joined_columns(parts)
    unread = structure.size - sum(group.entries.size for group in structure.groups)
    columns.append(jnp.full((trace.num_steps, unread), -jnp.inf, columns[0].dtype))
    growths = jnp.concatenate(columns, axis=1)
    return _Problem(options, trace).finish(growths[::-1] if options.time_reversed else growths)


def _try_stretch(problem: _Problem, room: int, state: _Stretch) -> _Stretch:
    """Goes through one stretch, or stays before it with a shorter one if too many digits go."""
    options, place = problem.options, state.place
    stop = jnp.where(place < state.burn_in, state.burn_in, state.num_real)
    stop = jnp.minimum(stop, state.num_real)
    length = jnp.minimum(state.length, stop - place)
    enlarged, shift = with_room(state.rows)
    moved = jax.lax.fori_loop(place, place + length, problem.advance, enlarged)
    rows, growth = _log_frame(moved, -shift)
    # What was cut before this stretch stays cut, however short it is.
    alive = jnp.any(state.rows != 0, axis=1)
    span = jnp.max(growth, initial=0, where=alive) - jnp.min(growth, initial=0, where=alive)
    most = jnp.asarray((DIGITS - 1) * math.log(jnp.finfo(growth.dtype).eps), growth.dtype)
    if options.qr_every in (None, 1) and len(growth) > 1:  # one row alone loses no digits to others
        # A loop of at most one turn, which under vmap is skipped where no sequence needs it. The
        # barrier keeps XLA from moving the work out of the loop, where it would always be done.
        rows, growth, _ = jax.lax.while_loop(
            lambda found: found[2],
            lambda found: (
                *problem.graded(place, jax.lax.optimization_barrier((state.rows, found[2]))[0]),
                jnp.zeros((), bool),
            ),
            (rows, growth, (length == 1) & ~(span <= most)),
        )
    rates = jnp.broadcast_to(growth / length, (room, len(growth)))
    growths = jax.lax.dynamic_update_slice(state.growths, rates, (place, 0))
    if options.qr_every is not None:
        return state._replace(place=place + length, rows=rows, growths=growths)
    good = (span <= most) | (length == 1)
    longer = jnp.where(span * (length + 1) <= most * length, state.length + 1, state.length)
    return state._replace(
        place=jnp.where(good, place + length, place),
        length=jnp.where(good, jnp.minimum(longer, MOST_STEPS), jnp.maximum(length // 2, 1)),
        rows=jnp.where(good, rows, state.rows),
        growths=growths,
    )
