import echo
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradflow.cells import conv_gru, gru, zoneout_of
from gradflow.cells.dropout import with_dropout, with_noise, zoneout
from gradflow.tasks import resolve_task
from gradflow.train.adjoint_clipping import clip_adjoints
from gradflow.train.clipping import resolve_clipping
from gradflow.train.direction import compare, norm
from gradflow.train.driver import Schedule, fit
from gradflow.train.fresh import fresh_sequences
from gradflow.train.model import init_model, predict
from gradflow.train.optimisers import resolve_optimiser
from gradflow.train.probes import Probing, probe
from gradflow.train.runs import NEVER, advance, begin, evaluate
from gradflow.train.training import Training, gradient
from gradflow.unroll import unroll

TASK = echo.echo()
CELL = echo.TRAINING.cell
ADAM = resolve_optimiser("adam")
KEYS = jax.random.split(jax.random.key(3), 3)
RATES = jnp.array([0.01, 0.1, 1e300])  # the last one kills its run
CLIPPED = Training(
    CELL, TASK, ADAM, resolve_clipping("global_norm(threshold=1.0)"), batch_size=8, eval_size=16
)


def by_hand(key, rate: float, num_updates: int) -> tuple[dict, list[float], list[bool]]:
    """One run as one would write it without any of the library's training."""
    k_init, k_train = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
    params = init_model(CELL, 1, k_init)
    transform = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    state = transform.init(params)

    def loss(params, batch):
        h, p = jnp.zeros((8, 4)), params["cell"]
        for x in batch.inputs:
            h = jnp.tanh(x @ p["W_x"].T + h @ p["W_h"].T + p["b"])
        said = h @ params["readout"]["W"].T + params["readout"]["b"]
        return jnp.mean((said - batch.inputs[0]) ** 2)

    @jax.jit
    def step(params, state, update):
        batch = TASK.sample(jax.random.fold_in(k_train, update), 8)
        value, grads = jax.value_and_grad(loss)(params, batch)
        steps, state = transform.update(grads, state, params)
        return optax.apply_updates(params, steps), state, value, optax.tree.norm(grads) > 1.0

    losses, acted = [], []
    for update in range(num_updates):
        params, state, value, is_clipped = step(params, state, update)
        losses.append(float(value))
        acted.append(bool(is_clipped))
    return params, losses, acted


@pytest.fixture(scope="module")
def trained():
    runs, first = advance(CLIPPED, begin(CLIPPED, KEYS, RATES), 6)
    first = jax.device_get((first, runs.died_at))
    runs, second = advance(CLIPPED, runs, 6)
    return runs, first, second


def test_runs_side_by_side_are_the_runs_one_by_one(trained):
    runs, (first, _), second = trained
    for i in (0, 1):
        params, losses, acted = by_hand(KEYS[i], float(RATES[i]), 12)
        got = jax.tree.map(lambda leaf, i=i: leaf[i], runs.params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), got, params)
        for means, part in ((first, slice(6)), (second, slice(6, 12))):
            np.testing.assert_allclose(means["train_loss"][i], np.mean(losses[part]), rtol=1e-9)
            assert means["clip_share"][i] == pytest.approx(np.mean(acted[part]))
    assert 0 < first["clip_share"][0] < 1 or 0 < second["clip_share"][0] < 1


def test_thresholds_side_by_side_are_the_trainings_with_each():
    """One compiled program for a sweep of seeds, learning rates and thresholds."""
    thresholds = jnp.array([0.1, 1.0, 0.5])
    rates = jnp.array([0.01, 0.1, 0.05])
    runs, means = advance(CLIPPED, begin(CLIPPED, KEYS, rates, thresholds), 6)
    for i in range(2):
        clipping = resolve_clipping(f"global_norm(threshold={float(thresholds[i])})")
        alone = Training(CELL, TASK, ADAM, clipping, batch_size=8, eval_size=16)
        run, mean = advance(alone, begin(alone, KEYS[i : i + 1], rates[i : i + 1]), 6)
        for whole, one in ((runs.params, run.params), (means, mean)):
            jax.tree.map(
                lambda a, b, i=i: np.testing.assert_allclose(a[i], b[0], rtol=1e-9), whole, one
            )
    assert means["clip_share"][0] == 1 and means["clip_ratio"][0] < 0.9
    np.testing.assert_array_equal(runs.clip_threshold, thresholds)


