"""The step at which NaN and infinity enter a trajectory."""

import jax
import jax.numpy as jnp
import numpy as np

from gradflow import flow
from gradflow.cells import lstm, rnn
from gradflow.unroll import unroll

CELL = lstm(2, 3)


def test_the_first_nonfinite_step_is_that_of_the_first_nan_input():
    params = CELL.init(jax.random.key(0))
    inputs = jnp.zeros((4, 7, 2)).at[1, 4].set(jnp.nan).at[2, 0].set(jnp.inf).at[3, 6].set(jnp.nan)
    find = jax.jit(jax.vmap(lambda x: flow.first_nonfinite_step(unroll(CELL, params, x))))
    np.testing.assert_array_equal(find(inputs), [-1, 5, 1, 7])
    log_norms = jax.vmap(lambda x: flow.log_norms(CELL, params, x))(inputs)
    # The states before the step are whole, but every derivative by them comes through it.
    assert np.isfinite(log_norms[0]).all() and np.isnan(log_norms[1:, 1:]).all()
    found = flow.summary(log_norms, nonfinite_steps=find(inputs))
    assert (found.nonfinite_lag, found.nonfinite_step, found.regime) == (1, 1, "undefined")


def test_a_carry_that_overflows_and_one_that_starts_as_nan():
    cell = rnn(1, 2, activation="identity")
    params = {"W_x": jnp.zeros((2, 1)), "W_h": 1e200 * jnp.eye(2), "b": jnp.zeros(2)}
    inputs = jnp.zeros((5, 1))
    grown = unroll(cell, params, inputs, carry=jnp.ones(2))
    assert flow.first_nonfinite_step(grown) == 2
    assert flow.first_nonfinite_step(unroll(cell, params, inputs, carry=jnp.full(2, jnp.nan))) == 0
