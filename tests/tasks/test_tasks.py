"""Every task against its definition in NumPy, and its baseline by Monte Carlo."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow.tasks import TASKS, Batch, resolve_task

BATCH = 3000
SPECS = {
    "adding": "adding(num_steps=9)",
    "adding_1997": "adding_1997(num_steps=30)",
    "adding_2013": "adding_2013(num_steps=25)",
    "copy": "copy(lag=4, num_symbols=3, num_recalled=2)",
    "delayed_copy": "delayed_copy(delay=3, num_steps=8)",
    "delayed_xor": "delayed_xor(delay=2, order=2, num_steps=11)",
    "digits": "digits",
    "latch": "latch(num_steps=6, num_informed=2, noise=0.5)",
    "lorenz": "lorenz(num_steps=20, horizon=2, washout=5, observed='xyz')",
    "mackey_glass": "mackey_glass(num_steps=50, horizon=3, washout=7)",
    "memorisation": "memorisation(lag=3, num_symbols=2, num_recalled=3)",
    "modular_arithmetic": "modular_arithmetic(num_steps=10)",
    "multiplication": "multiplication(num_steps=25)",
    "parity": "parity(num_steps=7)",
    "permutation": "permutation(num_steps=7, num_symbols=5)",
    "temporal_order": "temporal_order(num_steps=23)",
    "xor": "xor(num_steps=25)",
}


@functools.cache
def sampled(spec):
    """Samples two batches of the task under vmap; returns the task and the first batch."""
    task = resolve_task(spec)
    keys = jax.random.split(jax.random.key(3), 2)
    both = jax.jit(jax.vmap(lambda key: task.sample(key, BATCH)))(keys)
    first, second = (Batch(*(np.asarray(leaf[i]) for leaf in both)) for i in (0, 1))
    assert not np.array_equal(first.inputs, second.inputs)
    assert set(np.unique(first.weights)) <= {0, 1}
    is_class = task.loss == "cross_entropy"
    assert not is_class or 0 <= first.targets.min() <= first.targets.max() < task.output_size
    size = () if is_class else (task.output_size,)
    assert first.inputs.shape == (task.num_steps, BATCH, task.input_size)
    assert first.targets.shape == (task.num_steps, BATCH, *size)
    return task, first


def answers(task, batch):
    """Predictions that are correct at every weighted step."""
    if task.loss == "squared":
        return batch.targets.copy()
    return np.eye(task.output_size)[batch.targets]


def at_the_end(batch):
    """Yields each sequence up to its last step, the only weighted one, and the target there."""
    assert (batch.weights.sum(axis=0) == 1).all()
    ends = batch.weights.argmax(axis=0)
    for b, end in enumerate(ends[:600]):
        assert not batch.inputs[end + 1 :, b].any()
        yield batch.inputs[: end + 1, b], batch.targets[end, b]


def test_every_task_has_a_spec_here():
    assert set(SPECS) | {"mnist"} == set(TASKS)  # which needs files: see test_image_tasks.py


@pytest.mark.parametrize("name", SPECS)
def test_baseline_is_the_loss_of_the_best_memoryless_prediction(name):
    """It knows the distribution of targets, at each step if all sequences weight the same steps."""
    task, batch = sampled(SPECS[name])
    counts = batch.weights > 0
    same_steps = (counts == counts[:, :1]).all() and task.loss == "cross_entropy"
    groups = batch.targets[counts[:, 0]] if same_steps else [batch.targets[counts]]
    if task.loss == "squared":
        losses = [np.square(group - group.mean(axis=0)).sum(axis=-1).mean() for group in groups]
    else:
        shares = [np.bincount(group) / len(group) for group in groups]
        losses = [-sum(p * np.log(p) for p in share if p > 0) for share in shares]
    np.testing.assert_allclose(np.mean(losses), task.baseline, rtol=0.04)


@pytest.mark.parametrize("name", SPECS)
def test_correct_depends_only_on_weighted_steps(name, key):
    task, batch = sampled(SPECS[name])
    right, batch = answers(task, batch), Batch(*map(jnp.asarray, batch))
    noise = np.asarray(jax.random.normal(key, right.shape))
    right = np.where(batch.weights[..., None] > 0, right, noise)
    assert task.correct(jnp.asarray(right), batch).all()
    last = len(right) - 1 - batch.weights[::-1, 0].argmax()
    right[last, 0] = (
        np.roll(right[last, 0], 1) if task.loss == "cross_entropy" else -9 * right[last, 0]
    )
    np.testing.assert_array_equal(~task.correct(jnp.asarray(right), batch), np.arange(BATCH) == 0)


@pytest.mark.parametrize(
    "name, tolerance",
    [("adding", 0.2), ("adding_1997", 0.04), ("adding_2013", 0.2), ("multiplication", 0.2)],
)
def test_sums_are_correct_within_the_tolerance_of_the_paper(name, tolerance):
    task, batch = sampled(SPECS[name])
    batch = Batch(*map(jnp.asarray, batch))
    assert task.correct(batch.targets + 0.99 * tolerance, batch).all()
    assert not task.correct(batch.targets - 1.01 * tolerance, batch).any()


def test_batch_depends_only_on_its_key():
    task, batch = sampled(SPECS["copy"])
    again = task.sample(jax.random.split(jax.random.key(3), 2)[0], BATCH)
    for a, b in zip(again, batch, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_target_of_adding_is_the_sum_of_the_two_marked_values():
    for x, target in at_the_end(sampled(SPECS["adding"])[1]):
        (p, q) = np.flatnonzero(x[:, 1])
        assert len(x) == 9 and p < 4 <= q and x[p, 1] == x[q, 1] == 1
        np.testing.assert_allclose(target, x[p, 0] + x[q, 0])


def test_adding_of_1997_equals_its_definition():
    lengths, firsts, seconds, cut = set(), set(), set(), 0
    for x, target in at_the_end(sampled(SPECS["adding_1997"])[1]):
        places = np.flatnonzero(x[:, 1] == 1)
        ends = np.flatnonzero(x[:, 1] == -1)
        assert len(places) == 2 and places[1] < 14 and places[0] < 10
        assert set(ends) == {0, len(x) - 1} - set(places)
        assert abs(x[:, 0]).max() <= 1 and x[:, 0].min() < -0.3
        np.testing.assert_allclose(target, 0.5 + x[places, 0].sum() / 4)
        assert (x[0, 0] == 0) == (0 in places)
        cut += 0 in places
        lengths.add(len(x)), firsts.add(places[0]), seconds.add(places[1])
    assert lengths == {30, 31, 32, 33}
    assert firsts == set(range(10)) and seconds == set(range(1, 14))
    assert abs(cut / 600 - (1 / 10 + 9 / 10 / 13)) < 4 * (0.17 * 0.83 / 600) ** 0.5


@pytest.mark.parametrize(
    "name, combine",
    [
        ("adding_2013", lambda a, b: [(a + b) / 2]),
        ("multiplication", lambda a, b: [a * b]),
        ("xor", lambda a, b: a != b),
    ],
)
def test_targets_of_marked_values_are_at_the_last_step(name, combine):
    lengths, places = set(), set()
    for x, target in at_the_end(sampled(SPECS[name])[1]):
        p, q = np.flatnonzero(x[:, 1])
        assert 0 <= p < len(x) // 10 <= q < len(x) // 2 + 1 and x[p, 1] == x[q, 1] == 1
        np.testing.assert_allclose(target, combine(x[p, 0], x[q, 0]))
        lengths.add(len(x)), places.add(p), places.add(q)
    assert lengths == {25, 26} and places == set(range(12))


@pytest.mark.parametrize(
    "name, lag, num_symbols, num_recalled, marker",
    [("copy", 4, 3, 2, 2 + 4 - 1), ("memorisation", 3, 2, 3, 3 + 3)],
)
def test_targets_of_recall_follow_the_marker(name, lag, num_symbols, num_recalled, marker):
    task, batch = sampled(SPECS[name])
    read = batch.inputs.argmax(axis=-1)
    np.testing.assert_array_equal(batch.inputs, np.eye(num_symbols + 2)[read])
    blank = num_symbols
    expected = np.full(read.shape, blank)
    expected[:num_recalled] = read[:num_recalled]
    expected[marker] = num_symbols + 1
    np.testing.assert_array_equal(read, expected)
    assert read[:num_recalled].min() == 0 and read[:num_recalled].max() == num_symbols - 1
    assert (batch.targets[: lag + num_recalled] == blank).all()
    np.testing.assert_array_equal(batch.targets[lag + num_recalled :], read[:num_recalled])
    assert (batch.weights == 1).all()


@pytest.mark.parametrize("name, lags", [("delayed_copy", [3]), ("delayed_xor", [2, 4, 6, 8])])
def test_delayed_bits_equal_their_definition(name, lags):
    batch = sampled(SPECS[name])[1]
    bits = batch.inputs[..., 0].astype(int)
    assert set(np.unique(batch.inputs)) == {0.0, 1.0}
    for t in range(len(bits)):
        assert (batch.weights[t] == (t >= max(lags))).all()
        if t >= max(lags):
            np.testing.assert_array_equal(batch.targets[t], sum(bits[t - d] for d in lags) % 2)


@pytest.mark.parametrize("order, starts", [(2, (2, 11)), (3, (2, 6, 13))])
def test_temporal_order_equals_its_definition(order, starts):
    batch = sampled(f"temporal_order(num_steps=23, order={order})")[1]
    seen, classes = [set() for _ in starts], set()
    for x, target in at_the_end(batch):
        symbols = x.argmax(axis=-1)
        np.testing.assert_array_equal(x, np.eye(6)[symbols])
        places = np.flatnonzero(symbols < 2)
        assert len(x) == 23 and len(places) == order
        for place, start, places_seen in zip(places, starts, seen, strict=True):
            assert start <= place < start + 2
            places_seen.add(place)
        assert target == sum(letter * 2**i for i, letter in enumerate(symbols[places]))
        classes.add(target)
    assert all(len(places) == 2 for places in seen) and len(classes) == 2**order


def test_three_ordered_symbols_have_eight_classes():
    task = resolve_task("temporal_order(num_steps=23, order=3)")
    assert task.output_size == 8
    np.testing.assert_allclose(task.baseline, np.log(8))


def test_random_permutation_equals_its_definition():
    seen = set()
    for x, target in at_the_end(sampled(SPECS["permutation"])[1]):
        symbols = x.argmax(axis=-1)
        np.testing.assert_array_equal(x, np.eye(5)[symbols])
        assert target == symbols[0] and symbols[0] < 2 and (symbols[1:] >= 2).all()
        seen |= set(symbols)
    assert seen == set(range(5))


def test_latch_equals_its_definition():
    batch = sampled(SPECS["latch"])[1]
    for x, target in at_the_end(batch):
        assert len(x) == 6 and x[0, 0] == x[1, 0] and abs(x[0, 0]) == 1
        np.testing.assert_allclose(target, 0.8 * x[0])
    rest = batch.inputs[2:]
    assert abs(rest.mean()) < 5 * 0.5 / rest.size**0.5 and abs(rest.std() - 0.5) < 0.02


def test_bad_options_and_names_raise():
    for spec, message in {
        "ading": "Unknown task 'ading'. Did you mean 'adding'",
        "adding(lag=3)": "Unknown option 'lag' of task 'adding'. Known: num_steps",
        "adding(num_steps=1)": "Expected num_steps to be at least 2, got 1",
        "adding_1997(num_steps=21)": "Expected num_steps to be at least 22, got 21",
        "xor(num_steps=9)": "at least 10, got 9",
        "multiplication(num_steps=9)": "at least 10, got 9",
        "adding_2013(num_steps=9)": "at least 10, got 9",
        "temporal_order(num_steps=9)": "at least 10, got 9",
        "copy(lag=0)": "Expected lag to be at least 1, got 0",
        "copy(num_symbols=1)": "Expected num_symbols to be at least 2",
        "memorisation(lag=-1)": "Expected lag to be at least 0, got -1",
        "memorisation(num_recalled=0)": "Expected num_recalled to be at least 1",
        "delayed_xor(order=0)": "Expected order to be at least 1, got 0",
        "delayed_xor(delay=3, order=2, num_steps=12)": "Expected num_steps to be at least 13",
        "delayed_copy(delay=0)": "Expected delay to be at least 1",
        "permutation(num_symbols=2)": "Expected num_symbols to be at least 3",
        "latch(num_steps=3)": "Expected num_steps to be at least 4, got 3",
        "latch(noise=-1)": "Expected noise to be non-negative, got -1",
        "temporal_order(order=4)": "Expected order to be 2 or 3, got 4",
        "lorenz(horizon=0)": "Expected horizon to be at least 1, got 0",
        "mackey_glass(num_steps=20)": "Expected num_steps to be at least 21",
    }.items():
        with pytest.raises(ValueError, match=message):
            resolve_task(spec)
    with pytest.raises(TypeError, match=r"Expected lag to be an integer, got True"):
        resolve_task("copy(lag=True)")
