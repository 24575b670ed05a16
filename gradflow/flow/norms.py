"""The size of ∂h_T/∂h_k at every lag T - k, and of any other block of the carry."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.broken import broken_lags, void
from gradflow.flow.certificate import NormCertificate
from gradflow.flow.closed_over import open_cell
from gradflow.flow.sweep import Norm, Products, prepare, sweep_back, sweep_back_plainly
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
    under- or overflows at any lag. A spectral norm is the lower of two bounds that
    `norm_certificate` returns: within 1e-9 nats of the product's largest singular value in float64,
    1e-4 in float32. To differentiate through it is to differentiate the plain form of the same
    computation, with a decomposition a step.

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
    cell, params, carry = open_cell(cell, params, inputs, carry)
    return _log_norms(cell, (norm, source, target), (params, inputs, carry, mask))


def check_norm(norm: str) -> None:
    """Checks the name of a norm.

    Raises:
      ValueError: If there is none of that name.
    """
    if norm not in ("spectral", "frobenius"):
        raise ValueError(f"norm is expected to be 'spectral' or 'frobenius', got {norm!r}")


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _log_norms(cell: Cell, kind: tuple[Norm, str, str], arguments: tuple) -> Array:
    return norms_through(cell, kind, arguments)[1].lower


@_log_norms.defjvp
def _(cell: Cell, kind: tuple[Norm, str, str], primals: tuple, tangents: tuple) -> tuple:
    def plain(arguments: tuple) -> Array:
        with jax.default_matmul_precision("highest"):
            problem = prepare(cell, kind, arguments)
            return void(broken_lags(problem.steps), sweep_back_plainly(problem))

    return jax.jvp(plain, primals, tangents)


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
    """The bounds between which the spectral norms of `log_norms` are certified to lie.

    ::

        lower = log √(uᵀ A Aᵀ u)        A = ∂target_T/∂source_k        upper - lower <= 1e-9 nats

    with 5e-5 nats in float32. The bounds hold up to the rounding of the products A themselves,
    and of the test, n eps relative. Arguments and errors are those of `log_norms`.
    """
    mask = valid_steps(check_inputs(inputs), lengths, mask)
    cell, params, carry = open_cell(cell, params, inputs, carry)
    kind = "spectral", source, target
    return norms_through(cell, kind, (params, inputs, carry, mask))[1]


@partial(jax.jit, static_argnums=(0, 1))
def norms_through(
    cell: Cell,
    kind: tuple[Norm, str, str],
    arguments: tuple,
    products: Products | None = None,
) -> tuple[Products, NormCertificate]:
    """Back through a part of a sequence, all rows at every step.

    Args:
      cell: The cell.
      kind: The norm, the source and the target.
      arguments: The parameters, the inputs, s_0 or None, and the mask of real steps or None.
      products: Where the sweep has come to in the steps after these; by default there are none, and
        the norms start at lag 0.
    """
    with jax.default_matmul_precision("highest"):
        problem = prepare(cell, kind, arguments)
        products, norms = sweep_back(problem, products)
        broken = broken_lags(problem.steps)[-len(norms.stage) :]
        return products, certificate_of(norms, broken)


def certificate_of(norms: NormCertificate, broken: Bool[Array, "*lags"]) -> NormCertificate:
    """The certificate of log norms, NaN where they go through a step that is broken."""
    lower, upper = void(broken, (norms.lower, norms.upper))
    return NormCertificate(lower, upper, jnp.where(jnp.isnan(lower), -1, norms.stage))
