"""The size of ∂h_T/∂h_k at every lag T - k, and of any other block of the carry."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.broken import broken_lags, void
from gradflow.flow.spectral import start_vectors
from gradflow.flow.steps import Rows, pull_rows, rescale, unit_rows
from gradflow.flow.sweep import Norm, Problem, measure, measure_plainly, prepare, sweep_back
from gradflow.unroll import Lengths, Mask, check_inputs, valid_steps


def log_norms(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    norm: Norm = "spectral",
    source: str = "h",
    target: str = "h",
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> Float[Array, " lags"]:
    """The natural logarithm of ‖∂target_T/∂source_k‖ for every lag T - k = 0 ... T.

    The block is cut out of the product of the step Jacobians on the whole carry::

        ∂target_T/∂source_k = S_target · J_T J_{T-1} ... J_{k+1} · S_sourceᵀ

    (The product of the blocks is something else: the path through the rest of the carry is
    not in it.) The rows are pulled back through the steps and rescaled at each, so that nothing
    under- or overflows at any lag. To differentiate through it is to differentiate the
    plain form of the same computation.

    Args:
      cell: The cell.
      params: Its parameters.
      inputs: x_1 ... x_T of one sequence; `jax.vmap` over more.
      norm: ``"spectral"``, the largest singular value, or ``"frobenius"``.
      source: The block of s_k: ``"h"``, ``"carry"`` or a field such as ``"c"``; the rest of s_k is
        held fixed.
      target: The block of s_T.
      carry: s_0; by default the cell's own.
      lengths: The number of real steps. A padded step copies the carry.
      mask: True where a step is real.

    Returns:
      Log norms, dimensionless, in nats, index = lag. Exactly -inf where the block is exactly
      zero; NaN from the lag at which a NaN or an infinity of the trajectory enters.

    Raises:
      ValueError: For an unknown norm or block, or inputs that are not one sequence.
    """
    check_norm(norm)
    mask = valid_steps(check_inputs(inputs), lengths, mask)
    return _log_norms(cell, (norm, source, target), (params, inputs, carry, mask))


def check_norm(norm: str) -> None:
    """Checks the name of a norm.

    Raises:
      ValueError: If there is none of that name.
    """
    if norm not in ("spectral", "frobenius"):
        raise ValueError(f"norm is expected to be 'spectral' or 'frobenius', got {norm!r}")


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
@partial(jax.jit, static_argnums=(0, 1))
def _log_norms(cell: Cell, kind: tuple[Norm, str, str], arguments: tuple) -> Array:
    with jax.default_matmul_precision("highest"):
        problem = prepare(cell, kind, arguments)
        return void(broken_lags(problem.steps), sweep_back(problem))


@_log_norms.defjvp
def _(cell: Cell, kind: tuple[Norm, str, str], primals: tuple, tangents: tuple) -> tuple:
    def plain(arguments: tuple) -> Array:
        with jax.default_matmul_precision("highest"):
            return _plain(prepare(cell, kind, arguments))

    return jax.jvp(plain, primals, tangents)


def _plain(problem: Problem) -> Float[Array, " lags"]:
    """The same by a scan and a decomposition a step: slower, and reverse mode goes through."""

    def back(state: tuple[Rows, Array], index: Array) -> tuple[tuple[Rows, Array], Array]:
        rows, exponent = rescale(pull_rows(problem.steps, index, state[0]), state[1])
        return (rows, exponent), measure_plainly(problem, rows, exponent)

    first = unit_rows(problem.steps, problem.target), jnp.zeros((), jnp.int32)
    _, log_norms = jax.lax.scan(back, first, jnp.arange(problem.steps.num_steps)[::-1])
    log_norms = jnp.concatenate([measure_plainly(problem, *first)[None], log_norms])
    return void(broken_lags(problem.steps), log_norms)


Products = tuple[Rows, Int[Array, ""], Float[Array, "rows block"]]
"""The rows of the product so far, their exponent, and where its norm is looked for next."""


@partial(jax.jit, static_argnums=(0, 1))
def norms_through(
    cell: Cell,
    kind: tuple[Norm, str, str],
    arguments: tuple,
    products: Products | None = None,
) -> tuple[Products, Float[Array, " lags"]]:
    """Back through a part of a sequence, all rows at every step.

    Args:
      cell: The cell.
      kind: The norm, the source and the target.
      arguments: The parameters, the inputs, s_0 or None, and the mask of real steps or None.
      products: Where the sweep has come to in the steps after these; by default there are none, and
        the norms start at lag 0.
    """

    def measured(rows: Rows, exponent: Array, vectors: Array) -> tuple[Products, Array]:
        log_norm, vectors = measure(problem, rows, exponent, vectors)
        return (rows, exponent, vectors), log_norm

    def back(products: Products, index: Array) -> tuple[Products, Array]:
        rows, exponent, vectors = products
        rows, exponent = rescale(pull_rows(problem.steps, index, rows), exponent)
        return measured(rows, exponent, vectors)

    with jax.default_matmul_precision("highest"):
        problem = prepare(cell, kind, arguments)
        at_0, before = [], products
        if before is None:
            rows = unit_rows(problem.steps, problem.target)
            like = jax.tree.leaves(rows)[0]
            vectors = start_vectors(len(like), like.dtype)
            before, first = measured(rows, jnp.zeros((), jnp.int32), vectors)
            at_0 = [first[None]]
        order = jnp.arange(problem.steps.num_steps)[::-1]
        products, log_norms = jax.lax.scan(back, before, order)
        log_norms = jnp.concatenate([*at_0, log_norms])
        return products, void(broken_lags(problem.steps)[-len(log_norms) :], log_norms)
