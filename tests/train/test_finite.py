"""Training by epochs against a loop written out, the choice of the best, and the resumption."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradflow.train import Learner, Schedule, epochs, fit, resolve_clipping, resolve_optimiser

RATE = 0.1
SLOPES = np.array([2.0, -1.0])


def loss(params, batch, key):
    x, y = batch
    noise = 0.1 * jax.random.normal(key, y.shape)
    return jnp.mean((x @ params["w"] + noise - y) ** 2)


def learner(**options) -> Learner:
    return Learner(
        lambda key: {"w": jax.random.normal(key, (2,))},
        loss,
        resolve_optimiser(f"sgd(learning_rate={RATE})"),
        **options,
    )


LEARNER = learner()


def batches(epoch: int):
    """Two of one shape and one of another."""
    generator = np.random.default_rng(epoch)
    for size in (4, 4, 3):
        x = generator.normal(size=(size, 2))
        yield x, x @ SLOPES


def distance(params):
    return {"distance": float(np.sum((np.asarray(params["w"]) - SLOPES) ** 2)), "seen": 1.0}


def steps(num_epochs, learner=LEARNER, batches=batches, validate=distance, **options):
    """The progress after each epoch; probed every other one."""
    kept = {name: options.pop(name) for name in ("folder", "identity") if name in options}
    source = epochs(learner, jax.random.key(0), batches, validate, **options)
    return fit(source, Schedule(num_epochs, probe_every=2), **kept)


def last(*arguments, **options):
    *_, end = steps(*arguments, **options)
    return end


def test_the_parameters_are_those_of_the_loop_written_out():
    key = jax.random.key(0)
    params = LEARNER.init(jax.random.fold_in(key, 0))
    means, update = [], 0
    for epoch in range(3):
        losses = []
        for batch in batches(epoch):
            noise = jax.random.fold_in(jax.random.fold_in(key, 1), update)
            value, slope = jax.value_and_grad(loss)(params, batch, noise)
            params = optax.apply_updates(params, jax.tree.map(lambda g: -RATE * g, slope))
            losses.append(value)
            update += 1
        means.append(np.mean(losses))
    end = last(3)
    np.testing.assert_allclose(end.state.params["w"], params["w"], rtol=1e-12)
    np.testing.assert_allclose(end.metrics["train_loss"], [np.nan, *means], rtol=1e-12)
    np.testing.assert_allclose(end.metrics["distance"][-1], distance(params)["distance"], rtol=1e-9)
    assert int(end.state.update) == 9


def test_clipping_bounds_the_first_update():
    clipped = learner(clipping=resolve_clipping("global_norm(threshold=0.01)"))
    one_batch = lambda epoch: [next(batches(epoch))]  # noqa: E731
    before, after = steps(1, clipped, one_batch)
    moved = np.linalg.norm(after.state.params["w"] - before.state.best_params["w"])
    np.testing.assert_allclose(moved, RATE * 0.01, rtol=1e-6)


def test_the_best_epoch_is_kept_and_patience_ends_it():
    scores = iter([5.0, 3.0, float("nan"), 4.0, 3.0, 1.0, 0.5])
    seen = []

    def validate(params):
        seen.append(np.asarray(params["w"]))
        return {"score": next(scores)}

    end = last(9, validate=validate, patience=3)
    assert (end.update, end.state.best_epoch) == (4, 1)  # 3.0 again is no new best
    np.testing.assert_array_equal(end.state.best_params["w"], seen[1])
    np.testing.assert_array_equal(end.metrics["score"][:5], [5.0, 3.0, np.nan, 4.0, 3.0])
    assert np.isnan(end.metrics["score"][5:]).all()


def test_a_fit_that_diverges_ends_and_keeps_its_best():
    wild = Learner(LEARNER.init, loss, resolve_optimiser("sgd(learning_rate=1e200)"))
    end = last(5, wild)
    assert end.update < 5 and not np.isfinite(end.metrics["train_loss"][end.update])
    assert end.state.best_epoch == 0 and np.isfinite(end.state.best_params["w"]).all()


def test_a_fit_that_was_cut_off_goes_on_with_the_same_bits(tmp_path):
    def measure(params):
        return {"w": 2 * np.asarray(params["w"])}

    whole = last(4, measure=measure)
    kept = {"measure": measure, "folder": tmp_path, "identity": {"fit": 1}}
    for progress in steps(4, **kept):
        if progress.update == 2:
            break
    resumed = list(steps(4, **kept))
    assert [progress.update for progress in resumed] == [2, 3, 4]
    for name in ("params", "best_params"):
        found, expected = (getattr(end.state, name)["w"] for end in (resumed[-1], whole))
        assert np.asarray(found).tobytes() == np.asarray(expected).tobytes()
    assert resumed[-1].state[2:3] + resumed[-1].state[4:] == whole.state[2:3] + whole.state[4:]
    for name, values in whole.metrics.items():
        assert values.tobytes() == resumed[-1].metrics[name].tobytes()
    assert list(whole.metrics) == list(resumed[-1].metrics)
    assert len(whole.probes["w"]) == 3
    assert resumed[-1].probes["w"].tobytes() == whole.probes["w"].tobytes()
    assert np.isnan(resumed[0].probes["w"][2]).all()  # not reached yet
    np.testing.assert_array_equal(whole.probes["w"][2], 2 * whole.state.params["w"])
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_epochs": 0}, "Expected num_updates to be a positive multiple .*, got 0"),
        ({"patience": 0}, "Expected patience to be at least 1 or None, got 0"),
        ({"batches": lambda epoch: []}, "Expected at least one batch per epoch, got none"),
        ({"validate": lambda params: {}}, "Expected validate to return numbers by name"),
        ({"validate": lambda params: {"train_loss": 1.0}}, "none of them 'train_loss'"),
    ],
)
def test_bad_input_is_said_at_once(changed, message):
    with pytest.raises(ValueError, match=message):
        list(steps(**{"num_epochs": 2, **changed}))


def test_a_clipping_inside_the_recurrence_is_refused():
    with pytest.raises(ValueError, match="acts on the adjoint inside the recurrence. Use"):
        learner(clipping=resolve_clipping("adjoint(threshold=1)"))
