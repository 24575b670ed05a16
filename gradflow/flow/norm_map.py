"""The size of ∂h_t/∂h_k for every pair of a later step t and an earlier step k."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.broken import broken_pairs, void
from gradflow.flow.certificate import NormCertificate
from gradflow.flow.closed_over import open_cell
from gradflow.flow.norms import certificate_of, check_norm
from gradflow.flow.steps import Rows, pull_scaled, unit_rows
from gradflow.flow.sweep import Norm, Problem, measure_plainly, prepare
from gradflow.flow.tiles import norms_by_tiles
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
    of a tile together, most of whose products are never formed, and are the lower of two bounds
    that `norm_map_certificate` returns: within 1e-9 nats in float64, 1e-4 in float32. To
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
    cell, params, carry = open_cell(cell, params, inputs, carry)
    return _log_norm_map(cell, (norm, source, target), (params, inputs, carry, mask))


def _check_size(num_steps: int) -> None:
    if num_steps > MOST_STEPS:
        gigabytes = 8 * (num_steps + 1) ** 2 / 2**30
        raise ValueError(
            f"at most {MOST_STEPS} steps are expected, got {num_steps}: a map of every pair has "
            f"{gigabytes:.0f} GiB; map a part of the sequence, or measure log_norms of inputs[:t] "
            "for a few t"
        )


def norm_map_certificate(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    source: str = "h",
    target: str = "h",
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> NormCertificate:
    """The bounds between which the spectral norms of `log_norm_map` are certified to lie.

    They differ by at most 1e-9 nats in float64 and 5e-5 in float32, up to rounding. Arguments and
    errors are those of `log_norm_map`; what stands above the diagonal is NaN, with stage -1.
    """
    _check_size(len(inputs))
    mask = valid_steps(check_inputs(inputs), lengths, mask)
    cell, params, carry = open_cell(cell, params, inputs, carry)
    return _every_pair(cell, ("spectral", source, target), (params, inputs, carry, mask))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _log_norm_map(cell: Cell, kind: tuple[Norm, str, str], arguments: tuple) -> Array:
    return _every_pair(cell, kind, arguments).lower


@_log_norm_map.defjvp
def _(cell: Cell, kind: tuple[Norm, str, str], primals: tuple, tangents: tuple) -> tuple:
    def plain(arguments: tuple) -> Array:
        with jax.default_matmul_precision("highest"):
            problem = prepare(cell, kind, arguments)
            return void(_unmeasured(problem), _by_steps(problem))

    return jax.jvp(plain, primals, tangents)


@partial(jax.jit, static_argnums=(0, 1))
def _every_pair(cell: Cell, kind: tuple[Norm, str, str], arguments: tuple) -> NormCertificate:
    with jax.default_matmul_precision("highest"):
        problem = prepare(cell, kind, arguments)
        return certificate_of(norms_by_tiles(problem), _unmeasured(problem))


def _unmeasured(problem: Problem) -> Bool[Array, "later earlier"]:
    """The pairs with k > t, and those across a step that is not finite."""
    past = jnp.tri(problem.steps.num_steps + 1, dtype=bool)
    return ~past | broken_pairs(problem.steps)


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
        moved = jax.vmap(partial(pull_scaled, problem.steps, k))(*state)
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
