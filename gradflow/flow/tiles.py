"""The norms of ∂target_t/∂source_k for every pair, a tile of neighbouring t and k at a time.

With m a step between them, P(t, k) = P(t, m) P(m, k), so that a tile of b² pairs is known by 2 b
matrices, and a vector for each pair goes through all of its products in a few large ones. Most
of the products are never formed.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gradflow.cell import whole_carry
from gradflow.flow.lanczos import Matrices, log_spectral_norms
from gradflow.flow.qr import flat_rows
from gradflow.flow.runs import over_runs
from gradflow.flow.steps import Rows, log_scaled, pull_rows, rescale, unit_rows
from gradflow.flow.sweep import Problem

FEWEST, MOST = 8, 32
"""Steps along the side of a tile: with few, more is pulled back to their borders; with many, more
pairs lie in tiles on the diagonal, whose products are formed."""

MOST_ENTRIES = 2**15
"""Entries of one vector over the carry for each pair of a tile: 256 KiB, which the cache holds."""

_Side = tuple[Float[Array, "_ _ _"], Int[Array, " _"]]
"""For each step along a side of a tile a matrix with entries near 1, and its exponent."""


def log_norms_by_tiles(problem: Problem) -> Float[Array, "later earlier"]:
    """Log norms for every pair, as [t, k]; what stands above the diagonal means nothing.

    On a CPU the rows of tiles are shared out to all devices.
    """
    count = problem.steps.num_steps + 1
    side = _side(problem, count)
    num_blocks = -(-count // side)
    dtype = jnp.result_type(*jax.tree.leaves(problem.steps.last))

    def row_of_tiles(block: Array) -> Float[Array, "later earlier"]:
        start = block * side
        norms, later = _diagonal_tile(problem, side, start)
        row = jnp.full((side, num_blocks * side), jnp.nan, dtype)
        row = jax.lax.dynamic_update_slice(row, norms, (0, start))

        def tile(number: Array, state: tuple[tuple[Rows, Array], Array]) -> tuple:
            border, row = state
            stop = start - number * side
            border, earlier = _pull_through(problem, side, stop, border)
            norms = _norms_of_products(problem, later, earlier)
            return border, jax.lax.dynamic_update_slice(row, norms, (0, stop - side))

        border = unit_rows(problem.steps, whole_carry), jnp.zeros((), jnp.int32)
        return jax.lax.fori_loop(0, block, tile, (border, row))[1]

    if jax.default_backend() == "cpu":
        order = _evenly(num_blocks, len(jax.local_devices()))
        rows = over_runs(row_of_tiles)(jnp.asarray(order))[np.argsort(order)]
    else:
        rows = jax.lax.map(row_of_tiles, jnp.arange(num_blocks))
    return rows.reshape(num_blocks * side, -1)[:count, :count]


def _evenly(num_blocks: int, num_devices: int) -> Int[np.ndarray, " blocks"]:
    """An order of the rows whose equal parts have as many tiles; row b has b + 1.

    The longest row goes to the first device, the next to the second, ... and on the way back again.
    """
    turns = np.arange(num_blocks)[::-1] % (2 * num_devices)
    device = np.minimum(turns, 2 * num_devices - 1 - turns)
    return np.argsort(device, stable=True)


def _side(problem: Problem, count: int) -> int:
    """Steps along the side of a tile, such that what it works on stays in the cache."""
    side = min(MOST, max(FEWEST, 2 ** round(math.log2(math.sqrt(count)))))
    size = jax.eval_shape(whole_carry, problem.steps.last).size
    while side > FEWEST and side**2 * size > MOST_ENTRIES:
        side //= 2
    return side


def _diagonal_tile(
    problem: Problem, side: int, start: Int[Array, ""]
) -> tuple[Float[Array, "later earlier"], _Side]:
    """The norms for start <= k <= t < start + side, and S_target P(t, start) for these t.

    The rows of all t go back together, each from the step after which it is a later one.
    """
    unit = unit_rows(problem.steps, problem.target)
    rows = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (side, *leaf.shape)), unit)
    offsets = jnp.arange(side)

    def back(state: tuple[Rows, Array], offset: Array) -> tuple[tuple[Rows, Array], tuple]:
        rows, exponents = state
        together = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rows)
        pulled = pull_rows(problem.steps, start + offset, together)
        pulled = jax.tree.map(lambda new, old: new.reshape(old.shape), pulled, rows)
        moved = jax.vmap(rescale)(pulled, exponents)
        rows, exponents = jax.tree.map(
            lambda new, old: jnp.where(_beside(offsets > offset, new), new, old),
            moved,
            (rows, exponents),
        )
        blocks = jax.vmap(jax.vmap(problem.source))(rows)
        return (rows, exponents), (blocks, exponents)

    first = rows, jnp.zeros(side, jnp.int32)
    (rows, exponents), (blocks, scales) = jax.lax.scan(back, first, offsets, reverse=True)
    norms = _norms_of_blocks(problem, blocks.reshape(-1, *blocks.shape[2:]), scales.ravel())
    return norms.reshape(side, side).T, (jax.vmap(flat_rows)(rows), exponents)


def _beside(condition: Array, array: Array) -> Array:
    return condition.reshape(-1, *(1 for _ in array.shape[1:]))


def _pull_through(
    problem: Problem, side: int, stop: Int[Array, ""], border: tuple[Rows, Array]
) -> tuple[tuple[Rows, Array], _Side]:
    """P(m, k) S_sourceᵀ for k = stop - side ... stop - 1, from the rows P(m, stop)."""

    def back(state: tuple[Rows, Array], offset: Array) -> tuple[tuple[Rows, Array], tuple]:
        rows, exponent = rescale(pull_rows(problem.steps, stop - side + offset, state[0]), state[1])
        return (rows, exponent), rescale(jax.vmap(problem.source)(rows), exponent)

    return jax.lax.scan(back, border, jnp.arange(side), reverse=True)


def _norms_of_blocks(
    problem: Problem, blocks: Float[Array, "t rows columns"], exponents: Int[Array, " t"]
) -> Float[Array, " t"]:
    """The log norms of products that are there."""
    # They may be far smaller than the rest of the carry, and their squares smaller still.
    blocks, exponents = jax.vmap(rescale)(blocks, exponents)
    if problem.norm == "frobenius":
        return log_scaled(jnp.linalg.norm(blocks, axis=(1, 2)), exponents)
    matrices = Matrices(
        push=lambda v: jnp.einsum("tij,tj->ti", blocks, v),
        pull=lambda u: jnp.einsum("tij,ti->tj", blocks, u),
        form=lambda index: blocks[index],
    )
    norms = log_spectral_norms(matrices, jnp.zeros(blocks.shape[:2], blocks.dtype))
    return norms + exponents * math.log(2)


def _norms_of_products(
    problem: Problem, later: _Side, earlier: _Side
) -> Float[Array, "later earlier"]:
    """The log norms of A_t B_k for every t and k of a tile."""
    (a, a_exponents), (b, b_exponents) = later, earlier
    exponents = a_exponents[:, None] + b_exponents
    if problem.norm == "frobenius":
        products = jax.lax.map(partial(_log_frobenius, a), b).T
        return products + exponents * math.log(2)
    matrices = Matrices(
        push=lambda v: jnp.einsum("tic,tkc->tki", a, jnp.einsum("kcj,tkj->tkc", b, v)),
        pull=lambda u: jnp.einsum("kcj,tkc->tkj", b, jnp.einsum("tic,tki->tkc", a, u)),
        form=lambda index: a[index // len(b)] @ b[index % len(b)],
    )
    norms = log_spectral_norms(matrices, jnp.zeros((len(a), len(b), a.shape[1]), a.dtype))
    return norms + exponents * math.log(2)


def _log_frobenius(a: Float[Array, "t rows carry"], b: Array) -> Float[Array, " t"]:
    """The log Frobenius norms of A_t B for all t."""
    products, exponents = jax.vmap(rescale, (0, None))(a @ b, jnp.zeros((), jnp.int32))
    return log_scaled(jnp.linalg.norm(products, axis=(1, 2)), exponents)
