"""The norm of ∂h_T/∂h_k for every lag T - k, and of any other block of the carry.

Most of the time goes into pulling the rows back; so the norm should cost little beside it
(`gradflow.numerics.spectral`).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.blocks import Blocks
from gradflow.flow.chunks import Path, Runner
from gradflow.flow.decoupled import Method, Part, by_blocks
from gradflow.flow.joins import joined_norms
from gradflow.flow.nonfinite import nonfinite_from, set_nan
from gradflow.flow.structure import Places, Structure
from gradflow.flow.trace import Trace, compiled, trace_of
from gradflow.numerics.certificate import DIRECT, NormCertificate
from gradflow.numerics.scaling import Scaled, log_scaled, scaled
from gradflow.numerics.spectral import Tracked, spectral_norm, start_vectors
from gradflow.unroll import Lengths, Mask

Norm: TypeAlias = Literal["spectral", "frobenius"]

DECOMPOSITION = "decomposition"
"""The spectral norm by a decomposition, through which reverse mode goes."""


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
    """Computes log ‖∂target_T/∂source_k‖ for every lag T - k = 0 ... T.

    The block is cut out of the product of the step Jacobians on the whole carry::

        ∂target_T/∂source_k = S_target · J_T J_{T-1} ... J_{k+1} · S_sourceᵀ

    (The product of the blocks is something else: the path through the rest of the carry is
    not in it.) The rows are pulled back through the steps and rescaled at each, so that nothing
    under- or overflows at any lag. A spectral norm is the lower of two bounds that
    `norm_certificate` returns: within 1e-9 nats of the product's largest singular value in float64,
    1e-4 in float32. Its derivative is that of the same computation with a decomposition a step.

    The arguments are those common to all measurements (`gradflow.flow`), and

    Args:
      norm: ``"spectral"``, the largest singular value, or ``"frobenius"``.

    Returns:
      Log norms, dimensionless, in nats, index = lag. Exactly -inf where the block is exactly
      zero; NaN from the lag at which a NaN or an infinity of the trajectory enters.

    Raises:
      ValueError: For an unknown norm or block, or inputs that are not one sequence.
    """
    given = {"carry": carry, "lengths": lengths, "mask": mask}
    return log_norms_along(
        trace_of, cell, params, inputs, norm=norm, source=source, target=target, **given
    )


def norm_certificate(
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
    """Computes the bounds between which the spectral norms of `log_norms` are certified to lie.

    ::

        lower = log √(uᵀ A Aᵀ u)        A = ∂target_T/∂source_k        upper - lower <= 1e-9 nats

    with 5e-5 nats in float32. The bounds hold up to the rounding of the products A themselves,
    and of the test, n eps relative. Arguments and errors are those of `log_norms`.
    """
    blocks = Blocks(source, target).check(cell)
    trace = trace_of(cell, params, inputs, carry=carry, lengths=lengths, mask=mask)
    return _norms("spectral", blocks, trace)


def log_norms_along(
    run: Runner,
    cell: Cell,
    params: Params,
    inputs: Array,
    *,
    norm: str,
    source: str,
    target: str,
    **given: Any,
) -> Float[Array, " lags"]:
    """Computes `log_norms` along the path that the cell is run on."""
    check_norm(norm)
    blocks = Blocks(source, target).check(cell)
    path = run(cell, params, inputs, **given)
    if isinstance(path, Trace):
        return _differentiable(norm, blocks, path)
    return _norms(norm, blocks, path).lower


def check_norm(norm: str) -> None:
    """Checks the name of a norm.

    Raises:
      ValueError: If there is none of that name.
    """
    if norm not in ("spectral", "frobenius"):
        raise ValueError(
            f"Expected norm='spectral' or 'frobenius', got {norm!r}. Give one of them."
        )


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _differentiable(norm: Norm, blocks: Blocks, trace: Trace) -> Array:
    return _norms(norm, blocks, trace).lower


@_differentiable.defjvp
def _(norm: Norm, blocks: Blocks, primals: tuple, tangents: tuple) -> tuple:
    # The search for a spectral norm is a loop of unknown length, which has no reverse mode.
    plain = DECOMPOSITION if norm == "spectral" else norm
    return jax.jvp(lambda trace: _norms(plain, blocks, trace).lower, primals, tangents)


def _norms(norm: str, blocks: Blocks, path: Path) -> NormCertificate:
    """Computes the log norms at each lag with their bounds."""
    through = by_blocks(Method(_through, _strongest), norm, blocks)
    _, by_step = path.sweep(through, None, backward=True)
    return jax.tree.map(lambda leaf: leaf[::-1], by_step)


class _State(NamedTuple):
    product: Scaled
    """The rows of S_target · J_T ... J_{k+1}."""
    tracked: Tracked
    """Where the search for the next spectral norm starts."""


@compiled("norm", "blocks")
def _through(
    norm: str, blocks: Blocks | Places, state: _State | None, trace: Trace
) -> tuple[_State, NormCertificate]:
    """Goes back through the steps; without a state from T on, with the norm at lag 0."""

    def measure(state: _State) -> tuple[_State, NormCertificate]:
        matrix = blocks.cut_scaled(trace, state.product)
        found, tracked = log_norm_of(norm, matrix, state.tracked)
        return state._replace(tracked=tracked), found

    def back(state: _State, index: Array) -> tuple[_State, NormCertificate]:
        return measure(state._replace(product=trace.pull(index, state.product)))

    at_T = None
    if state is None:
        rows = blocks.rows(trace)
        like = jax.tree.leaves(rows)[0]
        state, at_T = measure(_State(scaled(rows), start_vectors(len(like), like.dtype)))
    state, norms = jax.lax.scan(back, state, jnp.arange(trace.num_steps), reverse=True)
    if at_T is not None:
        norms = jax.tree.map(jnp.append, norms, at_T)
    return state, finite_certificate(norms, nonfinite_from(trace)[: len(norms.stage)])


def _strongest(
    norm: str, structure: Structure, parts: Sequence[Part], trace: Trace
) -> NormCertificate:
    """The norms of a matrix from those of its diagonal blocks."""
    del structure
    norms = joined_norms(norm, parts)
    return finite_certificate(norms, nonfinite_from(trace)[: len(norms.stage)])


def log_norm_of(norm: str, matrix: Scaled, tracked: Tracked) -> tuple[NormCertificate, Tracked]:
    """Computes the log norm of a matrix, and where to look for the next one."""
    if norm == "spectral":
        found, tracked = spectral_norm(matrix.value, tracked)
        lower, upper = (log_scaled(b, matrix.exponent) for b in (found.lower, found.upper))
        return NormCertificate(lower, upper, found.stage), tracked
    log_norm = plain_log_norm(norm, matrix)
    return NormCertificate(log_norm, log_norm, jnp.asarray(DIRECT, jnp.int32)), tracked


def plain_log_norm(norm: str, matrix: Scaled) -> Float[Array, ""]:
    """Computes the log norm by a decomposition or a sum, through which reverse mode goes."""
    order = "fro" if norm == "frobenius" else 2
    return log_scaled(jnp.linalg.norm(matrix.value, ord=order), matrix.exponent)


def finite_certificate(norms: NormCertificate, nonfinite: Bool[Array, "*lags"]) -> NormCertificate:
    """Returns the certificate with NaN, and stage -1, where a step is not finite."""
    lower, upper = set_nan(nonfinite, (norms.lower, norms.upper))
    return NormCertificate(lower, upper, jnp.where(jnp.isnan(lower), -1, norms.stage))
