"""What the studies of training share: settings side by side, outcomes, files of users' cells."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from studies import load_part

from gradflow.cells import rnn
from gradflow.statistics import Estimate
from gradflow.tasks import resolve_task
from gradflow.train.clipping import resolve_clipping
from gradflow.train.optimisers import resolve_optimiser
from gradflow.train.runs import begin
from gradflow.train.training import Training

decisions, outcomes, runs, trained = (
    load_part(f"_kit.{name}") for name in ("decisions", "outcomes", "runs", "trained")
)
TRAINING = Training(rnn(2, 3), resolve_task("adding(num_steps=4)"), resolve_optimiser("sgd"))


def test_a_seed_has_the_same_network_and_sequences_in_every_setting():
    keys = jax.random.split(jax.random.key(0), 3)
    found = trained.begin(TRAINING, keys, [(0.1, 1.0), (0.2, 2.0)])
    np.testing.assert_array_equal(found.learning_rate, [0.1] * 3 + [0.2] * 3)
    np.testing.assert_array_equal(found.clip_threshold, [1.0] * 3 + [2.0] * 3)
    expected = begin(TRAINING, keys, jnp.full(3, 0.1))
    for half in (slice(3), slice(3, 6)):
        data = (jax.random.key_data(one) for one in (found.key[half], keys))
        np.testing.assert_array_equal(*data)
        same = jax.tree.map(lambda leaf, half=half: leaf[half], found.params)
        jax.tree.map(np.testing.assert_array_equal, same, expected.params)


def test_a_training_is_set_up_from_specs_and_the_sizes_of_the_configuration():
    config = SimpleNamespace(batch_size=3, num_updates=5)
    given = {"optimiser": "sgd", "clipping": "global_norm", "eval_size": 7}
    found = trained.setup(config, TRAINING.cell, TRAINING.task, **given)
    assert (found.batch_size, found.eval_size, found.regulariser) == (3, 7, None)
    assert found.clipping.threshold == resolve_clipping("global_norm").threshold
    assert found.optimiser.learning_rate == TRAINING.optimiser.learning_rate
    assert trained.setup(config, TRAINING.cell, TRAINING.task, batch_size=4).batch_size == 4


def test_cells_of_a_study_s_own_take_the_place_of_the_initial_ones():
    keys = jax.random.split(jax.random.key(0), 2)
    initial = begin(TRAINING, keys, jnp.full(2, 0.1)).params
    cells = jax.tree.map(lambda leaf: leaf + 1, initial["cell"])
    found = trained.begin(TRAINING, keys, [(0.1,)], cells)
    jax.tree.map(np.testing.assert_array_equal, found.params["cell"], cells)
    jax.tree.map(np.testing.assert_array_equal, found.params["readout"], initial["readout"])


def test_several_cells_are_initialised_from_the_same_keys():
    keys = jax.random.split(jax.random.key(0), 3)
    cells = [rnn(2, 4, recurrent_init=init) for init in ("identity", "glorot")]
    found = runs.initialise_each(cells, keys)
    for number, cell in enumerate(cells):
        expected = cell.init(keys[2])
        one = jax.tree.map(lambda leaf, number=number: leaf[number, 2], found)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-14), one, expected)


def test_outcomes_of_the_runs_of_a_setting():
    solved_at = np.array([40.0, np.nan, 60.0])
    for form in (solved_at, xarray.DataArray(solved_at, dims="seed")):
        assert outcomes.row(form) == {"solved": "2 of 3", "updates to solve": "50"}
    assert outcomes.row(np.full(2, np.nan)) == {"solved": "0 of 2", "updates to solve": "-"}
    data = xarray.Dataset(
        {
            "loss": (("update", "seed"), [[9.0, 9.0, 9.0], [1.0, 3.0, np.nan]]),
            "died_at": ("seed", [np.nan, np.nan, 5.0]),
        }
    )
    assert outcomes.final_loss(data) == 2.0
    assert np.isnan(outcomes.final_loss(data.isel(seed=[2])))


def test_names_are_joined_to_the_id_of_a_claim():
    assert decisions.identifier("helps", "adding(num_steps=6)") == "helps-adding-num-steps-6"


@pytest.mark.parametrize(
    ("ends", "expected"), [((0.1, 0.2), True), ((-0.2, -0.1), True), ((-0.1, 0.1), None)]
)
def test_only_an_interval_without_0_shows_that_a_number_is_not_0(ends, expected):
    assert decisions.nonzero(Estimate(0.0, *ends)) is expected
