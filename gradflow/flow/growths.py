"""The growth of a frame of directions along a trajectory, by QR after one step or several."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradflow.flow.qr import carry_rows, flat_rows, log_frame
from gradflow.flow.steps import Steps, pull_rows, push_columns

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


class Problem(NamedTuple):
    """A trajectory, and the frame whose growth along it is measured."""

    plan: Plan
    steps: Steps
    frame: Float[Array, "exponents carry"]
    """The frame at the start."""
    num_steps: int
    """How many steps are gone through, those of the burn-in that come first included."""
    num_real: Int[Array, ""] | int
    """How many of them come before padding."""

    def advance(self, place: Int[Array, ""], frame: Array) -> Array:
        """One step on, or back; the places are counted from 0 in the order gone through."""
        rows = carry_rows(self.steps, frame)
        if not self.plan.time_reversed:
            return flat_rows(push_columns(self.steps, place, rows))
        last = self.num_steps + self.plan.burn_in - 1
        return flat_rows(pull_rows(self.steps, last - place, rows))


def growths_by_steps(problem: Problem) -> Float[Array, "counted exponents"]:
    """The growth of each direction at every counted step, by a QR at every step."""

    def step(frame: Array, place: Array) -> tuple[Array, Array]:
        return log_frame(problem.advance(place, frame))

    _, growths = jax.lax.scan(step, problem.frame, jnp.arange(problem.num_steps))
    return growths[problem.plan.burn_in :]


class _Stretch(NamedTuple):
    """Where the sweep stands: before a stretch of steps that it goes through with one QR."""

    place: Int[Array, ""]
    length: Int[Array, ""]
    """Steps that the stretch will have."""
    frame: Float[Array, "exponents carry"]
    growths: Float[Array, "steps exponents"]
    """The growth a step so far, with room for one stretch at the end."""


def growths_by_stretches(problem: Problem) -> Float[Array, "counted exponents"]:
    """The same with a QR after stretches of steps, each as long as rounding allows."""
    plan, num_steps = problem.plan, problem.num_steps
    length = plan.qr_every or 1
    room = max(length, MOST_STEPS)
    like = problem.frame
    start = _Stretch(
        place=jnp.zeros((), int),
        length=jnp.asarray(length, int),
        frame=like,
        growths=jnp.zeros((num_steps + room, len(like)), like.dtype),
    )
    body = partial(_try_stretch, problem, room)
    stretch = jax.lax.while_loop(lambda state: state.place < problem.num_real, body, start)
    return stretch.growths[plan.burn_in : num_steps]


def _try_stretch(problem: Problem, room: int, state: _Stretch) -> _Stretch:
    """Goes through one stretch; stays where it was, with a shorter one, if that lost digits."""
    plan, place = problem.plan, state.place
    stop = jnp.where(place < plan.burn_in, plan.burn_in, problem.num_real)
    length = jnp.minimum(state.length, stop - place)
    moved = jax.lax.fori_loop(place, place + length, problem.advance, state.frame)
    frame, growth = log_frame(moved)
    rates = jnp.broadcast_to(growth / length, (room, len(growth)))
    growths = jax.lax.dynamic_update_slice(state.growths, rates, (place, 0))
    if plan.qr_every is not None:
        return _Stretch(place + length, state.length, frame, growths)
    # What was cut before this stretch stays cut, however short it is.
    alive = jnp.any(state.frame != 0, axis=1)
    span = jnp.max(growth, initial=0, where=alive) - jnp.min(growth, initial=0, where=alive)
    most = (DIGITS - 1) * math.log(jnp.finfo(growth.dtype).eps)
    good = (span <= most) | (length == 1)
    longer = jnp.where(span * (length + 1) <= most * length, state.length + 1, state.length)
    return _Stretch(
        place=jnp.where(good, place + length, place),
        length=jnp.where(good, jnp.minimum(longer, MOST_STEPS), jnp.maximum(length // 2, 1)),
        frame=jnp.where(good, frame, state.frame),
        growths=growths,
    )
