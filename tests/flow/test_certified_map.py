"""The map of every pair and its bounds, on products that are hard for a search."""

import functools

import adversaries
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from products import as_inputs, given
from truths import TOLERANCE, beyond, error, fail_if_any, faults, generator, log_norms_by_numpy

from gradflow import flow
from gradflow.numerics.spectral import SMALL

SIZE = SMALL + 3
"""Above the size up to which every norm is decomposed."""

STEPS = {"short": 40, "long": 260}
ROWS = {
    # Rows on both sides of the borders between tiles of any side, and beyond 256 steps.
    "short": {1, 15, 16, 33, 40},
    "long": {7, 8, 31, 32, 63, 64, 127, 128, 255, 256, 257, 260},
}

IN_FLOAT32 = ("noisy_orthogonal", "hopping, rotated", "equal, right_turning", "gaussian")
"""A pair is measured by two factors, and the rounding of one shows in the product where that is
much smaller than the factors, as it is of a late direction. Here it is not."""


@functools.cache
def families(length: str) -> dict[str, np.ndarray]:
    """Step Jacobians (T, n, n) in the order of the lag: one of each family, or of two."""
    names = adversaries.of_size(SIZE)
    if length == "long":
        names = ["near_degenerate, rotated", str(generator("of the map").choice(names))]
    made = adversaries.FAMILIES
    return {name: made[name](generator(f"{name} {length}"), STEPS[length], SIZE) for name in names}


@functools.cache
def truths(length: str) -> dict[str, dict[int, np.ndarray]]:
    """By family and t, the log norms at k = 0 ... t."""
    num_steps = STEPS[length]
    rows = ROWS[length] | {int(generator(length).integers(num_steps))}
    return {
        name: {t: log_norms_by_numpy(of_lag[num_steps - t :])[::-1] for t in rows}
        for name, of_lag in families(length).items()
    }


@functools.cache
def program(measure):
    def one(inputs):
        return measure(given(SIZE), {}, inputs, carry=jnp.zeros(SIZE, inputs.dtype))

    return jax.jit(lambda inputs: jax.lax.map(one, inputs))


def each(measure, of_lag: list[np.ndarray], dtype: str = "float64"):
    """What is measured of each product, one after the other in one program."""
    inputs = jnp.stack([as_inputs(one[::-1]) for one in of_lag])
    return jax.tree.map(np.asarray, program(measure)(inputs.astype(dtype)))


@functools.cache
def measured(measure, length: str):
    return each(measure, list(families(length).values()))


def one_of(found, index):
    return jax.tree.map(lambda leaf: leaf[index], found)


@pytest.mark.parametrize("length", STEPS)
def test_every_family_lies_within_its_bounds(length):
    found = measured(flow.norm_map_certificate, length)
    future = ~np.tri(STEPS[length] + 1, dtype=bool)
    for bound in found[:2]:
        assert np.isnan(bound[:, future]).all()
    offenders = {}
    for i, (name, rows) in enumerate(truths(length).items()):
        for t, truth in rows.items():
            row = one_of(found, np.s_[i, t, : t + 1])
            offenders[f"{name}, t = {t}, norms"] = beyond(1e-6, error(row.lower, truth))
            offenders[f"{name}, t = {t}, bounds"] = faults(row, truth, 1e-6, 1e-7)
    fail_if_any(offenders)


def test_the_last_row_equals_the_norms_by_lag():
    by_lag = each(flow.log_norms, list(families("short").values()))
    last = measured(flow.norm_map_certificate, "short").lower[:, -1, ::-1]
    np.testing.assert_allclose(last, by_lag, rtol=0, atol=1.1e-6)


def test_float32_where_the_products_are_well_conditioned():
    jacobians = [adversaries.FAMILIES[name](generator(name), 60, SIZE) for name in IN_FLOAT32]
    found = each(flow.norm_map_certificate, jacobians, "float32")
    assert found.lower.dtype == found.upper.dtype == "float32"
    offenders = {}
    for i, name in enumerate(IN_FLOAT32):
        truth = log_norms_by_numpy(jacobians[i].astype("float32").astype("float64"))[::-1]
        bounds = one_of(found, np.s_[i, -1])
        offenders[f"{name}, norms"] = beyond(TOLERANCE["float32"], error(bounds.lower, truth))
        offenders[f"{name}, bounds"] = faults(bounds, truth, TOLERANCE["float32"], 5e-5)
    fail_if_any(offenders)
