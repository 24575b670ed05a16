"""Each clipping against its closed form, and its record against what it did."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradflow import unroll
from gradflow.cells import lstm, rnn
from gradflow.train.adjoint_clipping import adjoint_effect, clip_adjoints
from gradflow.train.clipping import CLIPPINGS, check_thresholds, clip_stats, resolve_clipping
from gradflow.train.direction import compare, norm

GRADIENT = {"W": jnp.array([[3.0, 4.0], [0.0, 0.5]]), "b": jnp.array([12.0, 0.0])}
PARAMS = {"W": jnp.array([[10.0, 0.0], [0.0, 10.0]]), "b": jnp.array([0.0, 0.0])}
NORM = (9 + 16 + 0.25 + 144) ** 0.5


def clip(spec, gradients, params=PARAMS):
    transform = resolve_clipping(spec).transform
    state = transform.init(params)
    for gradient in gradients:
        clipped, state = transform.update(gradient, state, params)
    return clipped, clip_stats(state)


def assert_equal(tree, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), tree, expected)


def scaled(factor):
    return jax.tree.map(lambda leaf: factor * leaf, GRADIENT)


@pytest.mark.parametrize(
    "spec, expected",
    [
        ("none", GRADIENT),
        ("adjoint(threshold=0.1)", GRADIENT),
        ("global_norm(threshold=2)", scaled(2 / NORM)),
        ("global_norm(threshold=20)", GRADIENT),
        ("normalise(size=3)", scaled(3 / NORM)),
        ("per_leaf(threshold=5.2)", {"W": GRADIENT["W"], "b": jnp.array([5.2, 0])}),
        ("value(threshold=3.5)", {"W": jnp.array([[3, 3.5], [0, 0.5]]), "b": jnp.array([3.5, 0])}),
        # Rows of W: 5 against 0.2 · 10, and 0.5 against 2; b: 12 against 0.2 · 0.001.
        (
            "agc(clipping=0.2)",
            {"W": jnp.array([[1.2, 1.6], [0, 0.5]]), "b": jnp.array([0.2e-3, 0])},
        ),
    ],
)
def test_closed_forms(spec, expected):
    clipped, stats = clip(spec, [GRADIENT])
    assert_equal(clipped, expected)
    flat, after = (np.concatenate([t["W"].ravel(), t["b"]]) for t in (GRADIENT, expected))
    np.testing.assert_allclose(stats.norm_before, NORM)
    np.testing.assert_allclose(stats.norm_after, np.linalg.norm(after))
    np.testing.assert_allclose(stats.cosine, flat @ after / NORM / np.linalg.norm(after))
    np.testing.assert_allclose(stats.mean_ratio, np.linalg.norm(after) / NORM)
    assert (stats.num_updates, stats.acted) == (1, not np.array_equal(flat, after))


def test_what_is_left_as_it_was_has_not_been_acted_on_though_it_be_nan():
    assert clip("none", [scaled(np.nan), GRADIENT])[1].acted == 0
    assert clip("value(threshold=3.5)", [scaled(np.nan), GRADIENT])[1].acted == 1


def test_the_record_counts_over_updates():
    _, stats = clip("global_norm(threshold=10)", [scaled(s / NORM) for s in (5, 20, 40, 8)])
    assert (stats.num_updates, stats.acted) == (4, 2)
    np.testing.assert_allclose(stats.mean_ratio, (1 + 0.5 + 0.25 + 1) / 4)
    np.testing.assert_allclose((stats.norm_before, stats.norm_after), 8)


def test_the_rule_of_pascanu_follows_the_average_norm():
    sizes = [4.0, 2.0, 1e9, 30.0, np.nan, 6.0]
    gradients = [scaled(size / NORM) for size in sizes]
    means = [4.0, 3.0, (4 + 2 + 30) / 3, (4 + 2 + 30 + 30) / 4, 66 / 4]
    for n, threshold in ((1, np.inf), *((n + 1, 2 * mean) for n, mean in enumerate(means, 1))):
        clipped, _ = clip("pascanu(factor=2)", gradients[:n])
        np.testing.assert_allclose(norm(clipped), min(sizes[n - 1], threshold), rtol=1e-12)


def test_a_gradient_of_any_size_is_normalised():
    for size in (1e-12, 1e12):
        assert_equal(clip("normalise", [scaled(size)])[0], scaled(1 / NORM))
    zero, stats = clip("normalise", [scaled(0.0)])
    assert_equal(zero, scaled(0.0))
    assert (stats.acted, stats.cosine, stats.mean_ratio) == (0, 1, 1)


def test_comparisons_at_the_ends_of_the_range():
    np.testing.assert_allclose(compare(scaled(1e-200), scaled(-1e200)).cosine, -1)
    assert compare(scaled(0.0), GRADIENT) == (0, 0)
    np.testing.assert_allclose(norm(scaled(1e-200)) / 1e-200, NORM)


def test_every_clipping_keeps_its_types_in_a_chain_and_is_found():
    gradient = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), GRADIENT)
    for name in CLIPPINGS:
        optimiser = optax.chain(resolve_clipping(name).transform, optax.adam(0.1))
        state = jax.eval_shape(optimiser.init, gradient)
        clipped, updated = jax.eval_shape(optimiser.update, gradient, state, gradient)
        assert (clipped, updated) == (jax.eval_shape(lambda: gradient), state)  # as a scan needs it
        assert clip_stats(updated).norm_after.dtype == jnp.float32


def test_a_clipping_can_be_made_at_any_threshold_under_a_vmap():
    """The same as those that are made one by one: 12.9 is clipped at 2 and not at 20."""
    for spec, option in (("global_norm", "threshold"), ("per_leaf", "threshold"),
                         ("value", "threshold"), ("agc", "clipping"), ("normalise", "size"),
                         ("pascanu", "factor")):  # fmt: skip
        thresholds = jnp.array([2.0, 5.0] if spec == "pascanu" else [0.3, 2.0, 20.0])

        make = resolve_clipping(spec).make

        def twice(threshold, make=make):
            transform = make(threshold)
            state = transform.init(PARAMS)
            _, state = transform.update(scaled(0.1), state, PARAMS)
            return transform.update(GRADIENT, state, PARAMS)[0]

        together = jax.vmap(twice)(thresholds)
        for i, threshold in enumerate(thresholds.tolist()):
            alone, _ = clip(f"{spec}({option}={threshold})", [scaled(0.1), GRADIENT])
            assert_equal(jax.tree.map(lambda leaf, i=i: leaf[i], together), alone)


def test_thresholds_are_swept_where_there_is_one_and_no_other():
    assert check_thresholds("agc", (0.5, 0.1, 0.5)) == (0.5, 0.1)
    assert resolve_clipping("normalise(size=3)").threshold == 3.0
    for spec, message in {
        "none": r"Expected a clipping with a threshold, and without options, .* got 'none'",
        "value(threshold=1)": r"to sweep \(1.0, 20.0\), got 'value\(threshold=1\)'",
        "pascanu": "Expected factor to be between 0.5 and 10, got 20.0",
        "agcc": "Unknown clipping 'agcc'",
    }.items():
        with pytest.raises(ValueError, match=message):
            check_thresholds(spec, (1.0, 20.0))


def loss(outputs):
    return jnp.sum(outputs[-1] ** 3) + jnp.sum(outputs[2])


def clipped_by_hand(cell, params, inputs, threshold):
    """The gradient from one reverse pass that is written out, and how often it was clipped."""
    carries, outputs = unroll(cell, params, inputs)
    direct = jax.grad(loss)(outputs)
    adjoint = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), carries)
    gradient, acted = jax.tree.map(jnp.zeros_like, params), 0
    for t in range(len(inputs), 0, -1):
        before = jax.tree.map(lambda leaf, t=t: leaf[t - 1], carries)
        now = jax.tree.map(lambda leaf, t=t: leaf[t], carries)
        (own,) = jax.vjp(cell.hidden, now)[1](direct[t - 1])
        adjoint = jax.tree.map(jnp.add, adjoint, own)
        size = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(adjoint)))
        factor = jnp.where(size > threshold, threshold / size, 1)
        adjoint = jax.tree.map(lambda leaf, f=factor: leaf * f, adjoint)
        acted += size > threshold
        _, vjp = jax.vjp(lambda p, s, t=t: cell.step(p, s, inputs[t - 1])[0], params, before)
        share, adjoint = vjp(adjoint)
        gradient = jax.tree.map(jnp.add, gradient, share)
    return gradient, acted


def test_adjoints_are_clipped_at_every_step(key):
    cell = lstm(2, 3)
    params = jax.tree.map(lambda leaf: 4 * leaf, cell.init(key))
    inputs = jax.random.normal(key, (4, 2))
    gradient, acted = jax.jit(clipped_by_hand, static_argnums=0)(cell, params, inputs, 0.3)
    wrapped = clip_adjoints(cell, 0.3)
    np.testing.assert_array_equal(
        unroll(wrapped, params, inputs).outputs, unroll(cell, params, inputs).outputs
    )
    found = jax.jit(jax.grad(lambda p: loss(unroll(wrapped, p, inputs).outputs)))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-13), found, gradient)
    effect = adjoint_effect(cell, params, inputs, loss=loss, threshold=0.3)
    assert effect.acted == acted and 0 < acted < 4
    exact = jax.grad(lambda p: loss(unroll(cell, p, inputs).outputs))(params)
    np.testing.assert_allclose(effect[:2], compare(gradient, exact), rtol=1e-10)


def test_a_batch_is_clipped_sequence_by_sequence(key):
    cell = rnn(2, 3)
    params = cell.init(key)
    inputs = 3 * jax.random.normal(key, (4, 2, 2))

    @jax.jit
    def gradient(inputs):
        def total(params):
            return jnp.sum(unroll(clip_adjoints(cell, 0.4), params, inputs).outputs[-1] ** 3)

        return jax.grad(total)(params)

    alone = [gradient(inputs[:, b]) for b in range(2)]
    total = jax.tree.map(jnp.add, *alone)
    assert_equal(gradient(inputs), total)
    effect = adjoint_effect(cell, params, inputs, loss=lambda o: jnp.sum(o**2), threshold=1e9)
    assert effect.acted == 0
    np.testing.assert_allclose((effect.cosine, effect.norm_ratio), 1, rtol=1e-14)


def test_bad_names_options_and_thresholds_are_refused():
    for spec, message in {
        "global": "Unknown clipping 'global'. Did you mean 'global_norm'",
        "none(threshold=1)": "'threshold' of clipping 'none'. Known: none",
        "value(size=1)": "Unknown option 'size' of clipping 'value'. Known: threshold",
        "global_norm(threshold=0)": "Expected threshold to be positive, got 0",
        "per_leaf(threshold=-1)": "Expected threshold to be positive, got -1",
        "value(threshold=0.0)": "Expected threshold to be positive, got 0.0",
        "adjoint(threshold=-0.5)": "Expected threshold to be positive, got -0.5",
        "agc(clipping=0)": "Expected clipping to be positive, got 0",
        "normalise(size=0)": "Expected size to be positive, got 0",
        "pascanu(factor=0.4)": r"Expected factor to be between 0.5 and 10, got 0.4",
        "pascanu(factor=11)": r"between 0.5 and 10, got 11",
    }.items():
        with pytest.raises(ValueError, match=message):
            resolve_clipping(spec)


def test_a_record_is_found_only_where_there_is_one():
    transform = resolve_clipping("none").transform
    for chain, count in ((optax.adam(0.1), 0), (optax.chain(transform, transform), 2)):
        with pytest.raises(ValueError, match=f"Expected the state of one clipping .* got {count}"):
            clip_stats(chain.init(PARAMS))
