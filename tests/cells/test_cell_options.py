"""Options that foreign networks need: projections, activations by name, and a clip."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_step_matches, random_state

from gradflow.cells import gru, gru_reset_before, lstm, rnn
from gradflow.cells.activations import clipped, resolve_activation
from gradflow.cells.lstm import LSTMCarry
from gradflow.flow import log_norms
from gradflow.unroll import unroll

CLIP = 0.3
"""Below many of the arguments of a random state, and above as many."""


def clip(a):
    # np.clip compares complex numbers by their imaginary part, too: the real part decides here.
    return np.where(np.real(a) > CLIP, CLIP, np.where(np.real(a) < -CLIP, -CLIP, a))


NUMPY = {
    "tanh": np.tanh,
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "softplus": lambda a: np.log1p(np.exp(a)),
    "relu": lambda a: np.where(np.real(a) > 0, a, 0),
    "identity": lambda a: a,
    "hard_sigmoid": lambda a: np.where(np.abs(np.real(a)) < 3, a / 6 + 0.5, np.real(a) > 0),
    "hard_sigmoid_fifth": lambda a: np.where(
        np.abs(np.real(a)) < 2.5, 0.2 * a + 0.5, np.real(a) > 0
    ),
}


def functions(options):
    """σ, φ and the function of the output, from the definitions of the options."""
    bound = clip if "clip" in options else lambda a: a
    sigma = NUMPY[options.get("gate_activation", "sigmoid")]
    phi = NUMPY[options.get("activation", "tanh")]
    output = NUMPY[options.get("output_activation", options.get("activation", "tanh"))]
    return lambda a: sigma(bound(a)), lambda a: phi(bound(a)), output


def pre(params, gate, h, x):
    w = params[gate]
    return w["W_x"] @ x + w["W_h"] @ h + w["b"]


def lstm_reference(options):
    sigma, phi, output = functions(options)

    def step(params, carry, x):
        h, c = carry
        peephole = {q: params[q].get("p", 0.0) for q in params if q != "projection"}
        f = sigma(pre(params, "f", h, x) + peephole["f"] * c)
        i = sigma(pre(params, "i", h, x) + peephole["i"] * c) if "i" in params else 1 - f
        c = f * c + i * phi(pre(params, "g", h, x))
        h = sigma(pre(params, "o", h, x) + peephole["o"] * c) * output(c)
        if "projection" in params:
            h = params["projection"]["W"] @ h
        return LSTMCarry(h, c)

    return step


def gru_reference(options, reset):
    sigma, phi, _ = functions(options)

    def step(params, h, x):
        r, z = sigma(pre(params, "r", h, x)), sigma(pre(params, "z", h, x))
        w = params["n"]
        if reset == "after":
            n = phi(w["W_x"] @ x + w["b"] + r * (w["W_h"] @ h + w["b_h"]))
        else:
            n = phi(w["W_x"] @ x + w["W_h"] @ (r * h) + w["b"])
        return (1 - z) * n + z * h

    return step


GATED = [
    {"activation": "softplus"},
    {"activation": "relu"},
    {"gate_activation": "hard_sigmoid"},
    {"gate_activation": "hard_sigmoid_fifth"},
    {"clip": CLIP},
    {"activation": "identity", "gate_activation": "softplus", "clip": CLIP},
]


@pytest.mark.parametrize("options", GATED, ids=str)
@pytest.mark.parametrize("reset", ["after", "before"])
def test_gru_equals_the_reference(options, reset):
    factory = gru if reset == "after" else gru_reset_before
    assert_step_matches(factory(2, 4, **options), gru_reference(options, reset), 2)


@pytest.mark.parametrize(
    "options",
    [
        *GATED,
        {"activation": "relu", "output_activation": "tanh"},
        {"output_activation": "softplus", "clip": CLIP},
        {"projection_size": 2},
        {"projection_size": 6, "activation": "softplus", "peephole": True},
        {"projection_size": 2, "clip": CLIP, "peephole": True},
        {"projection_size": 3, "clip": CLIP, "coupled": True, "gate_activation": "hard_sigmoid"},
    ],
    ids=str,
)
def test_lstm_equals_the_reference(options):
    cell = lstm(2, 4, **options)
    assert_step_matches(cell, lstm_reference(options), 2)
    params, carry, x = random_state(cell, 2)
    c = carry.c
    gates = cell.gates(params, carry, x)
    new, output = cell.step(params, carry, x)
    np.testing.assert_allclose(gates["f"] * c + gates["i"] * gates["g"], new.c, rtol=1e-12)
    np.testing.assert_array_equal(new.h, output)


@pytest.mark.parametrize("activation", ["softplus", "relu", "identity", "tanh"])
@pytest.mark.parametrize("residual", [False, True])
def test_rnn_with_a_clip_equals_the_reference(activation, residual):
    options = {"activation": activation, "clip": CLIP}
    _, phi, _ = functions(options)

    def reference(params, h, x):
        a = params["W_x"] @ x + params["W_h"] @ h + params["b"]
        return phi(a + h if residual else a)

    assert_step_matches(rnn(2, 4, residual=residual, **options), reference, 2)


def test_the_output_activation_does_not_see_the_clip(key):
    cell = lstm(1, 1, clip=CLIP)
    params = jax.tree.map(jnp.zeros_like, cell.init(key))
    new, h = cell.step(params, LSTMCarry(jnp.zeros(1), jnp.array([4.0])), jnp.zeros(1))
    np.testing.assert_allclose(new.c, 2.0)
    np.testing.assert_allclose(h, 0.5 * np.tanh(2.0))


def test_projected_lstm_equals_pytorch(key):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.LSTM(3, 5, proj_size=2, dtype=torch.float64)
    own = {name: p.detach().numpy() for name, p in module.named_parameters()}
    parts = [np.split(own[name], 4) for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0")]
    more = np.split(own["bias_hh_l0"], 4)
    params = {
        gate: {"W_x": jnp.asarray(W_x), "W_h": jnp.asarray(W_h), "b": jnp.asarray(b + b_h)}
        for gate, W_x, W_h, b, b_h in zip("ifgo", *parts, more, strict=True)
    } | {"projection": {"W": jnp.asarray(own["weight_hr_l0"])}}
    x = np.random.default_rng(0).normal(size=(7, 3))
    cell = lstm(3, 5, projection_size=2)
    outputs = unroll(cell, params, jnp.asarray(x)).outputs
    h = torch.zeros(1, 1, 2, dtype=torch.float64, requires_grad=True)
    expected, _ = module(torch.as_tensor(x)[:, None], (h, torch.zeros(1, 1, 5, dtype=h.dtype)))
    np.testing.assert_allclose(outputs, expected[:, 0].detach().numpy(), rtol=1e-12)
    rows = [torch.autograd.grad(expected[-1, 0, j], h, retain_graph=True)[0] for j in range(2)]
    jacobian = np.stack([row[0, 0].numpy() for row in rows])
    found = log_norms(cell, params, jnp.asarray(x))
    np.testing.assert_allclose(found[-1], np.log(np.linalg.norm(jacobian, 2)), rtol=1e-9)


def test_sizes_of_a_projection(key):
    cell = lstm(3, 5, projection_size=2)
    params = cell.init(key)
    assert params["projection"]["W"].shape == (2, 5) and params["f"]["W_h"].shape == (5, 2)
    carry = cell.initial_carry()
    assert carry.h.shape == (2,) and carry.c.shape == (5,)
    plain = lstm(3, 5).init(key)
    for gate in "ifgo":  # the option changes no other key
        np.testing.assert_array_equal(params[gate]["W_x"], plain[gate]["W_x"])


def test_hard_sigmoids_are_those_of_the_frameworks():
    x = jnp.linspace(-4, 4, 41)
    fifth, sixth = resolve_activation("hard_sigmoid_fifth"), resolve_activation("hard_sigmoid")
    np.testing.assert_allclose(fifth(x), np.clip(0.2 * x + 0.5, 0, 1))
    np.testing.assert_allclose(sixth(x), np.clip(x / 6 + 0.5, 0, 1), atol=1e-15)
    np.testing.assert_array_equal(clipped("identity", 1.5)(x), np.clip(x, -1.5, 1.5))


WRONG = [
    ({"activation": "tan"}, ValueError, "Unknown activation 'tan'"),
    ({"gate_activation": "sigmoids"}, ValueError, "Unknown activation 'sigmoids'"),
    ({"clip": 0.0}, ValueError, "Expected clip.*positive.* got 0.0"),
    ({"clip": -1.0}, ValueError, "Expected clip.*positive.* got -1.0"),
    ({"clip": "3"}, TypeError, "Expected clip"),
]
OF_LSTM = [
    ({"output_activation": "tan"}, ValueError, "Unknown activation 'tan'"),
    ({"projection_size": 0}, ValueError, "Expected projection_size"),
    ({"projection_size": 2.5}, TypeError, "Expected projection_size"),
]


@pytest.mark.parametrize(
    "factory, wrong",
    [
        *itertools.product([lstm, gru, gru_reset_before], WRONG),
        *itertools.product([lstm], OF_LSTM),
        *((rnn, wrong) for wrong in WRONG if "gate_activation" not in wrong[0]),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_wrong_options_are_refused(factory, wrong, without_checks_of_types):
    options, kind, message = wrong
    with pytest.raises(kind, match=message):
        factory(2, 3, **options)
