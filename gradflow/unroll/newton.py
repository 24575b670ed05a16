"""Running a cell over all its steps at once: Newton's method on the whole trajectory (DEER)."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from gradflow.cell import Carry, Cell, Params
from gradflow.unroll.inputs import check_inputs, check_step, start

States = Float[Array, "steps carry"]
"""s_1 ... s_T, each as one vector."""


class Solution(NamedTuple):
    """A trajectory that was found as the solution of T equations.

    Attributes:
      carries: As `gradflow.unroll.unroll` gives them: ``carries[t]`` is s_t for t = 0 ... T.
      iterations: Newton steps that moved a state by more than the tolerance. (One more confirms
        the solution and is not counted.)
      error: The largest error of a state that is left to be expected, in units of the carry: the
        last move, or what rounding alone does to a state, whichever is larger.
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
    """The trajectory s_t = step(params, s_{t-1}, x_t) of all t at once, by Newton's method.

    From a guess s_1 ... s_T, at first all zero, with r_t = step(s_{t-1}, x_t) - s_t and J_t taken
    at the guess, the move δ solves the equations linearised there::

        δ_t = J_t δ_{t-1} + r_t        δ_0 = 0        s_t ← s_t + δ_t

    by an associative scan over the affine maps (J_t, r_t), whose depth is log T. One iteration
    takes O(T n³) products and O(T n²) memory for a carry of n numbers, against O(T n²) and O(T n)
    of the plain scan: it pays where T is long, n small, and the machine wide.

    In exact arithmetic i iterations set the first i states right, so that T are always enough. A
    net whose largest Lyapunov exponent is below zero takes a few, whatever T is. Where it is
    above zero it takes about T, and the states found are not those of the scan: rounding grows
    as exp(exponent · t). So the residual, which can be tiny on a wrong path, is not asked; what
    counts is the last move, and where noise of the size of rounding, sent through the same
    equations, leads. What overflows on the way is put back to zero.

    First derivatives of the carries are those of the exact solution: they come from one more
    Newton step, linear in r. Second derivatives are not offered.

    Args:
      cell: The cell.
      params: Its parameters.
      inputs: x_1 ... x_T of one sequence; `jax.vmap` over more.
      tolerance: The error of a state at which it ends, in units of the carry.
      max_iterations: How many Newton steps to make at most, the confirming one not counted.
      carry: s_0; by default the cell's own.

    Returns:
      The trajectory and whether it can be trusted: see ``converged`` before you use it.

    Raises:
      ValueError: If the inputs are not one sequence of a step or more, max_iterations is below 1,
        or the tolerance is not a number above the rounding of the carry's precision.

    Source: Lim, Zhu, Selfridge, Kasim 2023, arXiv:2309.12252; Gonzalez et al. 2025, "Predictability
    enables parallelization of nonlinear state space models" (the exponent).
    """
    inputs = check_inputs(inputs)
    if inputs.ndim != 2 or not len(inputs):
        raise ValueError(
            "one sequence of inputs, of shape (T, input) with T of at least 1, is expected, got "
            f"shape {inputs.shape}; for a batch, jax.vmap over its axis"
        )
    s_0 = start(cell, params, inputs, carry)
    check_step(cell, params, s_0, inputs, batched=False)
    _check(tolerance, max_iterations, jnp.result_type(*jax.tree.leaves(s_0)))
    return _solve(cell, max_iterations, jnp.asarray(tolerance), (params, inputs, s_0))


def _check(tolerance: float, max_iterations: int, dtype: jnp.dtype) -> None:
    if max_iterations < 1:
        raise ValueError(f"max_iterations of at least 1 is expected, got {max_iterations}; try 100")
    least = 10 * float(jnp.finfo(dtype).eps)
    if not least <= tolerance < float("inf"):
        raise ValueError(
            f"a tolerance of at least {least:.0e}, ten times the rounding of {dtype}, is "
            f"expected, got {tolerance}; raise it, or run in float64"
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
        # Of this last step r alone has a derivative: that of the solution, through (I - J)⁻¹.
        new = jax.vmap(step, (None, 0, 0))(params, _before(first, states), inputs)
        moved = states + _solve_linear(jacobians, (new - states)[..., None])[..., 0]
    moved = jnp.where(jnp.isfinite(moved), moved, states)
    carries = jax.vmap(unravel)(jnp.concatenate([first[None], moved]))
    converged = error <= tolerance
    return Solution(carries, jnp.minimum(iterations, max_iterations), error, converged)


def _iterate(step, fixed: tuple, max_iterations: int, tolerance: Array) -> tuple:
    """The states, how many steps moved them, and the error that is left."""
    params, inputs, first = fixed
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
        moves = _solve_linear(_jacobians(step, params, before, inputs), sides)
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
    """J_1 ... J_T at the states that the steps start from."""
    return jax.vmap(jax.jacfwd(step, argnums=1), (None, 0, 0))(params, before, inputs)


def _solve_linear(
    jacobians: Float[Array, "steps carry carry"], sides: Float[Array, "steps carry n"]
) -> Float[Array, "steps carry n"]:
    """The δ_t = J_t δ_{t-1} + r_t of all t, with δ_0 = 0, for n right sides r at once."""

    def compose(earlier: tuple, later: tuple) -> tuple:
        return later[0] @ earlier[0], later[0] @ earlier[1] + later[1]

    return jax.lax.associative_scan(compose, (jacobians, sides))[1]
