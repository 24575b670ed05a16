"""Cells with heads: their sizes, vectors of length 1, and that no input gives a NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix_states import in_float32

from gradflow.cells import resolve
from gradflow.cells.heads import init_projections, project, unit
from gradflow.testing import check_structure
from gradflow.unroll import unroll

CELLS = [
    "deltanet",
    "gated_deltanet",
    "gla",
    "hgrn2",
    "mlstm",
    "retnet",
    "rwkv7",
    "slstm",
    "ttt_linear",
]

VARIANTS = [f"{name}(num_heads=2)" for name in CELLS] + [
    "deltanet(negative_eigenvalues=True)",
    "mlstm(stabilised=False, forget_gate='exp')",
    "retnet(rotation=False)",
    "slstm(stabilised=False, forget_gate='exp')",
    "ttt_linear(layer_norm=False)",
]


@pytest.mark.parametrize("spec", VARIANTS)
def test_variants_keep_structure_and_float_type(spec):
    check_structure(resolve(spec), hidden_size=6)


@pytest.mark.parametrize("name", CELLS)
def test_gates_that_saturate_and_inputs_that_vanish_give_no_nan(name):
    cell = resolve(name)(3, 4, num_heads=2)
    params = in_float32(cell.init(jax.random.key(0)))
    x = jax.random.normal(jax.random.key(1), (2, 3), jnp.float32)
    inputs = jnp.stack([-1e4 * x[0], 1e4 * x[0], 0 * x[0], 1e-25 * x[1], -1e4 * x[1]])

    def last(params, inputs, carry):
        return unroll(cell, params, inputs, carry=carry).outputs[-1].sum()

    carry = in_float32(cell.initial_carry())
    value, gradients = jax.jit(jax.value_and_grad(last, (0, 1, 2)))(params, inputs, carry)
    for leaf in jax.tree.leaves((value, gradients)):
        assert np.isfinite(leaf).all()


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_unit_has_length_1_for_vectors_of_any_size(scale):
    a = scale * jnp.array([[3.0, 4.0], [0.0, -2.0]], jnp.float32)
    np.testing.assert_allclose(unit(a), [[0.6, 0.8], [0, -1]], rtol=1e-6)
    jacobian = jax.jacobian(lambda a: unit(a[None])[0])(a[0])
    expected = (np.eye(2) - np.outer([0.6, 0.8], [0.6, 0.8])) / 5 / scale
    np.testing.assert_allclose(jacobian, expected, rtol=1e-5)


def test_unit_of_zero_is_zero_with_a_finite_derivative():
    np.testing.assert_array_equal(unit(jnp.zeros((1, 3))), 0)
    assert np.isfinite(jax.jacobian(unit)(jnp.zeros((1, 3)))).all()


def test_projections_have_biases_where_they_are_given(key):
    init = init_projections({"k": 4, "f": 2}, 3, input_init="lecun", biases={"f": 2.5})
    params = init(key)
    assert set(params["k"]) == {"W_x"} and params["f"]["W_x"].shape == (2, 3)
    np.testing.assert_array_equal(params["f"]["b"], [2.5, 2.5])
    x = jnp.array([1.0, -1.0, 2.0])
    np.testing.assert_allclose(project(params["k"], x, 2).ravel(), params["k"]["W_x"] @ x)
    np.testing.assert_allclose(project(params["f"], x, 2)[1, 0], params["f"]["W_x"][1] @ x + 2.5)
