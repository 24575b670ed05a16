"""The iterations of DEER as Gonzalez 2025 counts them."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from gradflow import Cell, Params, unroll

TOLERANCE = 1e-10
"""Of ½ Σ_t ‖s_t - f(s_{t-1})‖² / T, in squared units of the state."""


@partial(jax.jit, static_argnums=(0, 1))
def count_iterations(
    cell: Cell, moves: Callable, params: Params, x: jax.Array, ends: tuple, lengths: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Counts the iterations that DEER needs for each length, and the largest error of its states.

    The count is the authors': the iteration that confirms the solution counts, and no count
    exceeds its length. States that overflow are reset to the guess. One run counts for all
    lengths, because the first states do not depend on the later ones.

    Args:
      cell: The cell.
      moves: (step, s_0 ... s_{T-1}, x, r) -> δ, the solution of δ_t = J_t δ_{t-1} + r_t.
      params: Its parameters.
      x: Its inputs, (T, input).
      ends: s_0, and the guess of s_1 ... s_T.
      lengths: The lengths, ascending, up to T.
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