@pytest.mark.parametrize("truncation", [None, (2, 3)])
def test_clipped_adjoints_are_compared_with_the_gradient_without(truncation):
    """In the loop, at two thresholds: against the cell that is clipped, and the one that is not."""
    ways = {"truncation": truncation, "batch_size": 8, "eval_size": 16}
    training = Training(CELL, TASK, ADAM, resolve_clipping("adjoint"), **ways)
    thresholds = jnp.array([0.02, 1e9, 0.05])
    runs = begin(training, KEYS, RATES, thresholds)
    born = jax.tree.map(jnp.copy, runs.params)
    runs, means = advance(training, runs, 1)
    plain = Training(CELL, TASK, ADAM, **ways)
    for i in range(2):
        params = jax.tree.map(lambda leaf, i=i: leaf[i], born)
        batch = TASK.sample(jax.random.fold_in(jax.random.fold_in(KEYS[i], 1), 0), 8)
        clipped = Training(clip_adjoints(CELL, float(thresholds[i])), TASK, ADAM, **ways)
        after, before = (
            jax.jit(gradient, static_argnums=0)(way, params, batch).value
            for way in (clipped, plain)
        )
        expected = compare(after, before)
        np.testing.assert_allclose(means["clip_cosine"][i], expected.cosine, rtol=1e-9)
        np.testing.assert_allclose(means["clip_ratio"][i], expected.norm_ratio, rtol=1e-9)
        np.testing.assert_allclose(means["grad_norm"][i], norm(before), rtol=1e-9)
    np.testing.assert_array_equal(means["clip_share"][:2], [1, 0])
    assert means["clip_ratio"][0] < 0.95 and means["clip_ratio"][1] == 1


def test_a_regulariser_is_in_the_gradient_without_clipping_too():
    def decay(cell, params, inputs, loss):
        del loss, cell, inputs
        return 0.5 * jnp.sum(params["W_h"] ** 2)

    params, batch = init_model(CELL, 1, KEYS[0]), TASK.sample(KEYS[1], 8)
    clipping = resolve_clipping("adjoint(threshold=1e9)")
    found = gradient(Training(CELL, TASK, ADAM, clipping, regulariser=decay), params, batch)
    assert found.unclipped is not None and not found.unclipped.acted
    np.testing.assert_allclose(norm(found.unclipped.gradient), norm(found.value), rtol=1e-12)


NOISY = {
    "dropout": with_dropout(CELL, rate_x=0.3, rate_h=0.5),
    "zoneout": zoneout_of(1, 4, cell="rnn", rate=0.4, sampled=True),
}


@pytest.fixture(scope="module")
def noisy():
    """One and then another update of each noisy cell, and its evaluation; nothing learns."""
    found = {}
    for name, cell in NOISY.items():
        training = Training(cell, TASK, ADAM, batch_size=8, eval_size=16)
        runs = begin(training, KEYS, 0 * RATES)
        states, losses = [jax.tree.map(jnp.copy, runs.params)], []
        for _ in range(2):
            runs, means = advance(training, runs, 1)
            states.append(jax.tree.map(jnp.copy, runs.params))
            losses.append(jax.device_get(means["train_loss"]))
        found[name] = states, losses, evaluate(training, runs)[1]
    return found


def test_masks_of_dropout_are_drawn_anew_at_every_update(noisy):
    states, losses, _ = noisy["dropout"]
    masks = np.stack([state["cell"]["u_h"] for state in states])  # (update, run, unit)
    assert len(np.unique(masks)) == masks.size
    assert masks.min() >= 0 and masks.max() < 1
    for i, loss in enumerate(losses):  # the update went by the mask that it left behind
        own = jax.tree.map(lambda leaf: leaf[0], states[i + 1])
        batch = TASK.sample(jax.random.fold_in(jax.random.fold_in(KEYS[0], 1), i), 8)
        kept = (own["cell"]["u_h"] >= 0.5) / 0.5, (own["cell"]["u_x"] >= 0.3) / 0.7
        inner = own["cell"]["cell"]
        thinned = inner | {"W_h": inner["W_h"] * kept[0], "W_x": inner["W_x"] * kept[1]}
        said = predict(CELL, own | {"cell": thinned}, batch.inputs)
        np.testing.assert_allclose(loss[0], np.mean((said[-1] - batch.inputs[0]) ** 2), rtol=1e-9)


