"""The task of reading a text: its windows, its baseline, and what counts as correct."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from studies import load_part

reading = load_part("char_lm.reading").reading


def test_a_sample_is_a_window_of_the_text():
    codes = np.array([0, 1, 2, 3, 0, 2], np.int32)
    task = reading(codes, 4, 3)
    batch = task.sample(jax.random.key(0), 20)
    windows = {(0, 1, 2, 3), (1, 2, 3, 0), (2, 3, 0, 2)}
    read = np.asarray(jnp.argmax(batch.inputs, axis=-1))
    assert {tuple(window) for window in np.concatenate([read, batch.targets[-1:]]).T} == windows
    np.testing.assert_array_equal(batch.targets[:-1], read[1:])
    np.testing.assert_allclose(task.baseline, (2 * np.log(3) + np.log(6)) / 3)
    predictions = jax.nn.one_hot(batch.targets, 4)
    assert task.correct(predictions, batch).all()
    assert not task.correct(predictions.at[1, 3].set(-predictions[1, 3]), batch)[3]


def test_a_text_without_such_a_window_is_refused():
    with pytest.raises(ValueError, match="Expected a text of more than 6 symbols, got 6"):
        reading(np.zeros(6, int), 4, 6)
