"""The pathological tasks: the batches, the updates, and what counts as an error."""

import jax
import jax.numpy as jnp
import numpy as np
import pascanu2013_pathological as pathological
import pytest
import xarray
from _pathological import PROBLEMS, random_order
from pascanu2013_order import start

from gradflow.tasks import resolve_task
from gradflow.train import advance, evaluate
from gradflow.train.model import predict
from gradflow.train.objective import batch_loss
from gradflow.train.omega import preserve_norm

CONFIG = pathological.EXPERIMENT.resolve({}, quick=True)


def numpy_outputs(params, inputs):
    """The readouts of a tanh net, (T, B, output), by a loop."""
    cell, readout = ({k: np.asarray(v) for k, v in params[p].items()} for p in ("cell", "readout"))
    h, outputs = np.zeros((inputs.shape[1], len(cell["b"]))), []
    for x in np.asarray(inputs):
        h = np.tanh(x @ cell["W_x"].T + h @ cell["W_h"].T + cell["b"])
        outputs.append(h @ readout["W"].T + readout["b"])
    return np.stack(outputs)


def order_of(batch):
    """Each sequence's length and its class, read from the inputs."""
    lengths, classes = [], []
    for x in np.asarray(batch.inputs).transpose(1, 0, 2):
        length = int(x.sum())
        assert (x[:length].sum(axis=-1) == 1).all() and (x[length:] == 0).all()
        places = np.flatnonzero(x[:, :2].any(axis=-1))
        assert len(places) == 2
        for place, first in zip(places, (length // 10, 5 * length // 10), strict=True):
            assert first <= place < first + length // 10
        lengths.append(length)
        classes.append(x[places[0], 1] + 2 * x[places[1], 1])
    return np.array(lengths), np.array(classes)


def test_random_lengths_have_their_target_at_the_end_of_each_sequence():
    batch = random_order(20, 43).sample(jax.random.key(0), 300)
    lengths, classes = order_of(batch)
    assert lengths.min() == 20 and lengths.max() == 43
    expected = np.arange(43)[:, None] == lengths - 1
    np.testing.assert_array_equal(batch.weights, expected)
    np.testing.assert_array_equal(np.asarray(batch.targets)[lengths - 1, np.arange(300)], classes)
    assert np.bincount(classes.astype(int), minlength=4).min() > 50
    # The library's task at one length has the same targets.
    library = resolve_task("temporal_order(num_steps=23)").sample(jax.random.key(1), 50)
    np.testing.assert_array_equal(library.targets[-1], order_of(library)[1])


@pytest.mark.parametrize("name", ["addition", "bits5"])
def test_errors_are_counted_as_by_a_loop_and_as_in_an_evaluation(name):
    task = resolve_task(PROBLEMS[name].spec.format(10))
    key = jax.random.key(3)
    fixed = task._replace(sample=lambda _, size: task.sample(key, size))
    problem = PROBLEMS[name]
    training = pathological.training_of(problem, fixed, CONFIG)
    runs = start(training, CONFIG, std=0.1, learning_rate=problem.learning_rate)
    # A readout of a size at which about as many sequences are correct as wrong.
    scale = {"addition": 1.0, "bits5": 0.3}[name]
    bias = {"addition": 0.45, "bits5": 0.0}[name]
    readout = {k: scale * v + bias for k, v in runs.params["readout"].items()}
    readout["b"] = readout["b"] + (jnp.arange(3) == 2) * 2.0 if name == "bits5" else readout["b"]
    runs = runs._replace(params={**runs.params, "readout": readout})
    batch = task.sample(key, CONFIG.eval_size)
    expected = []
    for seed in range(CONFIG.num_seeds):
        params = jax.tree.map(lambda leaf, seed=seed: leaf[seed], runs.params)
        outputs = numpy_outputs(params, batch.inputs)
        wrong = 0
        for b in range(CONFIG.eval_size):
            steps = np.flatnonzero(np.asarray(batch.weights)[:, b])
            if name == "addition":
                (end,) = steps
                wrong += (outputs[end, b, 0] - float(batch.targets[end, b, 0])) ** 2 >= 0.04
            else:
                answers = outputs[steps, b].argmax(axis=-1)
                wrong += any(answers != np.asarray(batch.targets)[steps, b])
        expected.append(wrong / CONFIG.eval_size)
    found = pathological.errors(
        training, fixed, runs.params, key[None], CONFIG.eval_size, fixed.correct
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    whole = pathological.tried(training, fixed, runs.params, CONFIG)
    np.testing.assert_allclose(whole, found, rtol=1e-12)
    np.testing.assert_allclose(1 - evaluate(training, runs)[1]["accuracy"], found, rtol=1e-12)
    if name == "addition":
        assert 0 < found.min() and found.max() < 1
    else:
        params = {**runs.params, "readout": {**readout, "b": 0 * readout["b"]}}  # without blanks
        symbols = pathological.tried(training, fixed, params, CONFIG, pathological.symbols_right)
        outputs = numpy_outputs(jax.tree.map(lambda leaf: leaf[0], params), batch.inputs)
        wrong = outputs.argmax(axis=-1) != np.asarray(batch.targets)
        np.testing.assert_allclose(symbols[0], wrong[-5:].mean())  # the last 5 steps recall
        assert 0 < symbols[0] < 1


def test_an_update_is_the_clipped_gradient_of_the_loss_and_omega():
    problem = PROBLEMS["addition"]._replace(threshold=0.5)
    task = resolve_task("adding_2013(num_steps=10)")
    batch = task.sample(jax.random.key(5), 20)
    fixed = task._replace(sample=lambda key, size: batch)
    training = pathological.training_of(problem, fixed, CONFIG)
    runs = start(training, CONFIG, std=0.1, learning_rate=problem.learning_rate)
    first = jax.tree.map(lambda leaf: leaf[0], runs.params)

    def loss(outputs, readout):
        return batch_loss("squared", outputs @ readout["W"].T + readout["b"], batch)

    def total(params):
        omega = preserve_norm(
            training.cell,
            params["cell"],
            batch.inputs,
            loss=lambda outputs: loss(outputs, first["readout"]),
        )
        task_loss = batch_loss("squared", predict(training.cell, params, batch.inputs), batch)
        return task_loss + 0.5 * omega

    slope = jax.grad(total)(first)
    norm = np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(slope)))
    assert norm > 0.5
    runs, _ = advance(training, runs, 1)
    after = jax.tree.map(lambda leaf: leaf[0], runs.params)
    expected = jax.tree.map(lambda p, g: p - problem.learning_rate * 0.5 / norm * g, first, slope)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), after, expected)


