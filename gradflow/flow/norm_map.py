"""The norm of ∂h_t/∂h_k for every pair of a later step t and an earlier step k."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.blocks import Blocks
from gradflow.flow.decoupled import Method, Part, Run, by_blocks
from gradflow.flow.joins import joined_norms
from gradflow.flow.nonfinite import nonfinite_pairs
from gradflow.flow.norms import (
    DECOMPOSITION,
    Norm,
    check_norm,
    finite_certificate,
    plain_log_norm,
)
from gradflow.flow.structure import Group, Places, Structure
from gradflow.flow.tiles import norms_by_tiles
from gradflow.flow.trace import Trace, compiled, trace_of
from gradflow.numerics.certificate import DIRECT, NormCertificate
from gradflow.numerics.scaling import Scaled, log_scaled, scaled
from gradflow.unroll import Lengths, Mask

MOST_STEPS = 30_000
"""Steps whose map, 7 GiB, still fits into the memory of a small machine, with its copies."""


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
    """Computes log ‖∂target_t/∂source_k‖ for every pair 0 ≤ k ≤ t ≤ T.

    Row t is what `log_norms` gives of the first t steps, read from lag t down to lag 0::

        ∂target_t/∂source_k = S_target · J_t J_{t-1} ... J_{k+1} · S_sourceᵀ

    The pairs are computed in tiles of neighbouring t and k. With m between them, P(t, k) =
    P(t, m) P(m, k), so that a tile needs one matrix for each t and one for each k, and no
    more than a tile's is ever in memory. Spectral norms are found by Lanczos steps for all pairs
    of a tile together, most of whose products are never formed, and are the lower of two bounds
    that `norm_map_certificate` returns: within 1e-9 nats in float64, 1e-4 in float32. The
    derivative is that of the same computation with a decomposition for every pair.

    The arguments are those of `log_norms`.

    Returns:
      Log norms, dimensionless, in nats, index = [t, k]; NaN above the diagonal, where k > t.
      Exactly -inf where the block is exactly zero; NaN where a NaN of the trajectory enters.

    Raises:
      ValueError: For an unknown norm or block, inputs that are not one sequence, or more than
        30,000 steps.

    Source: Bengio, Simard, Frasconi 1994, doi:10.1109/72.279181 (∂h_t/∂h_k as a product).
    """
    check_norm(norm)
    blocks = _checked(cell, inputs, source, target)
    trace = trace_of(cell, params, inputs, carry=carry, lengths=lengths, mask=mask)
    return _differentiable(norm, blocks, trace)


def _checked(cell: Cell, inputs: Array, source: str, target: str) -> Blocks:
    if len(inputs) > MOST_STEPS:
        gigabytes = 8 * (len(inputs) + 1) ** 2 / 2**30
        raise ValueError(
            f"Expected at most {MOST_STEPS} steps, got {len(inputs)}: a map of every pair has "
            f"{gigabytes:.0f} GiB. Map a part of the sequence, or measure log_norms of inputs[:t] "
            "for a few t."
        )
    return Blocks(source, target).check(cell, every_step=True)


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
    """Computes the bounds between which the spectral norms of `log_norm_map` lie, certified.

    They differ by at most 1e-9 nats in float64 and 5e-5 in float32, up to rounding. Arguments and
    errors are those of `log_norm_map`; what stands above the diagonal is NaN, with stage -1.
    """
    blocks = _checked(cell, inputs, source, target)
    trace = trace_of(cell, params, inputs, carry=carry, lengths=lengths, mask=mask)
    return _every_pair("spectral", blocks, trace)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _differentiable(norm: Norm, blocks: Blocks, trace: Trace) -> Array:
    return _every_pair(norm, blocks, trace).lower


@_differentiable.defjvp
def _(norm: Norm, blocks: Blocks, primals: tuple, tangents: tuple) -> tuple:
    plain = DECOMPOSITION if norm == "spectral" else norm
    return jax.jvp(partial(_by_steps, plain, blocks), primals, tangents)


def _every_pair(norm: Norm, blocks: Blocks, trace: Trace) -> NormCertificate:
    return by_blocks(Method(_by_tiles, _strongest, _one_by_one), norm, blocks)(None, trace)[1]


@compiled("norm", "blocks")
def _by_tiles(
    norm: Norm, blocks: Blocks | Places, state: None, trace: Trace
) -> tuple[None, NormCertificate]:
    norms = norms_by_tiles(norm, blocks, trace)
    return state, finite_certificate(norms, _unmeasured(trace))


def _one_by_one(
    norm: Norm, run: Run, state: None, jacobians: Scaled, group: Group
) -> tuple[None, Part]:
    """Measures one block after another and keeps their joint norm, because each map is large."""
    _, members, size = group.entries.shape
    if size == 1:
        return state, Part(_of_numbers(norm, jacobians), members)

    def add(norms: NormCertificate, xs: Scaled) -> tuple[NormCertificate, None]:
        parts = Part(norms, 1), Part(run(None, xs)[1], members)
        lead = [part._replace(found=jax.tree.map(lambda a: a[None], part.found)) for part in parts]
        return joined_norms(norm, lead), None

    like = jax.eval_shape(run, None, jax.tree.map(lambda leaf: leaf[0], jacobians))[1].lower
    nothing = jnp.full(like.shape, -jnp.inf, like.dtype)
    start = NormCertificate(nothing, nothing, jnp.full(like.shape, DIRECT))
    norms, _ = jax.lax.scan(add, start, jacobians)
    return state, Part(jax.tree.map(lambda leaf: leaf[None], norms), 1)


def _of_numbers(norm: Norm, jacobians: Scaled) -> NormCertificate:
    """The joint norms of blocks of one entry, from sums of the logarithms of their Jacobians."""
    logs = log_scaled(jnp.abs(jacobians.value[..., 0, 0]), jacobians.exponent)
    earlier = jnp.arange(logs.shape[1] + 1)[:, None]

    def joint(sums: Float[Array, "earlier blocks"]) -> Float[Array, " earlier"]:
        return jnp.max(sums, 1) if norm == "spectral" else jax.nn.logsumexp(2 * sums, 1) / 2

    def later(sums: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        t, growth = step
        sums = jnp.where(earlier < t, sums + growth, sums)
        return sums, joint(sums)

    start = jnp.zeros((len(earlier), len(logs)), logs.dtype)
    steps = jnp.arange(1, len(earlier)), logs.T
    norms = jnp.concatenate([joint(start)[None], jax.lax.scan(later, start, steps)[1]])[None]
    return NormCertificate(norms, norms, jnp.full(norms.shape, DIRECT))


def _strongest(
    norm: Norm, structure: Structure, parts: Sequence[Part], trace: Trace
) -> NormCertificate:
    """The norms of a matrix from those of its diagonal blocks."""
    del structure
    return finite_certificate(joined_norms(norm, parts), _unmeasured(trace))


def _unmeasured(trace: Trace) -> Bool[Array, "later earlier"]:
    """The pairs with k > t, and those across a step that is not finite."""
    past = jnp.tri(trace.num_steps + 1, dtype=bool)
    return ~past | nonfinite_pairs(trace)


@compiled("norm", "blocks")
def _by_steps(norm: str, blocks: Blocks, trace: Trace) -> Float[Array, "later earlier"]:
    """Computes the map with a decomposition for every pair: slower, but reverse mode goes through.

    The products of all t are pulled back together, each from its own step on.
    """
    count = trace.num_steps + 1
    times = jnp.arange(count)

    def measure(products: Scaled) -> Float[Array, " later"]:
        return jax.vmap(lambda one: plain_log_norm(norm, blocks.cut_scaled(trace, one)))(products)

    def back(products: Scaled, k: Array) -> tuple[Scaled, Array]:
        moved = jax.vmap(partial(trace.pull, k))(products)
        keep = jax.vmap(jnp.where)
        products = jax.tree.map(lambda new, old: keep(times > k, new, old), moved, products)
        return products, measure(products)

    first = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), scaled(blocks.rows(trace))
    )
    _, norms = jax.lax.scan(back, first, times[:-1], reverse=True)
    norms = jnp.concatenate([norms, measure(first)[None]]).T
    return jnp.where(_unmeasured(trace), jnp.nan, norms)
