import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow import flow
from gradflow.cell import Cell
from gradflow.cells import lstm, rnn
from gradflow.flow.cut_slopes import FUNCTIONS, PRECISIONS, cut_range


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_range_ends_where_the_machine_derivative_becomes_zero(name, precision):
    for end, sign in zip(cut_range(name, precision), (-1, 1), strict=True):
        if np.isinf(end):
            at, zero = sign * np.linspace(0, 80, 81), np.zeros(81, bool)
        else:
            at = end * np.array([0.0, 0.5, 0.97, 1.0, 1.03, 1.5])
            zero = np.array([False, False, False, True, True, True])
        z = jnp.asarray(at).astype(precision)
        slopes = jax.jvp(FUNCTIONS[name], (z,), (jnp.ones_like(z),))[1]
        np.testing.assert_array_equal(np.asarray(slopes) == 0, zero)


def with_inputs_as(function):
    """A cell that applies a function to its input and adds what it has kept."""

    def step(params, h, x):
        h = 0.5 * h + function(x)
        return h, h

    return Cell(lambda key: {}, step, lambda: jnp.zeros(4))


def test_the_slopes_are_counted_by_step_and_precision():
    x = jnp.array([[0.0, 1.0, 2.0, -3.0], [3.0, 7.0, -21.0, 6.0], [30.0, -30.0, 0.0, 5.0]])
    found = flow.cut_slopes(with_inputs_as(jnp.tanh), {}, x)
    np.testing.assert_array_equal(found.total, [4, 4, 4])
    np.testing.assert_array_equal(found.cut["float64"], [0, 1, 2])
    np.testing.assert_array_equal(found.cut["float32"], [0, 1, 2])
    np.testing.assert_array_equal(found.cut["bfloat16"], [0, 3, 3])
    np.testing.assert_array_equal(found.fraction()["float16"], [0, 0.75, 0.75])


def test_slopes_are_found_in_loops_and_branches_but_not_under_custom_rules():
    def nested(x):
        twice = jax.lax.scan(lambda y, _: (y, jnp.tanh(y)), x, None, length=2)[1]
        three = jax.lax.fori_loop(0, jnp.int32(x[0]), lambda _, y: x + 0 * jnp.tanh(x), x)
        one = jax.lax.cond(x[0] > 0, jnp.tanh, lambda x: jax.nn.sigmoid(jnp.tanh(x)), x)
        return jnp.sum(twice, axis=0) + three + one + jax.nn.softplus(x)

    found = flow.cut_slopes(with_inputs_as(nested), {}, jnp.array([[3.0, 50.0, 50.0, 50.0]]))
    np.testing.assert_array_equal(found.total, [(2 + 3 + 1) * 4])
    np.testing.assert_array_equal(found.cut["float64"], [(2 + 3 + 1) * 3])


def test_an_lstm_has_five_slopes_a_unit_and_padding_none():
    cell = lstm(3, 4)
    params = cell.init(jax.random.key(0))
    params["f"]["b"] = jnp.full(4, 60.0)
    x = jax.random.normal(jax.random.key(1), (5, 3))
    found = flow.cut_slopes(cell, params, x, lengths=3)
    np.testing.assert_array_equal(found.total, [20, 20, 20, np.nan, np.nan])
    np.testing.assert_array_equal(found.cut["float32"][:3], [4, 4, 4])
    np.testing.assert_array_equal(jnp.isnan(found.cut["float16"]), jnp.arange(5) >= 3)


def test_a_cell_without_such_functions_has_none_and_a_batch_is_mapped():
    cell = rnn(3, 4, activation="relu")
    x = jax.random.normal(jax.random.key(1), (2, 5, 3))
    params = cell.init(jax.random.key(0))
    found = jax.vmap(lambda x: flow.cut_slopes(cell, params, x))(x)
    np.testing.assert_array_equal(found.total, np.zeros((2, 5)))
    assert jnp.isnan(found.fraction()["float64"]).all()


def test_without_64_bit_types_float64_is_left_out():
    with jax.enable_x64(False):
        found = flow.cut_slopes(with_inputs_as(jnp.tanh), {}, jnp.full((1, 4), 21.0))
    assert set(found.cut) == {"float32", "bfloat16", "float16"}
    assert found.cut["float32"][0] == 4
