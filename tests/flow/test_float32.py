"""The accuracy of measurements in float32 with products in full precision, as on an accelerator.

The bounds are those of docs/measurements.md. The parameters and inputs are numbers of float32 in
both precisions, and no network is chaotic, so that the trajectories stay together.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow import flow
from gradflow.cells import CELLS

T, HIDDEN = 100, 36  # more than 32 rows, whose norms are searched for and not decomposed


def of_last(outputs):
    return jnp.sum(outputs[-1])


BOUNDS = {
    "log_norms": (flow.log_norms, {}, 1e-4),
    "log_norms frobenius": (flow.log_norms, {"norm": "frobenius"}, 1e-4),
    "log_input_norms": (flow.log_input_norms, {}, 1e-4),
    "log_norm_map": (flow.log_norm_map, {}, 1e-4),
    "log_adjoint_norms": (flow.log_adjoint_norms, {"loss": of_last}, 1e-4),
    "components": (flow.components, {"loss": of_last}, 1e-4),
    "lyapunov_exponents": (flow.lyapunov_exponents, {}, 1e-4),
    "log_singular_values": (flow.log_singular_values, {}, 1e-3),
}
"""The measurement, its options, and the largest absolute error in nats."""


@pytest.mark.slow  # compiles eight measurements in two precisions, of sizes at which errors add up
@pytest.mark.parametrize("name", ["lstm", "rnn"])
def test_errors_of_float32_are_within_the_bounds_that_are_stated(name):
    cell = CELLS[name](3, HIDDEN)
    params = jax.tree.map(jnp.float32, cell.init(jax.random.key(0)))
    inputs = jax.random.normal(jax.random.key(1), (T, 3), jnp.float32)
    exact = jax.tree.map(jnp.float64, (params, inputs))
    errors = {}
    for label, (measure, options, bound) in BOUNDS.items():
        steps = 30 if label == "log_singular_values" else T
        found = measure(cell, params, inputs[:steps], **options)
        truth = measure(cell, exact[0], exact[1][:steps], **options)
        if label == "lyapunov_exponents":
            found, truth = found.exponents, truth.exponents
        leaves = zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True)
        off = [np.abs(np.asarray(a, float) - b)[np.isfinite(b)].max(initial=0) for a, b in leaves]
        if not max(off) < bound:
            errors[label] = max(off)
    assert errors == {}
