"""The true norms of products, by an SVD of each, and what is wrong with a certificate."""

import functools
import os
import secrets
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from gradflow.cell import Cell
from gradflow.flow.blocks import Blocks
from gradflow.flow.nonfinite import nonfinite_from, set_nan
from gradflow.flow.trace import trace_of
from gradflow.numerics.scaling import rescale, scaled

SEED = int(os.environ.get("GRADFLOW_ADVERSARY_SEED", secrets.randbits(32)))
"""Another in each run, and in each of its workers. Failures show it; the variable repeats it."""

TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
"""Nats between a norm and the truth, and half the largest distance of its bounds."""

ROUNDING = {"float64": 1e-10, "float32": 2e-5}
"""Nats by which a bound may be past the truth: bounds are rigorous up to rounding."""


def generator(name: str) -> np.random.Generator:
    """Random numbers of this run: the same for a name, whatever else runs before."""
    return np.random.default_rng([SEED, zlib.crc32(name.encode())])


def log_norms_by_svd(products: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """log ‖2^exponent · product‖ for each, by NumPy in float64; NaN where an entry is."""
    products = np.asarray(products, np.float64)
    finite = np.isfinite(products).all(axis=(1, 2))
    products = np.where(finite[:, None, None], products, 0)
    # A block may be so much smaller than the rest of the carry that its squares underflow.
    _, shifts = np.frexp(np.abs(products).max(axis=(1, 2)))
    values = np.linalg.svd(np.ldexp(products, -shifts[:, None, None]), compute_uv=False)
    with np.errstate(divide="ignore"):
        log_norms = np.log(values[:, 0]) + (np.asarray(exponents) + shifts) * np.log(2)
    return np.where(finite, log_norms, np.nan)


def log_norms_by_numpy(jacobians: np.ndarray) -> np.ndarray:
    """log ‖M_1 ... M_l‖ for l = 0 ... T by the definition: nothing in it is the library's."""
    rows, exponent = np.eye(jacobians.shape[1]), 0
    products, exponents = [rows], [exponent]
    for jacobian in jacobians:
        rows = rows @ jacobian
        shift = int(np.frexp(np.abs(rows).max())[1])
        rows, exponent = np.ldexp(rows, -shift), exponent + shift
        products.append(rows)
        exponents.append(exponent)
    return log_norms_by_svd(np.stack(products), np.array(exponents))


@functools.partial(jax.jit, static_argnums=(0, 1))
def pulled_products(cell: Cell, blocks: tuple[str, str], params, inputs, carry=None):
    """The blocks (source, target) of the products that the library measures, and their exponents.

    For products whose rounding matters: a direction of relative size d that leads later has been
    rounded by eps / d of itself, differently by each program. NumPy's products are no truth there.
    """
    of = Blocks(*blocks)
    trace = trace_of(cell, params, inputs, carry=carry)
    with jax.default_matmul_precision("highest"):

        def back(product, index):
            product = rescale(trace.pull_rows(index, product.value), product.exponent)
            return product, (of.cut(trace, product.value), product.exponent)

        first = scaled(of.rows(trace))
        _, rest = jax.lax.scan(back, first, jnp.arange(len(inputs))[::-1])
        at_0 = of.cut(trace, first.value)[None], first.exponent[None]
        products, exponents = jax.tree.map(lambda *parts: jnp.concatenate(parts), at_0, rest)
        return set_nan(nonfinite_from(trace)[::-1], products), exponents


def error(measured, truth) -> float:
    """The largest difference; infinite where one is -inf or NaN and the other is not."""
    measured, truth = np.asarray(measured, np.float64), np.asarray(truth)
    same = (measured == truth) | (np.isnan(measured) & np.isnan(truth))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0, np.abs(measured - truth))
    return float(np.where(np.isnan(difference), np.inf, difference).max())


def faults(certificate, truth, tolerance: float, rounding: float) -> list[str]:
    """What is wrong with a certificate: bounds that do not hold, or lie too far apart."""
    lower, upper = (np.asarray(bound, np.float64) for bound in certificate[:2])
    stage = np.asarray(certificate.stage)
    with np.errstate(invalid="ignore"):
        excesses = {
            "the lower bound is above the truth": (lower - truth, rounding),
            "the upper bound is below the truth": (truth - upper, rounding),
            "the bounds are apart": (np.where(lower == upper, 0, upper - lower), 2 * tolerance),
        }
    found = [
        f"{what} by {np.nanmax(by):.1e}"
        for what, (by, most) in excesses.items()
        if (by > most).any()
    ]
    for bound in (lower, upper):
        if not (np.isnan(bound) == np.isnan(truth)).all():
            found.append("a bound and the truth are not NaN at the same places")
    if (np.where(np.isnan(truth), stage != -1, (stage < 0) | (stage > 4))).any():
        found.append(f"the stages are {np.unique(stage)}")
    return found


def fail_if_any(offenders: dict) -> None:
    """Fails with all that are found, and the seed that repeats them."""
    found = {name: what for name, what in offenders.items() if what}
    assert not found, f"{found}; GRADFLOW_ADVERSARY_SEED={SEED} repeats it"


def beyond(tolerance: float, difference: float) -> float | None:
    """A difference that is larger than the tolerance, or no number."""
    return None if difference <= tolerance else difference
