"""The study of chaos: its record, its numbers by NumPy, its claims."""

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from studies import load

from gradflow.cells import rnn

MODULE = load("lyapunov")
EXPERIMENT = MODULE.EXPERIMENT
SIZE, GAIN, BURN_IN, NUM_STEPS = 5, 4.0, 20, 200
FLAGS = ["--quick", f"--hidden_sizes={SIZE}", f"--gains=0.5,{GAIN}", f"--num_steps={NUM_STEPS}"]


def by_numpy(run):
    """The sum of all exponents, and the steps to lose the perturbation, of the larger gain."""
    key = jax.random.split(jax.random.key(0), 3)[run]
    k_params, k_inputs, k_push = jax.random.split(key, 3)
    cell = rnn(SIZE, SIZE, recurrent_init="normal(gain=1)", input_init="identity")
    w = GAIN * np.asarray(cell.init(k_params)["W_h"])
    x = 0.1 * np.asarray(jax.random.normal(k_inputs, (BURN_IN + NUM_STEPS, SIZE)))
    push = np.asarray(jax.random.normal(k_push, (SIZE,)))
    h, other, log_det, lost = np.zeros(SIZE), None, 0.0, np.inf
    for t in range(BURN_IN + NUM_STEPS):
        if t == BURN_IN:
            other = h + 1e-7 * np.linalg.norm(h) * push / np.linalg.norm(push)
        h = np.tanh(w @ h + x[t])
        if other is None:
            continue
        log_det += np.log(np.abs(np.linalg.det((1 - h**2)[:, None] * w)))
        other = np.tanh(w @ other + x[t])
        apart = np.linalg.norm(h - other) / np.linalg.norm(h)
        lost = min(lost, t - BURN_IN + 1) if apart >= 0.1 else lost
    return log_det / NUM_STEPS, lost


def test_exponents_and_times_are_those_of_numpy(dataset):
    nets = dataset.sel(hidden_size=SIZE, gain=GAIN)
    found = [by_numpy(run) for run in range(3)]
    np.testing.assert_allclose(nets.exponent.sum("index"), [s for s, _ in found], atol=1e-8)
    # In chaos rounding may move the time of a loss by a step.
    np.testing.assert_allclose(nets.steps_to_lose, [lost for _, lost in found], atol=1)


def record(exponent, steps, accuracy):
    """A record of two widths, with the largest exponent of gains 0.5, 1, 2, alike in two runs."""
    both = np.ones((2, 1, 2))
    return xarray.Dataset(
        {
            "exponent": (
                ("hidden_size", "gain", "run", "index"),
                (np.array(exponent)[None, :, None] * both)[..., None],
            ),
            "steps_to_lose": (
                ("hidden_size", "gain", "run"),
                np.array(steps)[None, :, None] * both,
            ),
            "accuracy": (("gain", "run"), np.array(accuracy)[:, None] * both[0]),
        },
        coords={"hidden_size": [4, 8], "gain": [0.5, 1.0, 2.0], "index": [0]},
        attrs={"perturbation": 1e-7, "delay": 2},
    )


def verdicts(data):
    return [claim.verdict for claim in EXPERIMENT.claims(data)]


def test_the_claims_are_decided_by_the_numbers():
    time = np.log(1e6) / 0.2
    exponent = [-0.5, -0.1, 0.2]
    yes, no, unknown = "supported", "not supported", "inconclusive"
    good = record(exponent, [np.inf, np.inf, time], [0.5, 1.0, 0.6])
    np.testing.assert_allclose(MODULE.crossing(good), 4 / 3)
    np.testing.assert_allclose(MODULE.over_predicted(good).values[0, 2], 1.0)
    assert verdicts(good) == [yes] * 3
    slow = record(exponent, [np.inf, np.inf, 2 * time], [0.5, 1.0, 0.6])
    assert verdicts(slow) == [yes, no, yes]
    assert verdicts(record(exponent, [np.inf, np.inf, time], [1.0, 0.8, 0.6])) == [yes, yes, no]
    wider = good.copy(deep=True)  # the first width crosses zero at 0.55, the second at 4/3
    wider.exponent.loc[{"hidden_size": 4, "gain": 1.0}] = 4.5
    assert verdicts(wider)[0] == no
    silent = record([-0.5, -0.2, -0.1], [np.inf] * 3, [0.5, 0.5, 0.5])
    assert verdicts(silent) == [unknown] * 3
    assert len(verdicts(good.isel(hidden_size=[0]))) == 2


def test_gains_within_a_hundredth_of_the_best_accuracy_count_as_best():
    tied = record([-1.0, -1.0, -1.0], [np.inf] * 3, [1.0, 0.5, 0.995])
    np.testing.assert_allclose(MODULE.best_gains(tied), 1.0)  # √(0.5 · 2)


def test_a_figure_without_chaos_states_it():
    calm = record([-0.5, -0.2, -0.1], [np.inf] * 3, [0.5, 0.5, 0.5])
    texts = [t.get_text() for t in EXPERIMENT.draw(calm).axes[2].texts]
    assert texts == ["no perturbation was lost"]


def test_training_is_in_single_precision():
    assert MODULE._single(jnp.zeros(2)).dtype == jnp.float32
    assert MODULE._single(jnp.zeros(2, int)).dtype == jnp.zeros(0, int).dtype
