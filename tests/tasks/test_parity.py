"""Parity and modular arithmetic: targets by hand and by Python's own arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow.tasks.parity import modular_arithmetic, parity


def test_the_target_of_parity_is_that_of_the_ones_so_far():
    batch = jax.jit(lambda key: parity(num_steps=9).sample(key, 50))(jax.random.key(1))
    ones = np.asarray(batch.inputs[..., 1])
    expected = [[int(ones[: t + 1, b].sum()) % 2 for b in range(50)] for t in range(9)]
    np.testing.assert_array_equal(batch.targets, expected)
    assert (np.asarray(batch.inputs).sum(axis=-1) == 1).all() and (batch.weights == 1).all()


@pytest.mark.parametrize("modulus", [3, 5])
@pytest.mark.parametrize("num_steps", [10, 11])
def test_the_target_of_arithmetic_is_what_python_computes(num_steps, modulus):
    task = modular_arithmetic(num_steps=num_steps, modulus=modulus)
    batch = jax.jit(lambda key: task.sample(key, 80))(jax.random.key(2))
    names = [*map(str, range(modulus)), "+", "-", "*"]
    symbols = np.asarray(jnp.argmax(batch.inputs, axis=-1))
    for sequence, targets in zip(symbols.T, np.asarray(batch.targets).T, strict=True):
        for t in range(0, num_steps, 2):
            text = "".join(names[symbol] for symbol in sequence[: t + 1])
            assert eval(text) % modulus == targets[t], text
    assert set(np.unique(symbols[1::2])) == {modulus, modulus + 1, modulus + 2}
    weights = np.repeat((np.arange(num_steps) % 2 == 0)[:, None], 80, axis=1)
    np.testing.assert_array_equal(batch.weights, weights)


def test_options_are_checked():
    with pytest.raises(ValueError, match="num_steps"):
        parity(num_steps=0)
    with pytest.raises(ValueError, match="num_steps"):
        modular_arithmetic(num_steps=0)
    with pytest.raises(ValueError, match="modulus"):
        modular_arithmetic(modulus=1)
