"""The clockwork RNN: modules of units that are updated at different periods."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params
from gradflow.cells.parts import affine, init_gates
from gradflow.checks import check_integer, check_sizes
from gradflow.initializers import InitSpec


class ClockworkCarry(NamedTuple):
    """The hidden state h, and the phase of each module: t mod its period."""

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
    """A clockwork RNN: a module of units is updated when t is a multiple of its period.

    ::

        phase_t = (phase_{t-1} + 1) mod period
        h_t     = tanh(W_x x_t + (M ∘ W_h) h_{t-1} + b)    in modules with phase_t = 0
        h_t     = h_{t-1}                                  in the others

    with M_ij = 1 where unit j's period is at least unit i's, else 0: slow modules drive fast ones,
    never the reverse. The entries of W_h that M masks are initialised at zero and have no
    gradient. Modules have equal sizes; if hidden_size is not a multiple of their number, the first
    modules have one unit more. No library among Flax, PyTorch and Keras has this cell.

    The carry holds a phase for each module, not a time counter: a phase is a small integer, which
    every float type represents exactly, however long the run. Phases are rounded before use. They
    are therefore step functions, and their rows and columns of the step Jacobian are exactly
    zero: the norms of any block are those of h alone, and the phases add log singular values and
    Lyapunov exponents of -inf to those of the whole carry.

    Args:
      periods: Period of each module, in steps. The paper uses powers of 2 starting at 1.
      recurrent_init: Initialiser of W_h before masking. The masked matrix is not orthogonal.
      input_init: Initialiser of W_x; b is initialised at zero.

    Raises:
      TypeError: If the periods are not a tuple or a list, or a period is not an integer.
      ValueError: If there is no period, a period is not positive, or there are more modules
        than units.

    Source: Koutník, Greff, Gomez, Schmidhuber 2014, arXiv:1402.3511.
    """
    check_sizes(input_size, hidden_size)
    _check_periods(periods, hidden_size)
    num_modules = len(periods)
    module = np.sort(np.arange(hidden_size) % num_modules)  # the module of each unit
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
        # Rounding has derivative zero, which keeps the phases out of every gradient.
        phase = (jnp.round(carry.phase) + 1) % jnp.asarray(periods, carry.phase.dtype)
        updated = jnp.tanh(affine(masked(params), carry.h, x))
        h = jnp.where((phase == 0)[module], updated, carry.h)
        return ClockworkCarry(h, phase), h

    return Cell(
        init=init,
        step=step,
        initial_carry=lambda: ClockworkCarry(jnp.zeros(hidden_size), jnp.zeros(num_modules)),
        hidden=lambda carry: carry.h,
    )


def _check_periods(periods: Sequence[int], hidden_size: int) -> None:
    if not isinstance(periods, tuple | list):
        raise TypeError(f"Expected periods to be a tuple, got {periods!r}. Write (1, 2, 4, 8).")
    if not periods:
        raise ValueError("Expected at least one period, got (). Set periods to (1, 2, 4, 8).")
    for period in periods:
        check_integer("every period", period, 1)
    if len(periods) > hidden_size:
        raise ValueError(
            f"Expected at least one unit for each of the {len(periods)} modules, got "
            f"hidden_size={hidden_size}. Set hidden_size to at least {len(periods)} or remove "
            "periods."
        )