def test_what_is_random_in_training_is_left_out_of_an_evaluation(noisy):
    for name, clean in {"dropout": CELL, "zoneout": zoneout(CELL, rate=0.4)}.items():
        states, _, found = noisy[name]
        own = jax.tree.map(lambda leaf: leaf[1], states[-1])
        params = own["cell"]["cell"] if name == "dropout" else own["cell"]
        batch = TASK.sample(jax.random.fold_in(jax.random.fold_in(KEYS[1], 2), 2), 16)
        said = predict(clean, own | {"cell": params}, batch.inputs)
        loss = np.mean((said[-1] - batch.inputs[0]) ** 2)
        np.testing.assert_allclose(found["loss"][1], loss, rtol=1e-9)


def test_zoneout_is_trained_on_noise_and_probed_without(noisy):
    cell, (states, losses, _) = NOISY["zoneout"], noisy["zoneout"]
    own = jax.tree.map(lambda leaf: leaf[0], states[0])
    batch = TASK.sample(jax.random.fold_in(jax.random.fold_in(KEYS[0], 1), 0), 8)
    noise = jax.random.fold_in(jax.random.fold_in(KEYS[0], 3), 0)
    _, inputs = with_noise(cell, noise, own["cell"], batch.inputs)
    assert inputs.shape == (5, 8, 1 + 4)
    said = predict(cell, own, inputs)
    np.testing.assert_allclose(losses[0][0], np.mean((said[-1] - batch.inputs[0]) ** 2), rtol=1e-9)
    probing = Probing(("adjoints",), KEYS[0], 2)
    of_clean = probe(zoneout(CELL, rate=0.4), TASK, states[0], probing)["adjoints"]
    np.testing.assert_allclose(probe(cell, TASK, states[0], probing)["adjoints"], of_clean)


def test_a_run_that_dies_stays_nan_and_disturbs_no_other(trained):
    runs, (_, died_at), _ = trained
    np.testing.assert_array_equal(died_at, [NEVER, NEVER, 2])  # what it says after one overflows
    np.testing.assert_array_equal(runs.died_at, died_at)
    for leaf in jax.tree.leaves(runs.params):
        assert np.all(np.isnan(leaf[2])) and np.all(np.isfinite(leaf[:2]))
    runs, found = evaluate(CLIPPED, runs)
    assert np.isnan(found["loss"][2]) and np.isnan(found["accuracy"][2])
    assert np.all(np.isfinite(found["loss"][:2]))
    np.testing.assert_array_equal(runs.settled[2], True)


def test_an_evaluation_is_on_fresh_sequences_by_the_task_s_criterion(trained):
    runs, found = evaluate(CLIPPED, trained[0])
    key = jax.random.fold_in(jax.random.fold_in(KEYS[1], 2), 12)
    batch = TASK.sample(key, 16)
    said = predict(CELL, jax.tree.map(lambda leaf: leaf[1], runs.params), batch.inputs)
    errors = np.asarray(said[-1] - batch.inputs[0])[:, 0]
    np.testing.assert_allclose(found["loss"][1], np.mean(errors**2), rtol=1e-12)
    assert found["accuracy"][1] == np.mean(np.abs(errors) < 0.2)


def test_the_first_evaluation_that_solves_is_noted_and_all_settled_stop_it():
    task = TASK._replace(correct=lambda said, batch: jnp.ones(said.shape[1], bool))
    # The easy task counts as solved from the first look on: nothing is left to do.
    easy = Training(CELL, task, ADAM, batch_size=8, eval_size=16)
    (only,) = fit(fresh_sequences(easy, begin(easy, KEYS, RATES)), Schedule(12, 6))
    np.testing.assert_array_equal(only.state.solved_at, [0, 0, 0])
    assert only.metrics["train_loss"].shape == (3, 3) and np.isnan(only.metrics["train_loss"]).all()


