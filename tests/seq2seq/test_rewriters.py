"""Rewriters in training: their flow by automatic differentiation, their evaluation, one fit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from oracle import jit
from studies import load_part

from gradflow.cells import lstm, rnn

STRINGS, TRAINING = load_part("seq2seq.strings"), load_part("seq2seq.training")
Pairs, reversal, Rewriters = STRINGS.Pairs, STRINGS.reversal, TRAINING.Rewriters
cross_entropy, evaluate, log_adjoints = (
    TRAINING.cross_entropy,
    TRAINING.evaluate,
    TRAINING.log_adjoints,
)
Rewriter = load_part("seq2seq.rewriter").Rewriter
NET = Rewriter(lstm(5, 3), lstm(4, 3), 5, 4)
CONFIG = load_part("seq2seq.config").Config(
    num_updates=4,
    num_evaluations=2,
    batch_size=3,
    eval_size=5,
    clip=0.2,
    num_seeds=2,
    num_validation=2,
    seed=0,
)


@pytest.fixture(scope="module")
def params():
    leaves, tree = jax.tree.flatten(NET.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [leaf + jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    return tree.unflatten(noise)


def test_adjoints_are_those_of_automatic_differentiation_through_both_halves(params):
    source, target = [4, 0, 2, 2], [1, 3, 0]
    flat, unravel = ravel_pytree(NET.encoder.initial_carry())

    def loss(changes):
        """Of the decoder, with a change added to each of the 5 + 3 carries."""
        s = unravel(flat + changes[0])
        for k, symbol in enumerate(source):
            s, _ = NET.encoder.step(params["encoder"], s, jnp.eye(5)[symbol])
            s = unravel(ravel_pytree(s)[0] + changes[1 + k])
        given, total = jnp.zeros(4), 0.0
        for k, symbol in enumerate(target):
            s, _ = NET.decoder.step(params["decoder"], s, given)
            s = unravel(ravel_pytree(s)[0] + changes[5 + k])
            logits = params["readout"]["W"] @ s.h + params["readout"]["b"]
            total += jnp.log(jnp.sum(jnp.exp(logits))) - logits[symbol]
            given = jnp.eye(4)[symbol]
        return total / 3

    expected = np.log(np.linalg.norm(jax.jit(jax.grad(loss))(jnp.zeros((8, 6))), axis=1))
    pair = Pairs(jnp.array(source), jnp.array(4), jnp.array(target))
    found = jax.jit(lambda: log_adjoints(NET, params, pair))()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_free_running_outputs_are_those_under_teacher_forcing_of_the_same_symbols(params):
    sources = np.array([[0, 1, 2, 3], [4, 4, -1, -1], [1, -1, -1, -1]])
    lengths = np.array([4, 2, 1])
    free = jax.jit(lambda p: NET.free(p, jnp.asarray(sources.T), 6, lengths=jnp.asarray(lengths)))(
        params
    )
    own = Pairs(sources, lengths, np.asarray(free).T)
    found = jax.jit(lambda p: evaluate(NET, params, p))
    assert all(found(own)[name] == 1 for name in ("sequences", "forced", "free"))
    changed = own.targets.copy()
    changed[0, 2] = (changed[0, 2] + 1) % 4
    shares = found(own._replace(targets=changed))
    assert shares["sequences"] == pytest.approx(2 / 3) and shares["free"] == pytest.approx(17 / 18)
    assert shares["loss"] > found(own)["loss"]
    changed[:, 0] = (changed[:, 0] + 1) % 4
    logits = jax.jit(lambda p: NET.forced(p, jnp.asarray(sources.T), jnp.asarray(changed.T)))
    alone = found(Pairs(sources[:1], lengths[:1], changed[:1]))
    told = np.argmax(logits(params)[:, 0], axis=-1) == changed[0]
    assert alone["forced"] == pytest.approx(told.mean()) != alone["free"]


@pytest.mark.parametrize(("seeds", "shown"), [((0, 1), slice(0, 5)), ((2, 3), slice(5, 10))])
def test_a_fit_is_each_networks_own_loop(seeds, shown):
    """At its own rate, clipped by its own norm; validation seeds have pairs of their own."""
    data, rates = reversal(2), (0.1, 0.03)
    net = Rewriter(rnn(10, 3), rnn(10, 3), 10, 10)
    born = jax.vmap(net.init)(jax.random.split(jax.random.key(0), 2))
    nets = Rewriters(net, data, CONFIG, np.array(seeds), np.array(rates))
    *_, last = nets.fit(born)

    def loss(params, pairs):
        logits = net.forced(params, pairs.sources.T, pairs.targets.T)
        return cross_entropy(logits, pairs.targets.T)

    slope, test = jit(jax.grad(loss)), data.test.at(np.arange(10)[shown])
    value = jit(loss)
    for seed, rate in enumerate(rates):
        falling = lambda count, rate=rate: rate / 2 * (1 + jnp.cos(jnp.pi * count / 4))  # noqa: E731
        adam = optax.adam(falling)
        params = jax.tree.map(lambda leaf, seed=seed: leaf[seed], born)
        state, losses = adam.init(params), [value(params, test)]
        for epoch in range(2):
            for batch in nets.batches(epoch):
                mine = Pairs(*(array[seed] for array in batch))
                steep = slope(params, mine)
                assert (norm := optax.tree.norm(steep)) > 0.2
                clipped = jax.tree.map(lambda leaf, norm=norm: 0.2 / norm * leaf, steep)
                steps, state = adam.update(clipped, state, params)
                params = optax.apply_updates(params, steps)
            losses.append(value(params, test))
        np.testing.assert_allclose(last.metrics["loss"][:, seed], losses, rtol=1e-9)
        assert abs(losses[0] - losses[2]) > 1e-3


def test_each_seed_has_batches_of_its_own_the_same_each_time():
    nets = Rewriters(NET, reversal(3), CONFIG, np.arange(2), np.ones(2))
    once, again = (list(nets.batches(1)) for _ in range(2))
    assert len(once) == 2 and once[0].sources.shape == (2, 3, 3)
    for a, b in zip(once, again, strict=True):
        np.testing.assert_array_equal(a.sources, b.sources)
    assert (once[0].sources[0] != once[0].sources[1]).any()
    assert (once[0].sources != next(nets.batches(0)).sources).any()
