"""The norms of ∂target_t/∂source_k for every pair, a tile of neighbouring t and k at a time.

With m a step between them, P(t, k) = P(t, m) P(m, k), so that a tile of b² pairs needs 2 b
matrices, and a vector for each pair goes through all of its products in a few large ones. Most
of the products are never formed. The leading left singular vector of ∂target_t/∂source_k hardly
depends on k once k is far from t: the search for a pair starts from that of (t, m).
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gradflow.cell import whole_carry
from gradflow.devices import map_runs
from gradflow.flow.blocks import Blocks
from gradflow.flow.structure import Places
from gradflow.flow.trace import Trace, as_matrix
from gradflow.numerics.certificate import DIRECT, NormCertificate
from gradflow.numerics.lanczos import Matrices, generic_vector, log_spectral_norms
from gradflow.numerics.scaling import Scaled, log_power, log_scaled, rescale, scaled

FEWEST, MOST = 8, 32
"""Steps along a tile's side: few mean more pulling to borders, many more products to form."""

MOST_ENTRIES = 2**15
"""Entries of one vector over the carry for each pair of a tile: 256 KiB, which the cache holds."""


class _Problem(NamedTuple):
    norm: str
    blocks: Blocks | Places
    trace: Trace


class _Side(NamedTuple):
    """For each step along a side of a tile a matrix, and its squares on the carry.

    ``grams`` are AᵀA for later steps and B Bᵀ for earlier ones.
    """

    matrices: Scaled
    grams: Float[Array, "steps carry carry"]


def norms_by_tiles(norm: str, blocks: Blocks | Places, trace: Trace) -> NormCertificate:
    """Computes log norms for every pair, as [t, k]; entries above the diagonal mean nothing.

    On a CPU the rows of tiles are distributed over all devices.
    """
    problem = _Problem(norm, blocks, trace)
    count = trace.num_steps + 1
    side = _side(trace, count)
    num_blocks = -(-count // side)

    def row_of_tiles(block: Array) -> NormCertificate:
        start = block * side
        norms, later, vectors = _diagonal_tile(problem, side, start)
        empty = jax.tree.map(lambda leaf: jnp.zeros((side, num_blocks * side), leaf.dtype), norms)

        def tile(number: Array, state: tuple[Scaled, Array, NormCertificate]) -> tuple:
            border, vectors, row = state
            stop = start - number * side
            border, earlier = _pull_through(problem, side, stop, border)
            norms, vectors = _norms_of_products(norm, later, earlier, vectors)
            return border, vectors, _placed(row, norms, stop - side)

        border = scaled(trace.unit_rows(whole_carry))
        return jax.lax.fori_loop(0, block, tile, (border, vectors, _placed(empty, norms, start)))[2]

    if jax.default_backend() == "cpu":
        order = _evenly(num_blocks, len(jax.devices()))
        rows = map_runs(row_of_tiles)(jnp.asarray(order))
        rows = jax.tree.map(lambda leaf: leaf[np.argsort(order)], rows)
    else:
        rows = jax.lax.map(row_of_tiles, jnp.arange(num_blocks))
    return jax.tree.map(lambda leaf: leaf.reshape(num_blocks * side, -1)[:count, :count], rows)


def _placed(
    row: NormCertificate, norms: NormCertificate, column: Int[Array, ""]
) -> NormCertificate:
    return jax.tree.map(
        lambda whole, part: jax.lax.dynamic_update_slice(whole, part, (0, column)), row, norms
    )


def _evenly(num_blocks: int, num_devices: int) -> Int[np.ndarray, " blocks"]:
    """An order of the rows, dealt to the devices in snake order; row b has b + 1 tiles."""
    turns = np.arange(num_blocks)[::-1] % (2 * num_devices)
    device = np.minimum(turns, 2 * num_devices - 1 - turns)
    return np.argsort(device, stable=True)


def _side(trace: Trace, count: int) -> int:
    """Steps along the side of a tile, such that what it works on stays in the cache."""
    side = min(MOST, max(FEWEST, 2 ** round(math.log2(math.sqrt(count)))))
    size = jax.eval_shape(whole_carry, trace.last).size
    while side > FEWEST and side**2 * size > MOST_ENTRIES:
        side //= 2
    return side


def _diagonal_tile(
    problem: _Problem, side: int, start: Int[Array, ""]
) -> tuple[NormCertificate, _Side, Float[Array, "later rows"]]:
    """The norms for start <= k <= t < start + side, and S_target P(t, start) for these t.

    The rows of all t go back together, each from the step after which it is a later one. The
    leading left singular vectors of P(t, start) come last.
    """
    _, blocks, trace = problem
    offsets = jnp.arange(side)

    def back(products: Scaled, offset: Array) -> tuple[Scaled, Scaled]:
        moved = jax.vmap(partial(trace.pull, start + offset))(products)
        products = jax.tree.map(
            lambda new, old: jnp.where(_beside(offsets > offset, new), new, old), moved, products
        )
        cut = jax.vmap(partial(blocks.cut, trace))(products.value)
        # A zero where k > t, which takes no search.
        cut = jnp.where(_beside(offsets >= offset, cut), cut, 0)
        return products, Scaled(cut, products.exponent)

    first = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (side, *leaf.shape)), scaled(blocks.rows(trace))
    )
    products, cuts = jax.lax.scan(back, first, offsets, reverse=True)
    norms, vectors = _norms_of_blocks(problem.norm, cuts)
    matrices = jax.vmap(as_matrix)(products.value)
    grams = jnp.einsum("tic,tid->tcd", matrices, matrices)
    return norms, _Side(Scaled(matrices, products.exponent), grams), vectors


