"""The model of a text: its updates, its bits, and what it writes, against plain loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from studies import load_part

from gradflow.cells import gru
from gradflow.train import resolve_clipping, resolve_optimiser

LANGUAGE_MODULE = load_part("char_lm.language")
Language, advance, bits = LANGUAGE_MODULE.Language, LANGUAGE_MODULE.advance, LANGUAGE_MODULE.bits
initial_state, num_windows = LANGUAGE_MODULE.initial_state, LANGUAGE_MODULE.num_windows
write = load_part("char_lm.writing").write

NUM_SYMBOLS, WINDOW = 4, 3
CELL = gru(NUM_SYMBOLS, 3)
LANGUAGE = Language(
    CELL,
    NUM_SYMBOLS,
    resolve_optimiser("sgd"),
    resolve_clipping("none"),
    window=WINDOW,
    num_updates=4,
    final_rate=0.5,
)
CODES = np.random.default_rng(0).integers(0, NUM_SYMBOLS, (8, 2)).astype(np.int32)


def read(params, codes, carries):
    """Step by step over streams: the nats of what comes next in each, and the carries."""
    losses = []
    for now, after in itertools.pairwise(codes):
        carries, h = jax.vmap(CELL.step, (None, 0, 0))(
            params["cell"], carries, jnp.eye(NUM_SYMBOLS)[now]
        )
        scores = h @ params["readout"]["W"].T + params["readout"]["b"]
        shares = jnp.exp(scores) / jnp.exp(scores).sum(axis=1, keepdims=True)
        losses.append(-jnp.log(shares[jnp.arange(len(after)), after]))
    return jnp.stack(losses), carries


def test_updates_are_those_of_truncated_windows_with_the_carry_kept():
    """Two windows, and the first again: the last symbols are less than a window."""
    state = initial_state(LANGUAGE, jax.random.key(0), 2, 2.0)
    params = jax.device_get(state.params)  # a copy: the state is given up
    s_0 = carry = jnp.stack([CELL.initial_carry()] * 2)
    state, losses = advance(LANGUAGE, state, jnp.asarray(CODES), 3)

    @jax.jit
    def step(params, codes, carry):
        def loss(params):
            losses, last = read(params, codes, carry)
            return losses.mean(), last

        return jax.value_and_grad(loss, has_aux=True)(params)

    for update, first in enumerate((0, WINDOW, 0)):
        carry = s_0 if first == 0 else carry
        (loss, carry), gradient = step(params, CODES[first : first + WINDOW + 1], carry)
        rate = 2.0 * (1 - 0.5 * update / 4)
        params = jax.tree.map(lambda p, g, rate=rate: p - rate * g, params, gradient)
        np.testing.assert_allclose(losses[update], loss, rtol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), state.params, params)


def test_bits_count_weighted_symbols_of_a_stretch_read_without_a_reset():
    params = initial_state(LANGUAGE, jax.random.key(1), 2, 2.0).params
    weights = np.ones((8, 2), bool)
    weights[0], weights[6:, 1] = False, False
    losses, _ = read(params, CODES, jnp.stack([CELL.initial_carry()] * 2))
    expected = [losses[:, 0].mean() / np.log(2), losses[:5, 1].mean() / np.log(2)]
    found = bits(LANGUAGE, params, jnp.asarray(CODES), jnp.asarray(weights))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_low_temperature_samples_the_likeliest_symbol_and_one_the_distribution():
    params = initial_state(LANGUAGE, jax.random.key(2), 1, 2.0).params
    params["readout"]["W"] = 8 * params["readout"]["W"]
    drawn = list(
        itertools.islice(write(CELL, params, np.array([1, 3]), jax.random.key(0), 1e-6), 5)
    )
    carry, expected, given = CELL.initial_carry(), [], [1, 3, *drawn]
    for code in given[:-1]:
        carry, h = CELL.step(params["cell"], carry, jnp.eye(NUM_SYMBOLS)[code])
        scores = params["readout"]["W"] @ h + params["readout"]["b"]
        expected.append(int(jnp.argmax(scores)))
    assert drawn == expected[1:]
    level = jax.tree.map(jnp.zeros_like, params)
    level["readout"]["b"] = jnp.log(jnp.array([1.0, 2.0, 4.0, 1.0])) * 3
    drawn = list(itertools.islice(write(CELL, level, np.array([0]), jax.random.key(0), 3.0), 400))
    np.testing.assert_allclose(np.bincount(drawn) / 400, np.array([1, 2, 4, 1]) / 8, atol=0.08)


def test_bad_values_are_refused():
    params = initial_state(LANGUAGE, jax.random.key(0), 1, 2.0).params
    with pytest.raises(ValueError, match="Expected a positive temperature, got 0"):
        next(write(CELL, params, np.array([0]), jax.random.key(0), 0.0))
    with pytest.raises(ValueError, match="Expected at least one symbol to begin from"):
        next(write(CELL, params, np.array([], int), jax.random.key(0), 1.0))
    with pytest.raises(ValueError, match="Expected streams of more than window=5 symbols"):
        num_windows(5, 5)
