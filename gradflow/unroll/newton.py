"""The trajectory of a cell by Newton's method on all steps at once (DEER)."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from gradflow.cell import Carry, Cell, Params
from gradflow.unroll.affine import affine_scan
from gradflow.unroll.fit import check_step
from gradflow.unroll.inputs import check_inputs, start

States = Float[Array, "steps carry"]
"""s_1 ... s_T, each as one vector."""


class Solution(NamedTuple):
    """A trajectory found as the solution of T equations.

    Attributes:
      carries: As in `gradflow.Trajectory`: ``carries[t]`` is s_t for t = 0 ... T.
      iterations: Newton steps that moved a state by more than the tolerance. (One more confirms
        the solution and is not counted.)
      error: An estimate of the largest error of a state, in units of the carry: the last move, or
        the effect of rounding errors, whichever is larger.
      converged: Whether that error is within the tolerance.
    """

    carries: PyTree[Float[Array, "steps_and_one ..."]]
    iterations: Int[Array, ""]
    error: Float[Array, ""]
    converged: Bool[Array, ""]


def solve_in_parallel(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    tolerance: float,
    max_iterations: int,
    carry: Carry | None = None,
) -> Solution:
    """Computes the trajectory s_t = step(params, s_{t-1}, x_t) for all t at once.

    Newton's method starts from the guess s_1 = ... = s_T = 0. With r_t = step(s_{t-1}, x_t) - s_t
    and J_t computed at the guess, the move δ solves the linearised equations::

        δ_t = J_t δ_{t-1} + r_t        δ_0 = 0        s_t ← s_t + δ_t

    by an associative scan over the affine maps (J_t, r_t), whose depth is log T. One iteration
    takes O(T n³) products and O(T n²) memory for a carry of n numbers, against O(T n²) and O(T n)
    of the plain scan: it pays where T is long, n small, and the machine wide.

    In exact arithmetic, i iterations make the first i states exact, so that T always suffice. A
    network whose largest Lyapunov exponent is negative needs a few, for any T. If the exponent is
    positive, it needs about T, and the states differ from those of the scan, because rounding
    errors grow as exp(exponent · t). The residual can be tiny on such a wrong trajectory, so it
    does not decide on convergence. Instead the error is estimated by the last move, and by the
    propagation of noise of the size of rounding errors through the same equations. States that
    overflow are reset to zero.

    First derivatives of the carries are those of the exact solution: they come from one more
    Newton step, linear in r. Second derivatives are not supported.

    Args:
      cell: The cell.
      params: Its parameters.
      inputs: x_1 ... x_T of one sequence; `jax.vmap` over more.
      tolerance: The error of a state at which the iteration ends, in units of the carry.
      max_iterations: The largest number of Newton steps, not counting the confirming one.
      carry: s_0; by default the cell's own.

    Returns:
      The trajectory, and whether it can be trusted: check ``converged`` before using it.

    Raises:
      ValueError: If the inputs are not one sequence of a step or more, max_iterations is below 1,
        or the tolerance is not a number above the rounding of the carry's precision.

    Source: Lim, Zhu, Selfridge, Kasim 2023, arXiv:2309.12252; Gonzalez et al. 2025, "Predictability
    enables parallelization of nonlinear state space models" (the exponent).
    """
    inputs = check_inputs(inputs)
    if inputs.ndim != 2 or not len(inputs):
        raise ValueError(
            "Expected one sequence of inputs, of shape (T, input) with T of at least 1, got shape "
            f"{inputs.shape}. For a batch, use jax.vmap over its axis."
        )
    s_0 = start(cell, params, inputs, carry)
    check_step(cell, params, s_0, inputs, batched=False)
    _check(tolerance, max_iterations, jnp.result_type(*jax.tree.leaves(s_0)))
    return _solve(cell, max_iterations, jnp.asarray(tolerance), (params, inputs, s_0))


def _check(tolerance: float, max_iterations: int, dtype: jnp.dtype) -> None:
    if max_iterations < 1:
        raise ValueError(f"Expected max_iterations of at least 1, got {max_iterations}. Try 100.")
    least = 10 * float(jnp.finfo(dtype).eps)
    if not least <= tolerance < float("inf"):
        raise ValueError(
            f"Expected a tolerance of at least {least:.0e}, ten times the rounding error of "
            f"{dtype}, got {tolerance}. Increase it, or run in float64."
        )


@partial(jax.jit, static_argnums=(0, 1))
def _solve(cell: Cell, max_iterations: int, tolerance: Array, arguments: tuple) -> Solution:
    params, inputs, s_0 = arguments
    first, unravel = ravel_pytree(s_0)

    def step(params: Params, s: Array, x: Array) -> Array:
        return ravel_pytree(cell.step(params, unravel(s), x)[0])[0]

    with jax.default_matmul_precision("highest"):
        fixed = jax.lax.stop_gradient((params, inputs, first))
        states, iterations, error = _iterate(step, fixed, max_iterations, tolerance)
        before = _before(fixed[2], states)
        jacobians = _jacobians(step, fixed[0], before, fixed[1])
        # Only r has a derivative in this last step; it gives that of the solution, (I - J)⁻¹ dr.
        new = jax.vmap(step, (None, 0, 0))(params, _before(first, states), inputs)
        moved = states + affine_scan(jacobians, (new - states)[..., None])[..., 0]
    moved = jnp.where(jnp.isfinite(moved), moved, states)
    carries = jax.vmap(unravel)(jnp.concatenate([first[None], moved]))
    converged = error <= tolerance
    return Solution(carries, jnp.minimum(iterations, max_iterations), error, converged)


def _iterate(step, fixed: tuple, max_iterations: int, tolerance: Array) -> tuple:
    """The states, the number of steps that moved them, and the estimated error."""
    params, inputs, first = fixed
    # Random signs: rounding errors of one sign could cancel on the way.
    noise = jax.random.rademacher(jax.random.key(0), (len(inputs), first.size), first.dtype)
    eps = jnp.finfo(first.dtype).eps

    def going_on(state: tuple) -> Bool[Array, ""]:
        _, iterations, error = state
        return ~(error <= tolerance) & (iterations <= max_iterations)

    def newton(state: tuple) -> tuple:
        states, iterations, _ = state
        before = _before(first, states)
        new = jax.vmap(step, (None, 0, 0))(params, before, inputs)
        rounding = eps * jnp.maximum(jnp.abs(new), eps) * noise
        sides = jnp.stack([new - states, rounding], axis=-1)
        moves = affine_scan(_jacobians(step, params, before, inputs), sides)
        error = jnp.max(jnp.where(jnp.isfinite(moves), jnp.abs(moves), jnp.inf))
        states = states + moves[..., 0]
        states = jnp.where(jnp.isfinite(states), states, 0)
        return states, iterations + ~(error <= tolerance), error

    guess = jnp.zeros((len(inputs), first.size), first.dtype)
    return jax.lax.while_loop(going_on, newton, (guess, 0, jnp.asarray(jnp.inf, first.dtype)))


def _before(first: Float[Array, " carry"], states: States) -> States:
    """s_0 ... s_{T-1}."""
    return jnp.concatenate([first[None], states[:-1]])


def _jacobians(step, params: Params, before: States, inputs: Array) -> Array:
    """J_1 ... J_T at the states from which the steps start."""
    return jax.vmap(jax.jacfwd(step, argnums=1), (None, 0, 0))(params, before, inputs)
