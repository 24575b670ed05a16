"""The growth of a frame of directions along a trajectory, by QR after one step or several."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradflow.cell import Cell
from gradflow.flow.broken import broken_steps, void
from gradflow.flow.graded_frame import graded_frame
from gradflow.flow.qr import carry_rows, flat_rows, log_frame
from gradflow.flow.steps import Steps, pull_rows, push_columns, rescale, trajectory, with_room

MOST_STEPS = 8
"""Steps between two QRs, at most, where their number is found by measuring."""

DIGITS = 0.6
"""Share of the digits of the smallest growth that such a stretch has to leave."""


class Plan(NamedTuple):
    """The options, as one static value."""

    num_exponents: int | None
    burn_in: int
    qr_every: int | None
    time_reversed: bool


class Swept(NamedTuple):
    """How far a sweep has come, in the order in which it goes through the steps."""

    place: Int[Array, ""]
    """Steps gone through."""
    num_real: Int[Array, ""]
    """Steps that there are to go through, from the very first on; what follows is padding."""
    length: Int[Array, ""]
    """Steps that the next stretch will have."""
    frame: Float[Array, "exponents carry"]


class Problem(NamedTuple):
    """A trajectory, or the part of it that comes next, whose growths are measured."""

    plan: Plan
    steps: Steps

    def advance(self, place: Int[Array, ""], frame: Array) -> Array:
        """One step on, or back; the places are counted from 0 in the order gone through."""
        rows = carry_rows(self.steps, frame)
        if not self.plan.time_reversed:
            return flat_rows(push_columns(self.steps, place, rows))
        return flat_rows(pull_rows(self.steps, self.steps.num_steps - 1 - place, rows))

    def graded(self, place: Int[Array, ""], frame: Array) -> tuple[Array, Array]:
        """The frame and its growth after one step, for a step of any condition."""
        index = self.steps.num_steps - 1 - place if self.plan.time_reversed else place
        unit, shift = with_room(jnp.eye(frame.shape[1], dtype=frame.dtype))
        jacobian = flat_rows(pull_rows(self.steps, index, carry_rows(self.steps, unit)))
        matrix, exponent = rescale(jacobian, jnp.asarray(-shift, jnp.int32))
        frame, growth = graded_frame(frame, matrix if self.plan.time_reversed else matrix.T)
        return frame, growth + exponent * math.log(2)

    def void(self, growths: Float[Array, "steps exponents"]) -> Float[Array, "steps exponents"]:
        """NaN from the first step on that is broken."""
        broken = broken_steps(self.steps)
        broken = broken[::-1] if self.plan.time_reversed else broken
        after = jnp.where(jnp.any(broken), jnp.argmax(broken), len(broken))
        return void(jnp.arange(len(broken)) >= after, growths)


def before_first(plan: Plan, num_real: Int[Array, ""] | int, frame: Array) -> Swept:
    """Where a sweep starts."""
    return Swept(
        place=jnp.zeros((), int),
        num_real=jnp.asarray(num_real, int),
        length=jnp.asarray(plan.qr_every or 1, int),
        frame=frame,
    )


def growths_by_steps(problem: Problem, swept: Swept) -> Float[Array, "steps exponents"]:
    """The growth of each direction at every step, by a QR at every step."""

    def step(frame: Array, place: Array) -> tuple[Array, Array]:
        enlarged, shift = with_room(frame)
        return _log_frame(problem.advance(place, enlarged), -shift)

    _, growths = jax.lax.scan(step, swept.frame, jnp.arange(problem.steps.num_steps))
    return problem.void(growths)


def _log_frame(matrix: Array, exponent: int) -> tuple[Array, Array]:
    """`log_frame` of 2^exponent · matrix."""
    rows, scale = rescale(matrix, jnp.asarray(exponent, jnp.int32))
    frame, growth = log_frame(rows)
    return frame, growth + scale * math.log(2)


class _Stretch(NamedTuple):
    """Where the sweep stands: before a stretch of steps that it goes through with one QR."""

    burn_in: Int[Array, ""]
    """Steps that come before the first one that counts; a stretch ends there."""
    num_real: Int[Array, ""]

    place: Int[Array, ""]
    length: Int[Array, ""]
    """Steps that the stretch will have."""
    frame: Float[Array, "exponents carry"]
    growths: Float[Array, "steps exponents"]
    """The growth a step so far, with room for one stretch at the end."""


@partial(jax.jit, static_argnums=(0, 1))
def growths_through(
    cell: Cell, plan: Plan, arguments: tuple, swept: Swept
) -> tuple[Swept, Float[Array, "steps exponents"]]:
    """The growths along a part of a sequence, and where that leads."""
    params, inputs, carry, mask = arguments
    with jax.default_matmul_precision("highest"):
        steps = trajectory(cell, params, inputs, carry=carry, mask=mask)
        return growths_by_stretches(Problem(plan, steps), swept)


def growths_by_stretches(
    problem: Problem, swept: Swept
) -> tuple[Swept, Float[Array, "steps exponents"]]:
    """The same with a QR after stretches of steps, each as long as rounding allows."""
    num_steps, like = problem.steps.num_steps, swept.frame
    room = max(problem.plan.qr_every or 1, MOST_STEPS)
    start = _Stretch(
        burn_in=problem.plan.burn_in - swept.place,
        num_real=jnp.minimum(swept.num_real - swept.place, num_steps),
        place=jnp.zeros((), int),
        length=swept.length,
        frame=like,
        growths=jnp.zeros((num_steps + room, len(like)), like.dtype),
    )
    body = partial(_try_stretch, problem, room)
    stretch = jax.lax.while_loop(lambda state: state.place < state.num_real, body, start)
    end = swept._replace(place=swept.place + num_steps, length=stretch.length, frame=stretch.frame)
    return end, problem.void(stretch.growths[:num_steps])


def _try_stretch(problem: Problem, room: int, state: _Stretch) -> _Stretch:
    """Goes through one stretch; stays where it was, with a shorter one, if that lost digits."""
    plan, place = problem.plan, state.place
    stop = jnp.where(place < state.burn_in, state.burn_in, state.num_real)
    stop = jnp.minimum(stop, state.num_real)
    length = jnp.minimum(state.length, stop - place)
    enlarged, shift = with_room(state.frame)
    moved = jax.lax.fori_loop(place, place + length, problem.advance, enlarged)
    frame, growth = _log_frame(moved, -shift)
    # What was cut before this stretch stays cut, however short it is.
    alive = jnp.any(state.frame != 0, axis=1)
    span = jnp.max(growth, initial=0, where=alive) - jnp.min(growth, initial=0, where=alive)
    most = (DIGITS - 1) * math.log(jnp.finfo(growth.dtype).eps)
    if plan.qr_every in (None, 1) and len(growth) > 1:  # one row alone loses no digits to others
        # A loop of at most one turn, which under vmap is skipped where no sequence needs it. The
        # barrier keeps XLA from moving the work out of the loop, where it would always be done.
        frame, growth, _ = jax.lax.while_loop(
            lambda found: found[2],
            lambda found: (
                *problem.graded(place, jax.lax.optimization_barrier((state.frame, found[2]))[0]),
                jnp.zeros((), bool),
            ),
            (frame, growth, (length == 1) & ~(span <= most)),
        )
    rates = jnp.broadcast_to(growth / length, (room, len(growth)))
    growths = jax.lax.dynamic_update_slice(state.growths, rates, (place, 0))
    if plan.qr_every is not None:
        return state._replace(place=place + length, frame=frame, growths=growths)
    good = (span <= most) | (length == 1)
    longer = jnp.where(span * (length + 1) <= most * length, state.length + 1, state.length)
    return state._replace(
        place=jnp.where(good, place + length, place),
        length=jnp.where(good, jnp.minimum(longer, MOST_STEPS), jnp.maximum(length // 2, 1)),
        frame=jnp.where(good, frame, state.frame),
        growths=growths,
    )
