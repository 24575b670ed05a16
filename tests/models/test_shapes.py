"""The shapes of a model, against loops over the step and against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import random_state

from gradflow.cells import gru, lstm, rnn
from gradflow.models import (
    bidirectional,
    encoder_decoder,
    many_to_many,
    many_to_one,
    one_to_many,
    reverse,
)

D, H, T = 2, 3, 5
LENGTHS = [5, 2, 1]
REAL = np.arange(T)[:, None] < LENGTHS


def noise(tree, seed=1):
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return structure.unflatten(
        [
            leaf + 0.5 * jax.random.normal(k, leaf.shape)
            for leaf, k in zip(leaves, keys, strict=True)
        ]
    )


def loop(cell, params, inputs, carry=None):
    """The carry after the last of some inputs, and h at each, one example and step at a time."""
    carry, outputs = cell.initial_carry() if carry is None else carry, []
    for x in inputs:
        carry, h = cell.step(params, carry, x)
        outputs.append(np.asarray(h))
    return carry, np.array(outputs)


@pytest.fixture
def inputs(key):
    """A batch whose padding must not matter: it is not even a number."""
    x = jax.random.normal(key, (T, len(LENGTHS), D))
    return jnp.where(REAL[..., None], x, jnp.nan)


def sequences(inputs):
    return [inputs[:n, i] for i, n in enumerate(LENGTHS)]


def test_many_to_many_and_many_to_one_are_the_loop(inputs):
    cell = lstm(D, H)
    params = noise(cell.init(jax.random.key(2)))
    every = many_to_many(cell).apply(params, inputs, lengths=LENGTHS)
    last = many_to_one(cell).apply(params, inputs, lengths=LENGTHS)
    for i, x in enumerate(sequences(inputs)):
        _, expected = loop(cell, params, x)
        np.testing.assert_allclose(every[: len(x), i], expected, rtol=1e-12)
        np.testing.assert_allclose(last[i], expected[-1], rtol=1e-12)
    alone = many_to_one(cell).apply(params, inputs[:, 0])
    np.testing.assert_allclose(alone, last[0], rtol=1e-12)


def test_a_bidirectional_model_is_two_loops_over_the_real_steps(inputs):
    cells = {"forward": lstm(D, H), "backward": gru(D, 4)}
    model = bidirectional(*cells.values())
    params = noise(model.init(jax.random.key(2)))
    both = model.apply(params, inputs, lengths=LENGTHS)
    last = bidirectional(*cells.values(), last=True).apply(params, inputs, lengths=LENGTHS)
    assert both.shape == (T, 3, H + 4)
    for i, x in enumerate(sequences(inputs)):
        _, there = loop(cells["forward"], params["forward"], x)
        _, back = loop(cells["backward"], params["backward"], x[::-1])
        expected = np.concatenate([there, back[::-1]], axis=-1)
        np.testing.assert_allclose(both[: len(x), i], expected, rtol=1e-12)
        np.testing.assert_allclose(last[i], np.concatenate([there[-1], back[-1]]), rtol=1e-12)
    alone = model.apply(params, inputs[:, 0])
    np.testing.assert_allclose(alone, both[:, 0], rtol=1e-12)


def test_padding_has_no_part_in_the_gradient(inputs):
    model = bidirectional(rnn(D, H), rnn(D, H), last=True)
    params = model.init(jax.random.key(2))

    def loss(params, inputs):
        return (model.apply(params, inputs, lengths=LENGTHS) ** 2).sum()

    by_params, by_inputs = jax.grad(loss, argnums=(0, 1))(params, inputs)
    assert (by_inputs[~REAL] == 0).all() and (abs(by_inputs[REAL]) > 1e-12).all()
    alone = [
        jax.grad(lambda p, x=x: (model.apply(p, x) ** 2).sum())(params) for x in sequences(inputs)
    ]
    expected = jax.tree.map(lambda *leaves: sum(leaves), *alone)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11), by_params, expected)


def test_reversing_turns_each_sequence_at_its_own_end():
    inputs = jnp.arange(8).reshape(4, 2, 1)
    turned = reverse(inputs, [3, 0])[..., 0]
    np.testing.assert_array_equal(turned.T, [[4, 2, 0, 6], [1, 3, 5, 7]])
    np.testing.assert_array_equal(reverse(inputs)[:, 1, 0], [7, 5, 3, 1])
    np.testing.assert_array_equal(reverse(inputs[:, 0], 2)[:, 0], [2, 0, 4, 6])


def torch_lstm(torch, params):
    """PyTorch's bidirectional LSTM of our weights; its gates are in the order i, f, g, o."""
    theirs = torch.nn.LSTM(D, H, bidirectional=True, dtype=torch.float64)
    state = {}
    for ours, end in (("forward", ""), ("backward", "_reverse")):
        join = lambda name, p=params[ours]: np.concatenate([p[q][name] for q in "ifgo"])  # noqa: E731
        values = {"weight_ih": join("W_x"), "weight_hh": join("W_h"), "bias_ih": join("b")}
        values["bias_hh"] = 0 * values["bias_ih"]
        state |= {f"{k}_l0{end}": torch.tensor(v) for k, v in values.items()}
    theirs.load_state_dict(state)
    return theirs