def test_the_gradient_may_be_truncated_and_have_a_regulariser_s_added():
    def decay(cell, params, inputs, loss):
        del cell
        return 0.5 * jnp.sum(params["W_h"] ** 2) + loss(jnp.zeros((*inputs.shape[:2], 4)))

    @jax.jit
    def gradients(params, batch):
        ways = ({}, {"truncation": (5, 5)}, {"truncation": (5, 2)}, {"regulariser": decay})
        return [gradient(Training(CELL, TASK, ADAM, **way), params, batch) for way in ways]

    params = init_model(CELL, 1, KEYS[0])
    batch = TASK.sample(KEYS[1], 8)
    full, whole, short, decayed = gradients(params, batch)
    weights = [found.value["cell"]["W_h"] for found in (full, whole, short, decayed)]
    np.testing.assert_allclose(weights[1], weights[0], atol=1e-14)
    assert np.max(np.abs(weights[2] - weights[0])) > 1e-3
    np.testing.assert_allclose(weights[3] - weights[0], params["cell"]["W_h"], atol=1e-14)
    np.testing.assert_allclose([full.loss] * 3, [whole.loss, short.loss, decayed.loss], rtol=1e-12)
    constant = np.mean((params["readout"]["b"] - batch.inputs[0]) ** 2)
    size = 0.5 * np.sum(params["cell"]["W_h"] ** 2)
    np.testing.assert_allclose(decayed.added, size + constant, rtol=1e-12)
    assert full.added == 0


def test_the_adding_problem_of_a_hundred_steps_is_learned():
    training = Training(gru(2, 32), resolve_task("adding(num_steps=100)"), ADAM, batch_size=32)
    runs = begin(training, jax.random.split(jax.random.key(0), 1), jnp.array([0.01]))
    *_, last = fit(fresh_sequences(training, runs), Schedule(1500, 100))
    losses = last.metrics["loss"][:, 0]
    assert losses[0] > 0.15 and np.nanmin(losses) < 0.05
    assert 100 <= last.state.solved_at[0] == last.update <= 1500


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            (0, 5),
            "num_updates to be a positive multiple of eval_every=5, got 0. Choose",
        ),
        ((10, -5), "Expected eval_every to be at least 1, got -5"),
        (
            (12, 5),
            "num_updates .* multiple of eval_every=5, got 12. Choose .*=10 ",
        ),
        ((10, 5, 7), "Expected probe_every to be a positive multiple of eval_every=5, got 7"),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        Schedule(*sizes)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="Expected batch_size to be at least 1, got -8"):
        Training(CELL, TASK, ADAM, batch_size=-8)
    with pytest.raises(ValueError, match="Expected eval_size to be at least 1, got 0"):
        Training(CELL, TASK, ADAM, eval_size=0)
    with pytest.raises(ValueError, match="Expected k2 to be at least 1, got 0"):
        Training(CELL, TASK, ADAM, truncation=(5, 0))
    with pytest.raises(
        ValueError, match=r"one learning rate for each key, got .* shape \(2,\) for"
    ):
        begin(CLIPPED, KEYS, RATES[:2])
    with pytest.raises(ValueError, match=r"one threshold for each key, got .* shape \(2,\) for"):
        begin(CLIPPED, KEYS, RATES, RATES[:2])
    with pytest.raises(ValueError, match="Expected output_size to be at least 1, got 0"):
        init_model(CELL, 0, KEYS[0])


def test_the_readout_sums_over_all_axes_of_a_state_that_is_an_image():
    cell = conv_gru(6, 12, height=3, width=2)
    params = init_model(cell, 2, KEYS[0])
    inputs = jax.random.normal(KEYS[1], (4, 3, 6))
    outputs, W = unroll(cell, params["cell"], inputs).outputs, params["readout"]["W"]
    assert outputs.shape == (4, 3, 2, 3, 2) and W.shape == (2, 2, 3, 2)
    expected = np.einsum("tbchw,ochw->tbo", outputs, W)
    np.testing.assert_allclose(predict(cell, params, inputs), expected, rtol=1e-12)
