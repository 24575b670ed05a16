"""h as any function of the carry: its derivatives where they are defined, else a clear error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow import Cell, flow, unroll
from gradflow.cells import CELLS
from gradflow.flow.blocks import _is_selection
from gradflow.testing import check_cell

W = 0.5 * jax.random.normal(jax.random.key(0), (4, 4))
X = jax.random.normal(jax.random.key(1), (5, 4))


def cell_of(hidden):
    """v_t = W relu(v_{t-1}) + x_t and h_t = hidden(v_t)."""

    def step(W, v, x):
        v = W @ jax.nn.relu(v) + x
        return v, hidden(v)

    return Cell(lambda key: W, step, lambda: jnp.full(4, 0.1), hidden)


RELU, IMAGE = cell_of(jax.nn.relu), cell_of(lambda v: v.reshape(2, 2))


def test_h_of_every_cell_of_the_package_is_a_selection():
    assert [name for name, factory in CELLS.items() if not _is_selection(factory(4, 4))] == []


@pytest.mark.parametrize(
    "hidden",
    [
        jax.nn.relu,
        lambda v: 2 * v,
        lambda v: v[jnp.array([0, 0])],
        lambda v: v[:3] + v[3],
        lambda v: v[:3] + 1,
        lambda v: jnp.zeros(3),
    ],
)
def test_what_is_computed_is_no_selection(hidden):
    assert not _is_selection(cell_of(hidden))


def test_the_target_may_be_any_function_of_the_carry():
    found = flow.log_norms(RELU, W, X, source="carry", target="h")
    carries = unroll(RELU, W, X).carries

    def last(v, k):
        return unroll(RELU, W, X[k:], carry=v).outputs[-1] if k < 5 else jax.nn.relu(v)

    for k in range(6):
        jacobian = jax.jacobian(last)(carries[k], k)
        expected = np.log(np.linalg.norm(jacobian, 2))
        np.testing.assert_allclose(found[5 - k], expected, atol=1e-9)


def test_a_source_that_is_not_in_the_carry_is_refused():
    expected = "Expected a source that is made of entries of the carry, got 'h', .* source='carry'"
    with pytest.raises(ValueError, match=expected):
        flow.log_norms(RELU, W, X)
    with pytest.raises(ValueError, match=expected):
        flow.log_adjoint_norms(RELU, W, X, loss=lambda h: h[-1, 0])
    with pytest.raises(ValueError, match="Expected a target that is made of .* target='carry'"):
        flow.log_norm_map(RELU, W, X, source="carry")


def test_an_image_is_flattened():
    plain = cell_of(lambda v: v)
    for measure in (flow.log_norms, flow.log_norm_map):
        np.testing.assert_allclose(measure(IMAGE, W, X), measure(plain, W, X), atol=1e-9)
    found = flow.components(IMAGE, W, X, loss=lambda h: h[-1, 0, 1])
    expected = flow.components(plain, W, X, loss=lambda h: h[-1, 1])
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("cell", [RELU, IMAGE])
def test_such_cells_keep_the_contract(cell):
    random = cell._replace(init=lambda key: jax.random.normal(key, (4, 4)))
    check_cell(lambda input_size, hidden_size: random, input_size=4)
