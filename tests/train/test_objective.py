import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow.tasks.task import Batch
from gradflow.train.objective import batch_loss

T, B, N = 4, 3, 2
RNG = np.random.default_rng(0)
PREDICTIONS = RNG.normal(size=(T, B, N))
WEIGHTS = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 2.5], [1, 0, 1]])


def batch(targets) -> Batch:
    return Batch(jnp.zeros((T, B, 1)), jnp.asarray(targets), jnp.asarray(WEIGHTS))


def test_the_squared_loss_is_the_weighted_mean_of_the_sum_over_outputs():
    targets = RNG.normal(size=(T, B, N))
    squares = ((PREDICTIONS - targets) ** 2).sum(-1)
    expected = (WEIGHTS * squares).sum() / 5.5
    got = batch_loss("squared", jnp.asarray(PREDICTIONS), batch(targets))
    np.testing.assert_allclose(got, expected, rtol=1e-14)


def test_the_cross_entropy_and_its_gradient_are_the_textbook_s():
    classes = RNG.integers(0, N, size=(T, B))
    shares = np.exp(PREDICTIONS) / np.exp(PREDICTIONS).sum(-1, keepdims=True)
    one_hot = np.eye(N)[classes]
    value, gradient = jax.value_and_grad(lambda p: batch_loss("cross_entropy", p, batch(classes)))(
        jnp.asarray(PREDICTIONS)
    )
    log_likelihood = (np.log(shares) * one_hot).sum(-1)
    np.testing.assert_allclose(value, -(WEIGHTS * log_likelihood).sum() / 5.5, rtol=1e-14)
    expected = WEIGHTS[..., None] * (shares - one_hot) / 5.5
    np.testing.assert_allclose(gradient, expected, atol=1e-15)


@pytest.mark.parametrize("kind", ["squared", "cross_entropy"])
def test_what_does_not_count_reaches_neither_the_loss_nor_its_gradient(kind):
    whole = RNG.normal(size=(T, B, N)) if kind == "squared" else RNG.integers(0, N, size=(T, B))
    counts = WEIGHTS != 0
    mask = counts[..., None] if kind == "squared" else counts
    broken = np.where(mask, whole, np.nan if kind == "squared" else 99)
    bad = np.where(counts[..., None], PREDICTIONS, np.nan)
    results = [
        jax.value_and_grad(lambda p, t=t: batch_loss(kind, p, batch(t)))(jnp.asarray(p))
        for p, t in ((PREDICTIONS, whole), (bad, broken))
    ]
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])
    assert not np.any(results[0][1][~counts])


def test_bad_input_is_refused():
    with pytest.raises(
        ValueError, match="Expected the loss 'squared' or 'cross_entropy', got 'hinge'"
    ):
        batch_loss("hinge", jnp.asarray(PREDICTIONS), batch(PREDICTIONS))
    with pytest.raises(
        ValueError, match=r"Expected targets of shape \(4, 3\) .*, got shape \(4, 3, 2\)"
    ):
        batch_loss("cross_entropy", jnp.asarray(PREDICTIONS), batch(PREDICTIONS))
