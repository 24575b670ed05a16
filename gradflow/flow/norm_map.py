"""The size of ∂h_t/∂h_k for every pair of a later step t and an earlier step k."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.norms import check_norm
from gradflow.flow.spectral import start_vectors
from gradflow.flow.steps import Rows, pull_rows, rescale, unit_rows
from gradflow.flow.sweep import Norm, Problem, measure, measure_plainly, prepare
from gradflow.unroll import Lengths, Mask, check_inputs, valid_steps

ROWS_TOGETHER = 512
"""Rows that go through a step at once: enough to fill the matrix unit, few enough for the cache."""

MOST_STEPS = 30_000
"""Steps whose map, 7 GiB, still fits into the memory of a small machine, with its copies."""

_Products = tuple[Rows, Int[Array, " t"], Float[Array, "t n block"]]
"""One product for each t of a group, its exponent, and where its spectral norm is looked for."""


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

    The products of a few neighbouring t are pulled back together, lag by lag, so that no more
    than theirs is ever in memory. The cost is that of T²/2 steps with as many rows as the target
    has entries. To differentiate through it is to differentiate the plain form of the same
    computation, with a decomposition for every pair.

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
        return _by_earlier(_by_lag(prepare(cell, kind, arguments), plain))


def _by_earlier(by_lag: Float[Array, "later lags"]) -> Float[Array, "later earlier"]:
    """From [t, lag] to [t, k] with k = t - lag."""
    t = jnp.arange(len(by_lag))[:, None]
    lag = t - t.T
    return jnp.where(lag >= 0, jnp.take_along_axis(by_lag, jnp.maximum(lag, 0), axis=1), jnp.nan)


def _by_lag(problem: Problem, plain: bool) -> Float[Array, "later lags"]:
    """Log norms for every t and lag, group after group of neighbouring t."""
    count = problem.steps.num_steps + 1
    unit = unit_rows(problem.steps, problem.target)
    group = max(1, min(count, ROWS_TOGETHER // len(jax.tree.leaves(unit)[0])))
    # What fills the first group up are rows t = 0, of no lag and so without cost.
    filling = -count % group
    times = jnp.maximum(jnp.arange(-filling, count), 0).reshape(-1, group)
    by_lag = jax.lax.map(partial(_group_by_lag, problem, unit, plain), times)
    return by_lag.mT.reshape(filling + count, count)[filling:]


def _group_by_lag(
    problem: Problem, unit: Rows, plain: bool, times: Int[Array, " t"]
) -> Float[Array, "lags t"]:
    """Log norms of one group, all of whose products are at the same lag at any time.

    So their spectra are alike, and the search for their norms takes about as long for each.
    """

    def measure_one(rows: Rows, exponent: Array, vectors: Array) -> tuple[Array, Array]:
        if plain:
            return measure_plainly(problem, rows, exponent), vectors
        return measure(problem, rows, exponent, vectors)

    measure_all = jax.vmap(measure_one)

    def back(lag: Array, state: tuple[_Products, Array]) -> tuple[_Products, Array]:
        (rows, exponent, vectors), log_norms = state
        rows, exponent = jax.vmap(partial(_back, problem))(times - lag, rows, exponent)
        log_norm, vectors = measure_all(rows, exponent, vectors)
        return (rows, exponent, vectors), log_norms.at[lag].set(log_norm)

    like = jax.tree.leaves(unit)[0]
    first = unit, jnp.zeros((), jnp.int32), start_vectors(len(like), like.dtype)
    rows, exponent, vectors = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (len(times), *leaf.shape)), first
    )
    log_norm, vectors = measure_all(rows, exponent, vectors)
    num_steps = problem.steps.num_steps
    log_norms = jnp.full((num_steps + 1, len(times)), jnp.nan, like.dtype).at[0].set(log_norm)
    # With a number of turns that is known beforehand, reverse mode goes through.
    longest = num_steps if plain else times[-1]
    state = (rows, exponent, vectors), log_norms
    return jax.lax.fori_loop(1, longest + 1, back, state)[1]


def _back(
    problem: Problem, index: Int[Array, ""], rows: Rows, exponent: Int[Array, ""]
) -> tuple[Rows, Int[Array, ""]]:
    """One step further back; past the first step, where the index is negative, none."""
    pulled = rescale(pull_rows(problem.steps, jnp.maximum(index, 0), rows), exponent)
    return jax.tree.map(lambda new, old: jnp.where(index >= 0, new, old), pulled, (rows, exponent))
