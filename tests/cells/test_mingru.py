"""The minGRU and the minLSTM against their equations, their Jacobians, and underflowing gates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state, sigmoid

from gradflow.cells.mingru import mingru, minlstm
from gradflow.unroll import unroll

BOTH = pytest.mark.parametrize("factory, keep", [(mingru, lambda g: 1 - g["z"]),
                                                 (minlstm, lambda g: g["f"])])  # fmt: skip


def mingru_reference(params, h, x):
    z = sigmoid(params["z"]["W_x"] @ x + params["z"]["b"])
    return (1 - z) * h + z * (params["n"]["W_x"] @ x + params["n"]["b"])


def minlstm_reference(params, h, x):
    f, i = (sigmoid(params[q]["W_x"] @ x + params[q]["b"]) for q in "fi")
    candidate = params["g"]["W_x"] @ x + params["g"]["b"]
    return f / (f + i) * h + i / (f + i) * candidate


@pytest.mark.parametrize("input_size", [3, 0])
@pytest.mark.parametrize(
    "factory, reference", [(mingru, mingru_reference), (minlstm, minlstm_reference)]
)
def test_step_equals_the_reference(factory, reference, input_size):
    assert_step_matches(factory(input_size, 4), reference, input_size)


@BOTH
def test_step_jacobian_is_the_diagonal_of_the_gate_at_any_state(factory, keep):
    cell = factory(3, 4)
    params, h, x = random_state(cell, 3)
    diagonal = np.asarray(keep(cell.gates(params, h, x)))
    assert ((diagonal > 0) & (diagonal < 1)).all()
    for state in (h, 100 * h):
        jacobian = jax.jacobian(lambda h: cell.step(params, h, x)[0])(state)
        np.testing.assert_array_equal(jacobian, np.diag(diagonal))


@BOTH
def test_gradients_over_time_are_products_of_gates(key, factory, keep):
    cell = factory(2, 3)
    params, h, _ = random_state(cell, 2)
    inputs = jax.random.normal(key, (20, 2))
    last = lambda h: unroll(cell, params, inputs, carry=h).outputs[-1]  # noqa: E731
    gates = [keep(cell.gates(params, h, x)) for x in inputs]
    np.testing.assert_allclose(
        jax.jacobian(last)(h), np.diag(np.prod(np.stack(gates), axis=0)), rtol=1e-13
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_gates_of_the_minlstm_sum_to_one_even_if_both_sigmoids_underflow(dtype):
    cell = minlstm(1, 2)
    zero = jnp.zeros((2, 1), dtype)
    biases = {"f": [-800.0, 60.0], "i": [-801.0, 61.0], "g": [0.0, 0.0]}
    params = {q: {"W_x": zero, "b": jnp.asarray(b, dtype)} for q, b in biases.items()}
    gates = cell.gates(params, jnp.zeros(2, dtype), jnp.zeros(1, dtype))
    rtol = 10 * jnp.finfo(dtype).eps
    np.testing.assert_allclose(gates["f"], [1 / (1 + np.exp(-1)), 0.5], rtol=rtol)
    np.testing.assert_allclose(gates["f"] + gates["i"], 1, rtol=rtol)
    assert gates["f"].dtype == dtype


@BOTH
def test_every_gate_has_its_own_initial_matrix(key, factory, keep):
    initial = [np.asarray(leaves["W_x"]) for leaves in factory(2, 3).init(key).values()]
    assert len({matrix.tobytes() for matrix in initial}) == len(initial)