def _beside(condition: Array, array: Array) -> Array:
    return condition.reshape(-1, *(1 for _ in array.shape[1:]))


def _pull_through(
    problem: _Problem, side: int, stop: Int[Array, ""], border: Scaled
) -> tuple[Scaled, _Side]:
    """P(m, k) S_sourceᵀ for k = stop - side ... stop - 1, from the rows P(m, stop)."""
    _, blocks, trace = problem

    def back(border: Scaled, offset: Array) -> tuple[Scaled, Scaled]:
        border = trace.pull(stop - side + offset, border)
        return border, blocks.cut_scaled(trace, border)

    border, cuts = jax.lax.scan(back, border, jnp.arange(side), reverse=True)
    grams = jnp.einsum("kcj,kdj->kcd", cuts.value, cuts.value)
    return border, _Side(cuts, grams)


def _norms_of_blocks(norm: str, cuts: Scaled) -> tuple[NormCertificate, Float[Array, "t rows"]]:
    """The log norms of products that are formed, as [t, k], and the vectors of the first k."""
    # They may be far smaller than the rest of the carry, and their squares smaller still.
    blocks, exponents = jax.vmap(jax.vmap(rescale))(*cuts)
    trace = jnp.sum(blocks**2, axis=(-2, -1))
    start = jnp.broadcast_to(generic_vector(blocks.shape[2], blocks.dtype), blocks.shape[:3])
    if norm == "frobenius":
        return _certain(log_scaled(jnp.sqrt(trace), exponents).T), start[0]
    side = blocks.shape[1]
    matrices = Matrices(
        push=lambda v: jnp.einsum("ktij,ktj->kti", blocks, v),
        pull=lambda u: jnp.einsum("ktij,kti->ktj", blocks, u),
        form=lambda index: blocks[index // side, index % side],
        trace=trace,
        rounding=_rounding(trace, blocks.shape[2]),
    )
    norms, vectors = log_spectral_norms(matrices, start)
    return jax.tree.map(jnp.transpose, _shifted(norms, exponents)), vectors[0]


def _norms_of_products(
    norm: str, later: _Side, earlier: _Side, vectors: Float[Array, "later rows"]
) -> tuple[NormCertificate, Float[Array, "later rows"]]:
    """The log norms of A_t B_k for every t and k of a tile, and the vectors of its first k."""
    (a, a_exponents), (b, b_exponents) = later.matrices, earlier.matrices
    exponents = a_exponents[:, None] + b_exponents
    if norm == "frobenius":
        products = jax.lax.map(partial(_log_frobenius, a), b).T
        return _certain(products + log_power(exponents, products.dtype)), vectors
    # tr (A B)(A B)ᵀ = ⟨Aᵀ A, B Bᵀ⟩: no product need be formed for it. It may cancel.
    trace = jnp.einsum("tcd,kcd->tk", later.grams, earlier.grams)
    squares = [jnp.trace(side.grams, axis1=1, axis2=2) for side in (later, earlier)]
    matrices = Matrices(
        push=lambda v: jnp.einsum("tic,tkc->tki", a, jnp.einsum("kcj,tkj->tkc", b, v)),
        pull=lambda u: jnp.einsum("kcj,tkc->tkj", b, jnp.einsum("tic,tki->tkc", a, u)),
        form=lambda index: a[index // len(b)] @ b[index % len(b)],
        trace=trace,
        rounding=_rounding(jnp.outer(squares[0], squares[1]), a.shape[2]),
    )
    start = jnp.broadcast_to(vectors[:, None], (len(a), len(b), a.shape[1]))
    norms, vectors = log_spectral_norms(matrices, start)
    return _shifted(norms, exponents), vectors[:, 0]


def _rounding(squares: Array, size: int) -> Array:
    """A bound on the rounding error of sums of products whose moduli sum to this at most."""
    return 4 * size * jnp.finfo(squares.dtype).eps * squares


def _certain(log_norms: Array) -> NormCertificate:
    return NormCertificate(log_norms, log_norms, jnp.full(log_norms.shape, DIRECT))


def _shifted(norms: NormCertificate, exponents: Int[Array, "t k"]) -> NormCertificate:
    shift = log_power(exponents, norms.lower.dtype)
    return norms._replace(lower=norms.lower + shift, upper=norms.upper + shift)


def _log_frobenius(a: Float[Array, "t rows carry"], b: Array) -> Float[Array, " t"]:
    """The log Frobenius norms of A_t B for all t."""
    products, exponents = jax.vmap(rescale)(a @ b)
    return log_scaled(jnp.linalg.norm(products, axis=(1, 2)), exponents)
