"""The choice of a learning rate for each competitor, and runs side by side at their own rates."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray
from studies import load_part

from gradflow.cell import param_shapes
from gradflow.cells import gru, lstm, rnn

cells, runs, tuning = (load_part(f"_kit.{name}") for name in ("cells", "runs", "tuning"))
RATES = (0.001, 0.01, 0.1)
LOSSES = np.array([[[3.0, 3.0], [1.0, 2.0], [0.1, np.nan]], [[2.0, 2.0], [2.0, 2.0], [9.0, 9.0]]])
"""Two competitors, three rates, two validation seeds, one of which diverges at the largest rate."""


@dataclasses.dataclass
class Config:
    seed: int = 0
    num_seeds: int = 3
    num_validation: int = 2


def test_validation_seeds_are_none_of_the_test_seeds():
    test, validation = (jax.random.key_data(keys) for keys in tuning.keys(Config()))
    np.testing.assert_array_equal(test, jax.random.key_data(runs.keys(Config())))
    assert len(validation) == 2 and len(np.unique(np.concatenate([test, validation]), axis=0)) == 5


def test_the_best_rate_has_the_smallest_median_and_divergence_is_the_worst():
    assert tuning.best(LOSSES, RATES) == (0.01, 0.001)
    assert tuning.best(LOSSES[0], RATES) == (0.01,)
    assert tuning.best(np.full((3, 1), np.nan), RATES) == (0.001,)


def test_the_record_states_what_was_tried_and_chosen():
    data = xarray.Dataset(tuning.variables(LOSSES, RATES, "cell"), coords={"cell": ["a", "b"]})
    np.testing.assert_array_equal(data.learning_rate, [0.01, 0.001])
    np.testing.assert_array_equal(data.validation_loss.sel(tried_rate=0.01, cell="a"), [1.0, 2.0])
    shown = [tuning.text(data.sel(cell=cell)) for cell in "ab"]
    assert shown == ["0.01", "0.001 (end of the grid)"]
    assert "of 0.001, 0.01, 0.1, the one" in tuning.note(data)
    assert "of 2 validation seeds," in tuning.note(data)
    assert "of 1 validation seed," in tuning.note(data.isel(validation_seed=[0]))


def test_runs_side_by_side_are_updated_as_alone():
    params = {"W": jnp.arange(6.0).reshape(2, 3), "b": jnp.array([3.0, 4.0])}
    make = lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))  # noqa: E731
    both = tuning.side_by_side(make, jnp.array([0.1, 0.5]))
    state, moved = both.init(params), params
    for _ in range(2):
        updates, state = both.update(jax.tree.map(jnp.sin, moved), state, moved)
        moved = optax.apply_updates(moved, updates)
    for run, rate in enumerate((0.1, 0.5)):
        own = jax.tree.map(lambda leaf, run=run: leaf[run], params)
        alone, state = make(rate), make(rate).init(own)
        for _ in range(2):
            updates, state = alone.update(jax.tree.map(jnp.sin, own), state, own)
            own = optax.apply_updates(own, updates)
        jax.tree.map(
            lambda a, b, run=run: np.testing.assert_allclose(a[run], b, rtol=1e-12), moved, own
        )


@pytest.mark.parametrize(("make", "gates"), [(rnn, 1), (lstm, 4), (gru, 3)])
def test_a_size_has_the_number_of_weights_nearest_to_the_given_one(make, gates):
    def weights(hidden_size):
        return sum(leaf.size for leaf in jax.tree.leaves(param_shapes(make(5, hidden_size))))

    size = cells.size_with(make, 5, 2000)
    errors = [abs(weights(n) - 2000) for n in (size - 1, size, size + 1)]
    assert errors[1] == min(errors) and size == pytest.approx(np.sqrt(2000 / gates), rel=0.2)
    assert cells.size_with(make, 5, 1) == 1
