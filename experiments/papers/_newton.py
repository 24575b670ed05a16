"""What the papers on DEER share: Newton's method on all steps at once, and how its steps count."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from gradflow import Cell, unroll

if TYPE_CHECKING:
    from gradflow import Params

TOLERANCE = 1e-10
"""Of ½ Σ_t ‖s_t - f(s_{t-1})‖² / T, in squared units of the state."""


def moves_by_scan(step: Callable, old: jax.Array, x: jax.Array, r: jax.Array) -> jax.Array:
    """δ_t = J_t δ_{t-1} + r_t with δ_0 = 0, one step after the other."""

    def advance(move: jax.Array, at: tuple) -> tuple[jax.Array, jax.Array]:
        s, x, r = at
        move = jax.jvp(lambda s: step(s, x), (s,), (move,))[1] + r
        return move, move

    return jax.lax.scan(advance, jnp.zeros_like(r[0]), (old, x, r))[1]


def moves_at_once(step: Callable, old: jax.Array, x: jax.Array, r: jax.Array) -> jax.Array:
    """The same by composing the affine maps (J_t, r_t); for small states."""

    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.sum(a[..., :, :, None] * b[..., None, :, :], axis=-2)

    def compose(earlier: tuple, later: tuple) -> tuple:
        return product(later[0], earlier[0]), product(later[0], earlier[1]) + later[1]

    J = jax.vmap(jax.jacfwd(step))(old, x)
    return jax.lax.associative_scan(compose, (J, r[..., None]))[1][..., 0]


@partial(jax.jit, static_argnums=(0, 1))
def deer(
    cell: Cell, moves: Callable, params: "Params", x: jax.Array, ends: tuple, lengths: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """How many iterations DEER needs for each length, and the largest error of its states.

    As the authors count, the iteration that finds all well is one; and no count is over its
    length. What overflows on the way is put back to the guess. One run counts for all lengths, as
    the first states do not depend on the later ones.

    Args:
      cell: What goes a step.
      moves: `moves_by_scan` or `moves_at_once`.
      params: Its parameters.
      x: Its inputs, (T, input).
      ends: s_0, and the guess of s_1 ... s_T.
      lengths: In rising order, to T.
    """
    s_0, guess = ends

    def step(s: jax.Array, x: jax.Array) -> jax.Array:
        return cell.step(params, s, x)[0]

    def residual(states: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        old = jnp.concatenate([s_0[None], states[:-1]])
        r = jax.vmap(step)(old, x) - states
        merit = 0.5 * jnp.cumsum(jnp.sum(r**2, axis=-1))[lengths - 1] / lengths
        return old, r, jnp.where(jnp.isnan(merit), jnp.inf, merit)

    def iterate(state: tuple) -> tuple:
        states, old, r, merit, above = state
        new = states + moves(step, old, x, r)
        new = jnp.where(jnp.isfinite(new), new, guess)
        return new, *residual(new), above + (merit >= TOLERANCE)

    def going(state: tuple) -> jax.Array:
        return (state[3][-1] >= TOLERANCE) & (state[4][-1] < len(x))

    first = guess, *residual(guess), jnp.zeros(len(lengths), int)
    states, _, _, _, above = jax.lax.while_loop(going, iterate, first)
    path = unroll(cell, params, x, carry=s_0).outputs
    return jnp.minimum(above + 1, lengths), jnp.max(jnp.abs(states - path))
