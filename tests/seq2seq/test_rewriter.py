"""The rewriter: what it is told and what it says by itself, and its halves, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from oracle import jit
from studies import load_part

from gradflow.cells import gru, lstm
from gradflow.unroll import unroll

Rewriter = load_part("seq2seq.rewriter").Rewriter
NET = Rewriter(lstm(5, 3), lstm(4, 3), 5, 4)


@pytest.fixture(scope="module")
def params():
    leaves, tree = jax.tree.flatten(NET.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [leaf + jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    return tree.unflatten(noise)


def by_hand(params, source, said):
    """The logits of each step, given what was said before it; ``said`` None: the likeliest."""
    s = NET.encoder.initial_carry()
    for symbol in source:
        s, _ = NET.encoder.step(params["encoder"], s, jnp.eye(5)[symbol])
    given, logits = jnp.zeros(4), []
    for step in range(3):
        s, h = NET.decoder.step(params["decoder"], s, given)
        logits.append(params["readout"]["W"] @ h + params["readout"]["b"])
        given = jnp.eye(4)[jnp.argmax(logits[-1]) if said is None else said[step]]
    return jnp.stack(logits)


def test_the_decoder_reads_true_symbols_or_its_own(params):
    sources, lengths = jnp.array([[0, 4, 1], [1, 4, -1], [2, -1, -1]]), jnp.array([3, 2, 1])
    targets = jnp.array([[1, 0, 3], [1, 2, 3], [0, 0, 2]])

    def found(params):
        forced = NET.forced(params, sources, targets, lengths=lengths)
        return forced, NET.free(params, sources, 3, lengths=lengths)

    def expected(params):
        rows = [sources[:n, i] for i, n in enumerate((3, 2, 1))]
        forced = [by_hand(params, row, targets[:, i]) for i, row in enumerate(rows)]
        free = [by_hand(params, row, None).argmax(axis=1) for row in rows]
        return jnp.stack(forced, axis=1), jnp.stack(free, axis=1)

    (forced, free), (logits, words) = jit(found)(params), jit(expected)(params)
    np.testing.assert_allclose(forced, logits, rtol=1e-10)
    np.testing.assert_array_equal(free, words)
    assert len(np.unique(free)) > 1


def test_both_halves_have_the_loss_of_the_whole(params):
    source, target = jnp.array([4, 0, 2, 2]), jnp.array([1, 3, 0])

    def loss(logits, target):
        return jnp.sum(logits**2 * (1 + target[:, None]))

    def found(params):
        halves = (
            NET.encoding(params, source, target, loss),
            NET.decoding(params, source, target, loss),
        )
        runs = [unroll(half.cell, half.params, half.inputs, carry=half.carry) for half in halves]
        return [half.loss(run.outputs) for half, run in zip(halves, runs, strict=True)], runs

    def expected(params):
        logits = NET.forced(params, source[:, None], target[:, None])[:, 0]
        return loss(logits, target)

    losses, (read, _) = jit(found)(params)
    np.testing.assert_allclose(losses, 2 * [jit(expected)(params)], rtol=1e-12)
    whole = [ravel_pytree(jax.tree.map(lambda a, t=t: a[t], read.carries))[0] for t in range(1, 5)]
    np.testing.assert_array_equal(read.outputs, np.stack(whole))


def test_the_readout_has_lecuns_variance_and_the_halves_have_their_own_keys():
    net = Rewriter(gru(4, 50), gru(4, 50), 4, 400)
    params = jit(net.init)(jax.random.key(0))
    assert params["readout"]["W"].shape == (400, 50) and not params["readout"]["b"].any()
    assert float(params["readout"]["W"].var()) * 50 == pytest.approx(1, rel=0.05)
    assert (params["encoder"]["n"]["W_x"] != params["decoder"]["n"]["W_x"]).all()


def test_halves_that_do_not_fit_are_refused():
    net = Rewriter(gru(4, 3), lstm(4, 3), 4, 4)
    symbols = jnp.zeros((2, 1), int)
    with pytest.raises(ValueError, match="an encoder and a decoder with the same carry, got"):
        net.forced(net.init(jax.random.key(0)), symbols, symbols)
