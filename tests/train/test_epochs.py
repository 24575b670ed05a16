"""A fit by epochs against a loop written out, its choice of the best, and its resumption."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradflow.train import Keeper, resolve_clipping, resolve_optimiser
from gradflow.train.epochs import Learner, fit_epochs
from gradflow.train.prober import Watch

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


def last(**options):
    *_, end = fit_epochs(LEARNER, jax.random.key(0), batches, distance, **options)
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
    end = last(num_epochs=3)
    np.testing.assert_allclose(end.state.params["w"], params["w"], rtol=1e-12)
    np.testing.assert_allclose(end.log["train_loss"], [np.nan, *means], rtol=1e-12)
    np.testing.assert_allclose(end.log["distance"][-1], distance(params)["distance"], rtol=1e-9)
    assert int(end.state.update) == 9


def test_clipping_bounds_the_first_update():
    clipped = learner(clipping=resolve_clipping("global_norm(threshold=0.01)"))
    one_batch = lambda epoch: [next(batches(epoch))]  # noqa: E731
    before, after = fit_epochs(clipped, jax.random.key(0), one_batch, distance, num_epochs=1)
    moved = np.linalg.norm(after.state.params["w"] - before.best_params["w"])
    np.testing.assert_allclose(moved, RATE * 0.01, rtol=1e-6)


def test_the_best_epoch_is_kept_and_patience_ends_it():
    scores = iter([5.0, 3.0, float("nan"), 4.0, 3.0, 1.0, 0.5])
    seen = []

    def validate(params):
        seen.append(np.asarray(params["w"]))
        return {"score": next(scores)}

    *_, end = fit_epochs(LEARNER, jax.random.key(0), batches, validate, num_epochs=9, patience=3)
    assert (end.epoch, end.best_epoch) == (4, 1)  # 3.0 again is no new best
    np.testing.assert_array_equal(end.best_params["w"], seen[1])
    np.testing.assert_array_equal(end.log["score"][:5], [5.0, 3.0, np.nan, 4.0, 3.0])
    assert np.isnan(end.log["score"][5:]).all()


def test_a_fit_that_diverges_ends_and_keeps_its_best():
    wild = Learner(LEARNER.init, loss, resolve_optimiser("sgd(learning_rate=1e200)"))
    *_, end = fit_epochs(wild, jax.random.key(0), batches, distance, num_epochs=5)
    assert end.epoch < 5 and not np.isfinite(end.log["train_loss"][end.epoch])
    assert end.best_epoch == 0 and np.isfinite(end.best_params["w"]).all()


def test_a_fit_that_was_cut_off_goes_on_with_the_same_bits(tmp_path):
    watch = Watch(lambda params: {"w": 2 * np.asarray(params["w"])}, 2)
    given = {"num_epochs": 4, "watch": watch}
    whole = last(**given)
    with Keeper(tmp_path, {"fit": 1}) as keeper:
        for fit in fit_epochs(
            LEARNER, jax.random.key(0), batches, distance, **given, keeper=keeper
        ):
            if fit.epoch == 2:
                break
    with Keeper(tmp_path, {"fit": 1}) as keeper:
        resumed = list(
            fit_epochs(LEARNER, jax.random.key(0), batches, distance, **given, keeper=keeper)
        )
    assert [fit.epoch for fit in resumed] == [2, 3, 4]
    assert (
        np.asarray(resumed[-1].state.params["w"]).tobytes()
        == np.asarray(whole.state.params["w"]).tobytes()
    )
    assert resumed[-1].best_epoch == whole.best_epoch
    for name, values in whole.log.items():
        assert values.tobytes() == resumed[-1].log[name].tobytes()
    assert watch.times(4).tolist() == [0, 2, 4] and len(whole.probes["w"]) == 3
    assert resumed[-1].probes["w"].tobytes() == whole.probes["w"].tobytes()
    assert np.isnan(resumed[0].probes["w"][2]).all()  # not reached yet
    np.testing.assert_array_equal(whole.probes["w"][2], 2 * whole.state.params["w"])
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_epochs": 0}, "num_epochs is expected to be at least 1, got 0"),
        ({"patience": 0}, "patience is expected to be at least 1, got 0"),
        ({"batches": lambda epoch: []}, "at least one batch an epoch is expected, got none"),
        ({"validate": lambda params: {}}, "validate is expected to give numbers by name"),
        ({"validate": lambda params: {"train_loss": 1.0}}, "none of them 'train_loss'"),
    ],
)
def test_bad_input_is_said_at_once(changed, message):
    given = {"batches": batches, "validate": distance, "num_epochs": 2, **changed}
    with pytest.raises(ValueError, match=message):
        list(fit_epochs(LEARNER, jax.random.key(0), **given))


def test_a_clipping_inside_the_recurrence_is_refused():
    with pytest.raises(ValueError, match="one of the adjoint inside the recurrence; try"):
        learner(clipping=resolve_clipping("adjoint(threshold=1)"))
