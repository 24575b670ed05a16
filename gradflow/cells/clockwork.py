"""The clockwork RNN: modules of units, each of which moves only at the ticks of its own clock."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params
from gradflow.cells.checks import check_sizes
from gradflow.cells.parts import affine, init_gates
from gradflow.initializers import InitSpec


class ClockworkCarry(NamedTuple):
    """The units h, and the phase of each module's clock: t mod its period."""

    h: Float[Array, " hidden"]
    phase: Float[Array, " modules"]


def clockwork(
    input_size: int,
    hidden_size: int,
    *,
    periods: Sequence[int] = (1, 2, 4, 8),
    recurrent_init: InitSpec = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """The clockwork RNN, whose module m moves when t is a multiple of its period.

    ::

        phase_t = (phase_{t-1} + 1) mod period
        h_t     = tanh(W_x x_t + (M ∘ W_h) h_{t-1} + b)    in modules with phase_t = 0
        h_t     = h_{t-1}                                  in the others

    with M_ij = 1 where unit j's period is at least unit i's, else 0: the slow drive the fast,
    never the other way. What M hides of W_h starts at zero and has no gradient. The units are
    shared out to the modules evenly, the first modules having one more where that fails.

    Time is in the carry as a phase for each module, not as a counter: it stays a small integer,
    exact in any float type however long the run. Phases are rounded before use, so that they are
    step functions, and their rows and columns of the step Jacobian are truly zero: norms of any
    block are those of h alone, while the phases add log singular values and Lyapunov exponents
    of -inf to those of the whole carry.

    Args:
      periods: Of each module, in steps. The paper takes powers of 2, as here, from 1 on.
      recurrent_init: Of W_h, before the mask. Being masked, it is not orthogonal any more.
      input_init: Of W_x; b starts at zero.

    Raises:
      TypeError: If a period is not an integer.
      ValueError: If there is no period, one is not positive, or there are more modules than
        units.

    Source: Koutník, Greff, Gomez, Schmidhuber 2014, arXiv:1402.3511.
    """
    check_sizes(input_size, hidden_size)
    _check_periods(periods, hidden_size)
    num_modules = len(periods)
    module = np.sort(np.arange(hidden_size) % num_modules)  # of each unit
    unit_period = np.asarray(periods)[module]
    mask = unit_period[:, None] <= unit_period[None, :]
    init_affine = init_gates(
        ["rnn"], input_size, hidden_size, recurrent_init=recurrent_init, input_init=input_init
    )

    def masked(params: Params) -> Params:
        return params | {"W_h": jnp.where(mask, params["W_h"], 0)}

    def init(key: Key) -> Params:
        return masked(init_affine(key)["rnn"])

    def step(params: Params, carry: ClockworkCarry, x: Array) -> tuple[ClockworkCarry, Array]:
        phase = (jnp.round(carry.phase) + 1) % jnp.asarray(periods, carry.phase.dtype)
        moved = jnp.tanh(affine(masked(params), carry.h, x))
        h = jnp.where((phase == 0)[module], moved, carry.h)
        return ClockworkCarry(h, phase), h

    return Cell(
        init=init,
        step=step,
        initial_carry=lambda: ClockworkCarry(jnp.zeros(hidden_size), jnp.zeros(num_modules)),
        hidden=lambda carry: carry.h,
    )


def _check_periods(periods: Sequence[int], hidden_size: int) -> None:
    for period in periods:
        if isinstance(period, bool) or not isinstance(period, int):
            raise TypeError(f"periods are expected to be integers, got {period!r} in {periods!r}")
    if not periods or min(periods) < 1:
        raise ValueError(
            f"periods of at least 1 step are expected, got {periods!r}: the paper takes powers "
            "of 2, as in (1, 2, 4, 8)"
        )
    if len(periods) > hidden_size:
        raise ValueError(
            f"a unit for each of the {len(periods)} modules is expected, got "
            f"hidden_size={hidden_size}: give fewer periods than {periods!r}, or more units"
        )