def test_a_bidirectional_lstm_is_torchs(inputs):
    torch = pytest.importorskip("torch")
    model = bidirectional(lstm(D, H), lstm(D, H))
    params = noise(model.init(jax.random.key(2)))
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.tensor(np.asarray(inputs)), torch.tensor(LENGTHS)
    )
    outputs, (h, _) = torch_lstm(torch, params)(packed)
    expected = torch.nn.utils.rnn.pad_packed_sequence(outputs)[0].detach().numpy()
    ours = np.asarray(model.apply(params, inputs, lengths=LENGTHS))
    np.testing.assert_allclose(ours[REAL], expected[REAL], rtol=1e-10)
    last = bidirectional(lstm(D, H), lstm(D, H), last=True).apply(params, inputs, lengths=LENGTHS)
    np.testing.assert_allclose(last, torch.cat(tuple(h), dim=-1).detach().numpy(), rtol=1e-10)


@pytest.mark.parametrize("then", ["repeat", "zero", "output"])
def test_one_to_many_goes_on_from_the_first_input(then):
    cell = lstm(H, H)
    params, _, x = random_state(cell, H)
    outputs = one_to_many(cell, 4, then=then).apply(params, jnp.stack([x, -x]))
    for i, first in enumerate((x, -x)):
        carry, given = cell.initial_carry(), first
        for h_t in outputs[:, i]:
            carry, h = cell.step(params, carry, given)
            np.testing.assert_allclose(h_t, h, rtol=1e-12)
            given = {"repeat": first, "zero": 0 * first, "output": h}[then]
    short = one_to_many(cell, 1, then=then).apply(params, x)
    np.testing.assert_allclose(short, outputs[:1, 0], rtol=1e-12)


@pytest.mark.parametrize("context", [False, True])
def test_the_decoder_goes_on_where_the_encoder_ended(context, inputs):
    encoder, decoder = lstm(D, H), lstm(4 + H * context, H)
    model = encoder_decoder(encoder, decoder, context=context)
    params = noise(model.init(jax.random.key(2)))
    targets = jax.random.normal(jax.random.key(3), (3, len(LENGTHS), 4))
    outputs = model.apply(params, inputs, targets, lengths=LENGTHS)
    for i, x in enumerate(sequences(inputs)):
        carry, read = loop(encoder, params["encoder"], x)
        y = targets[:, i]
        if context:
            y = jnp.concatenate([y, jnp.tile(read[-1], (3, 1))], axis=-1)
        _, expected = loop(decoder, params["decoder"], y, carry)
        np.testing.assert_allclose(outputs[:, i], expected, rtol=1e-12)
    alone = model.apply(params, inputs[:, 0], targets[:, 0])
    np.testing.assert_allclose(alone, outputs[:, 0], rtol=1e-12)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: one_to_many(rnn(2, 3), 0), "Expected num_steps to be at least 1, got 0"),
        (
            lambda: one_to_many(rnn(2, 3), 2, then="outptu"),
            "Unknown input after the first step 'outptu'. Did you mean 'output'",
        ),
        (
            lambda: one_to_many(rnn(2, 3), 2, then="output").apply(
                rnn(2, 3).init(jax.random.key(0)), jnp.zeros(2)
            ),
            r"Expected x of the size of h, 3, .* got \(2,\). Make the sizes equal",
        ),
        (
            lambda: encoder_decoder(lstm(2, 3), gru(2, 3)),
            "with the same carry, got LSTMCarry.*. Use one kind of cell",
        ),
        (lambda: encoder_decoder(gru(2, 3), gru(2, 4)), "with the same carry, got"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
