"""The size of ∂h_t/∂h_k for every pair of a later step t and an earlier step k."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.broken import broken_pairs, void
from gradflow.flow.norms import check_norm
from gradflow.flow.steps import Rows, pull_rows, rescale, unit_rows
from gradflow.flow.sweep import Norm, Problem, measure_plainly, prepare
from gradflow.flow.tiles import log_norms_by_tiles
from gradflow.unroll import Lengths, Mask, check_inputs, valid_steps

MOST_STEPS = 30_000
"""Steps whose map, 7 GiB, still fits into the memory of a small machine, with its copies."""

_Products = tuple[Rows, Int[Array, " later"]]
"""One product for each t, and its exponent."""


def log_norm_map(
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
) -> Float[Array, "later earlier"]:
    """The natural logarithm of ‖∂target_t/∂source_k‖ for every pair 0 ≤ k ≤ t ≤ T.

    Row t is what `log_norms` gives of the first t steps, read from lag t down to lag 0::

        ∂target_t/∂source_k = S_target · J_t J_{t-1} ... J_{k+1} · S_sourceᵀ

    The pairs are gone through in tiles of neighbouring t and k. With m between them, P(t, k) =
    P(t, m) P(m, k), so that a tile is known by one matrix for each t and one for each k, and no
    more than a tile's is ever in memory. Spectral norms are found by Lanczos steps for all pairs
    of a tile together, most of whose products are never formed, to within 1e-6 nats. To
    differentiate through it is to differentiate the plain form of the same computation, with a
    decomposition for every pair.

    Args:
      cell: The cell.
      params: Its parameters.
      inputs: x_1 ... x_T of one sequence; `jax.vmap` over more.
      norm: ``"spectral"``, the largest singular value, or ``"frobenius"``.
      source: The block of s_k: ``"h"``, ``"carry"`` or a field such as ``"c"``; the rest of s_k is
        held fixed.
      target: The block of s_t.
      carry: s_0; by default the cell's own.
      lengths: The number of real steps. A padded step copies the carry.
      mask: True where a step is real.

    Returns:
      Log norms, dimensionless, in nats, index = [t, k]; NaN above the diagonal, where k > t.
      Exactly -inf where the block is exactly zero; NaN where a NaN of the trajectory enters.

    Raises:
      ValueError: For an unknown norm or block, inputs that are not one sequence, or more than
        30,000 steps.

    Source: Bengio, Simard, Frasconi 1994, doi:10.1109/72.279181 (∂h_t/∂h_k as a product).
    """
    check_norm(norm)
    _check_size(len(inputs))
    mask = valid_steps(check_inputs(inputs), lengths, mask)
    return _log_norm_map(cell, (norm, source, target), (params, inputs, carry, mask))


def _check_size(num_steps: int) -> None:
    if num_steps > MOST_STEPS:
        gigabytes = 8 * (num_steps + 1) ** 2 / 2**30
        raise ValueError(
            f"at most {MOST_STEPS} steps are expected, got {num_steps}: a map of every pair has "
            f"{gigabytes:.0f} GiB; map a part of the sequence, or measure log_norms of inputs[:t] "
            "for a few t"
        )


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
@partial(jax.jit, static_argnums=(0, 1))
def _log_norm_map(cell: Cell, kind: tuple[Norm, str, str], arguments: tuple) -> Array:
    return _every_pair(cell, kind, arguments, plain=False)


@_log_norm_map.defjvp
def _(cell: Cell, kind: tuple[Norm, str, str], primals: tuple, tangents: tuple) -> tuple:
    return jax.jvp(partial(_every_pair, cell, kind, plain=True), primals, tangents)


def _every_pair(
    cell: Cell, kind: tuple[Norm, str, str], arguments: tuple, *, plain: bool
) -> Float[Array, "later earlier"]:
    with jax.default_matmul_precision("highest"):
        problem = prepare(cell, kind, arguments)
        norms = _by_steps(problem) if plain else log_norms_by_tiles(problem)
        past = jnp.tri(len(norms), dtype=bool)
        return void(~past | broken_pairs(problem.steps), norms)


def _by_steps(problem: Problem) -> Float[Array, "later earlier"]:
    """The same by a decomposition for every pair: slower, and reverse mode goes through.

    The products of all t are pulled back together, each from its own step on.
    """
    count = problem.steps.num_steps + 1
    unit = unit_rows(problem.steps, problem.target)
    times = jnp.arange(count)

    def measure(state: _Products) -> Float[Array, " later"]:
        return jax.vmap(partial(measure_plainly, problem))(*state)

    def back(state: _Products, k: Array) -> tuple[_Products, Array]:
        pulled = jax.vmap(partial(pull_rows, problem.steps, k))(state[0])
        moved = jax.vmap(rescale)(pulled, state[1])
        state = jax.tree.map(
            lambda new, old: jax.vmap(jnp.where)(times > k, new, old), moved, state
        )
        return state, measure(state)

    first = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)),
        (unit, jnp.zeros((), jnp.int32)),
    )
    _, norms = jax.lax.scan(back, first, times[:-1], reverse=True)
    return jnp.concatenate([norms, measure(first)[None]]).T
