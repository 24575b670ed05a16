"""Linear recurrences δ_t = J_t δ_{t-1} + r_t, solved for all t at once or step by step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def affine_scan(
    jacobians: Float[Array, "steps n n *blocks"],
    sides: Float[Array, "steps n m *blocks"],
    *,
    product: Callable[[Array, Array], Array] = jnp.matmul,
    reverse: bool = False,
) -> Float[Array, "steps n m *blocks"]:
    """Solves δ_t = J_t δ_{t-1} + r_t with δ_0 = 0 in parallel over t, for m right sides at once.

    An associative scan composes the affine maps (J_t, r_t). Its depth is log T; it needs O(T n³)
    operations and O(T n²) memory.

    Args:
      jacobians: J_1 ... J_T.
      sides: r_1 ... r_T, each with m columns.
      product: Multiplies two stacks of matrices; `by_entries` where each is one of many blocks.
      reverse: Solves δ_t = J_t δ_{t+1} + r_t with δ_{T+1} = 0 instead.
    """

    def compose(earlier: tuple, later: tuple) -> tuple:
        return product(later[0], earlier[0]), product(later[0], earlier[1]) + later[1]

    return jax.lax.associative_scan(compose, (jacobians, sides), reverse=reverse)[1]


def by_entries(
    a: Float[Array, "steps n k *blocks"], b: Float[Array, "steps k m *blocks"]
) -> Float[Array, "steps n m *blocks"]:
    """Multiplies matrices of a few rows entry by entry, vectorised over the steps or the blocks."""
    return jnp.sum(a[:, :, :, None] * b[:, None], axis=2)


def linearised_scan(
    step: Callable[[Array, Array], Array],
    states: Float[Array, "steps n"],
    inputs: Float[Array, "steps input"],
    sides: Float[Array, "steps n"],
) -> Float[Array, "steps n"]:
    """Solves δ_t = J_t δ_{t-1} + r_t with δ_0 = 0 step by step, with J_t the Jacobian of a step.

    Each step is one product of J_t with a vector (forward mode), without J_t itself: O(T n²)
    operations and O(T n) memory, which suits large n.

    Args:
      step: (s, x) -> the next state.
      states: s_0 ... s_{T-1}, at which the steps are linearised.
      inputs: x_1 ... x_T.
      sides: r_1 ... r_T.
    """

    def advance(move: Array, at: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        s, x, r = at
        move = jax.jvp(lambda s: step(s, x), (s,), (move,))[1] + r
        return move, move

    return jax.lax.scan(advance, jnp.zeros_like(sides[0]), (states, inputs, sides))[1]