def record(solved, wrong, order):
    """A record of two seeds: which tasks are solved, and the errors by length."""
    at = np.where(np.array(list(solved.values())), 500.0, np.nan)
    return xarray.Dataset(
        {
            "guessed": ("marked", np.array([0.64, 0.6095])),
            "solved_at": (("problem", "seed"), at),
            "longer": (("problem", "seed"), np.where(np.isnan(at), 0.5, 0.0)),
            "symbols": (("problem", "seed"), np.full(at.shape, 0.9)),
            "length": ("problem", np.where(np.array(list(solved)) == "permutation", 200, 20)),
            "wrong": (("tried", "seed"), np.array(wrong)),
            "order_solved_at": ("seed", np.where(order, 500.0, np.nan)),
            "trained_on": ("end", [50, 100]),
        },
        coords={"problem": list(solved), "tried": [50, 100, 200, 5000]},
    )


def test_the_verdicts_follow_the_seeds_and_the_lengths():
    solved = {"addition": (1, 1), "multiplication": (1, 0), "permutation": (0, 1)}
    far = [[0.0, 0.0], [0.0, 0.005], [0.0, 0.06], [0.0, 0.3]]
    found = {c.id: c for c in pathological.claims(record(solved, far, (True, True)))}
    assert found["pathological-guess"].verdict == "reproduced"
    assert found["pathological-addition"].verdict == "reproduced"
    assert found["pathological-multiplication"].verdict == "not reproduced"
    assert found["pathological-permutation"].verdict == "reproduced"  # 0.5, at least 0.4
    assert "at T = 200" in found["pathological-permutation"].statement
    assert found["pathological-random"].verdict == "reproduced"
    assert found["pathological-longer"].verdict == "reproduced"  # of those that are solved
    assert found["pathological-lengths"].verdict == "qualitatively reproduced"
    far[2] = [0.2, 0.2]
    solved["permutation"] = (0, 0)
    found = {c.id: c for c in pathological.claims(record(solved, far, (True, False)))}
    assert found["pathological-lengths"].verdict == "not reproduced"
    assert found["pathological-permutation"].verdict == "not reproduced"
    assert found["pathological-random"].verdict == "not reproduced"


def test_lengths_are_judged_by_the_seeds_that_have_learnt():
    solved = {"addition": (0, 0), "multiplication": (1, 0), "bits20": (0, 0)}
    far = [[0.0, 0.9], [0.0, 0.9], [0.0, 0.9], [0.0, 0.9]]
    found = {c.id: c for c in pathological.claims(record(solved, far, (True, False)))}
    assert found["pathological-lengths"].verdict == "reproduced"
    assert found["pathological-longer"].verdict == "not reproduced"  # no seed has learnt sums
    assert "90 % of the symbols are recalled" in found["pathological-bits20"].statement
    none = {c.id: c for c in pathological.claims(record(solved, far, (False, False)))}
    assert none["pathological-lengths"].verdict == "not reproduced"


def test_without_a_nearby_length_the_verdict_is_not_qualitative():
    far = [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.7, 0.7]]
    data = record({"addition": (1, 1)}, far, (True, True))
    cuts = data.sel(tried=[50, 200, 5000]), data.sel(tried=[5000])
    verdicts = [pathological.about_lengths(cut)[-1].verdict for cut in cuts]
    assert verdicts == ["qualitatively reproduced", "not reproduced"]


def test_an_unknown_task_is_reported():
    with pytest.raises(ValueError, match="Unknown problem 'parity'"):
        pathological.run(pathological.Config(problem=("parity",)))
