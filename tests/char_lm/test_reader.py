"""A training of a model of a text against a loop written out, and its resumption."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from studies import load_part

from gradflow.cells import lstm
from gradflow.train import Schedule, fit, resolve_clipping, resolve_optimiser

LANGUAGE_MODULE, READER = load_part("char_lm.language"), load_part("char_lm.reader")

NUM_SYMBOLS, WINDOW = 3, 2
CELL = lstm(NUM_SYMBOLS, 2)
SCHEDULE = Schedule(num_updates=6, eval_every=2, probe_every=4)
LANGUAGE = LANGUAGE_MODULE.Language(
    CELL,
    NUM_SYMBOLS,
    resolve_optimiser("sgd"),
    resolve_clipping("none"),
    window=WINDOW,
    num_updates=8,  # of which six are made: their rates are exact in float32
    final_rate=0.25,
)
CODES = np.random.default_rng(0).integers(0, NUM_SYMBOLS, (9, 2)).astype(np.int32)
HELD_OUT = np.random.default_rng(1).integers(0, NUM_SYMBOLS, (6, 3)).astype(np.int32)
WEIGHTS = np.arange(6)[:, None] >= np.array([1, 2, 4])
TEXT = READER.Text(*map(jnp.asarray, (CODES, HELD_OUT, WEIGHTS)))


def readout(params):
    return {"W": np.asarray(params["readout"]["W"])}


def state_0():
    return LANGUAGE_MODULE.initial_state(LANGUAGE, jax.random.key(0), 2, 1.0)


def fits(folder=None, cell="lstm"):
    source = READER.streams(LANGUAGE, state_0(), TEXT, measure=readout)
    return fit(source, SCHEDULE, folder=folder, identity={"cell": cell})


@pytest.fixture(scope="module")
def end():
    *_, last = fits()
    return last


def s_0(streams):
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * streams), CELL.initial_carry())


@jax.jit
def nats(params, codes, carry):
    """Of each symbol after the first, given those before it, (steps, streams); and the carry."""
    losses = []
    for now, after in zip(codes[:-1], codes[1:], strict=True):
        x = jnp.eye(NUM_SYMBOLS)[now]
        carry, h = jax.vmap(CELL.step, (None, 0, 0))(params["cell"], carry, x)
        scores = h @ params["readout"]["W"].T + params["readout"]["b"]
        chosen = jnp.take_along_axis(scores, after[:, None], axis=1)[:, 0]
        losses.append(jnp.log(jnp.sum(jnp.exp(scores), axis=1)) - chosen)
    return jnp.stack(losses), carry


def test_training_equals_a_plain_loop_that_passes_the_carry_between_windows(end):
    """Six windows of the four that there are: after the last, the text begins again from s_0."""

    def loss(params, codes, carry):
        losses, after = nats(params, codes, carry)
        return losses.mean(), after

    slope = jax.jit(jax.value_and_grad(loss, has_aux=True))
    params, carry = state_0().params, s_0(2)
    bits, learnt, probed = [], [np.nan], []
    for update in range(7):
        if update % 2 == 0:
            each = nats(params, HELD_OUT, s_0(3))[0]
            bits.append((each * WEIGHTS[1:]).sum(axis=0) / WEIGHTS.sum(axis=0) / np.log(2))
        if update % 4 == 0:
            probed.append(params["readout"]["W"])
        if update == 6:
            break
        first = WINDOW * (update % 4)
        carry = s_0(2) if first == 0 else carry
        (value, carry), gradient = slope(params, CODES[first : first + WINDOW + 1], carry)
        rate = 1 - 0.75 * update / 8
        params = jax.tree.map(lambda p, g, rate=rate: p - rate * g, params, gradient)
        learnt.append(value / np.log(2))
    np.testing.assert_allclose(end.metrics["stretch_bits"], bits, rtol=1e-10)
    means = [np.nan, *np.reshape(learnt[1:], (3, 2)).mean(axis=1)]
    np.testing.assert_allclose(end.metrics["train_bits"], means, rtol=1e-10)
    np.testing.assert_allclose(end.probes["W"], probed, rtol=1e-10)
    assert end.update == 6 and int(end.state.update) == 6


def test_an_interrupted_training_resumes_to_the_same_bits(end, tmp_path, monkeypatch):
    folder, advance, done = tmp_path / "kept", READER.advance, []

    def interrupt_third(*arguments):
        done.append(len(done))
        if len(done) == 3:
            raise KeyboardInterrupt
        return advance(*arguments)

    monkeypatch.setattr(READER, "advance", interrupt_third)
    with pytest.raises(KeyboardInterrupt):
        list(fits(folder))
    first, last = fits(folder)
    assert first.update == 4 and np.isnan(first.metrics["bits"][3]) and len(done) == 4
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(last), jax.device_get(end))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines] == [0, 2, 4, 6]
    np.testing.assert_allclose([line["bits"] for line in lines], end.metrics["bits"])
    np.testing.assert_allclose(end.metrics["bits"], end.metrics["stretch_bits"].mean(axis=1))
    with pytest.raises(ValueError, match="cell"):
        next(fits(folder, cell="gru"))
