"""The recurrent highway network against its equations, the UGRNN, and Geršgorin's circles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state

from gradflow.cells.highway import rhn
from gradflow.cells.minimal import ugrnn


def reference(params, s, x):
    for number, layer in enumerate(params):
        a = {q: p["W_h"] @ s + p["b"] for q, p in layer.items()}
        if number == 0:
            a = {q: a[q] + layer[q]["W_x"] @ x for q in a}
        h, t = np.tanh(a["n"]), 1 / (1 + np.exp(-a["t"]))
        s = h * t + s * (1 - t)
    return s


@pytest.mark.parametrize("depth, input_size", [(1, 3), (3, 3), (2, 0)])
def test_step_equals_the_reference(depth, input_size):
    assert_step_matches(rhn(input_size, 4, depth=depth), reference, input_size, depth)


def test_one_layer_is_an_ugrnn_with_the_opposite_gate():
    cell = rhn(3, 4, depth=1)
    params, h, x = random_state(cell, 3)
    opposite = jax.tree.map(jnp.negative, params[0]["t"])
    same = ugrnn(3, 4).step({"g": opposite, "c": params[0]["n"]}, h, x)[0]
    np.testing.assert_allclose(cell.step(params, h, x)[0], same, rtol=1e-13)


def test_shut_transform_gates_copy_the_state_through_all_layers():
    cell = rhn(3, 4, depth=5, transform_bias=-60.0)
    params, h, x = cell.init(jax.random.key(0)), jnp.linspace(-1, 1, 4), jnp.ones(3)
    jacobian = jax.jacobian(lambda h: cell.step(params, h, x)[0])(h)
    np.testing.assert_allclose(jacobian, np.eye(4), atol=1e-14)
    assert list(cell.gates(params, h, x)) == ["t1", "t2", "t3", "t4", "t5"]
    assert max(t.max() for t in cell.gates(params, h, x).values()) < 1e-20


def test_the_eigenvalues_are_in_the_circles_of_the_paper():
    """Equation 10: centres from t ∘ (diagonal of H') + 1 - t, radii from the rest of the row."""
    cell = rhn(2, 5, depth=1)
    params, h, x = random_state(cell, 2)
    (gates,) = cell.gates(params, h, x).values()
    t, p = np.asarray(gates), jax.tree.map(np.asarray, params[0])
    n = np.tanh(p["n"]["W_x"] @ x + p["n"]["W_h"] @ h + p["n"]["b"])
    rows = (t * (1 - n**2))[:, None] * p["n"]["W_h"]
    rows += ((n - h) * t * (1 - t))[:, None] * p["t"]["W_h"]
    centres, radii = np.diag(rows) + 1 - t, np.abs(rows).sum(1) - np.abs(np.diag(rows))
    jacobian = jax.jacobian(lambda h: cell.step(params, h, x)[0])(h)
    np.testing.assert_allclose(jacobian, rows + np.diag(1 - t), rtol=1e-12)
    inside = np.abs(np.linalg.eigvals(jacobian)[:, None] - centres) <= radii + 1e-12
    assert inside.any(axis=1).all()


def test_initial_parameters_are_those_of_the_layers(key):
    params = rhn(2, 3, depth=2, transform_bias=-4.0).init(key)
    assert [sorted(layer["t"]) for layer in params] == [["W_h", "W_x", "b"], ["W_h", "b"]]
    for layer in params:
        np.testing.assert_array_equal(layer["t"]["b"], np.full(3, -4.0))
        np.testing.assert_array_equal(layer["n"]["b"], np.zeros(3))
    assert not np.allclose(params[0]["n"]["W_h"], params[1]["n"]["W_h"])
