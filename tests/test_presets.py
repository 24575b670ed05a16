"""What each framework draws at birth, as laws; Flax's own draws stand beside ours."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from gradflow.cells import gru, gru_reset_before, lstm, rnn
from gradflow.cells.rnn import irnn
from gradflow.presets import PRESETS, with_preset
from gradflow.testing import check_cell

INPUT, HIDDEN = 40, 128
FACTORIES = {"gru": gru, "gru_reset_before": gru_reset_before, "lstm": lstm, "rnn": rnn}
KNOWN = [(name, kind) for name in PRESETS for kind in PRESETS[name]]
FUSED = [("keras", "lstm"), ("keras", "gru"), ("keras", "gru_reset_before")]
FUSED += [("flax_nnx", "lstm"), ("flax_nnx", "gru")]


@functools.cache  # which no test writes into
def draw(name, kind, seed=0):
    cell = with_preset(FACTORIES[kind](INPUT, HIDDEN), name)
    params = jax.tree.map(np.asarray, cell.init(jax.random.key(seed)))
    return {"": params} if kind == "rnn" else params


def column(gates, name):
    return np.stack([p[name] for p in gates.values()])


def flax_draw(module, kind):
    """Flax's parameters as (gates, hidden, columns) W_x and W_h, and all its biases."""
    if isinstance(module, linen.Module):
        x = jnp.zeros(INPUT)
        carry = module.initialize_carry(jax.random.key(0), x.shape)
        flat = module.init(jax.random.key(0), carry, x)["params"]
        pick = lambda side: np.stack([p["kernel"].T for n, p in flat.items() if n[0] == side])  # noqa: E731
        return pick("i"), pick("h"), [p["bias"] for p in flat.values() if "bias" in p]
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[kind]
    cut = lambda dense: np.stack(np.split(np.asarray(dense.kernel[...]).T, gates))  # noqa: E731
    denses = (module.dense_i, module.dense_h)
    biases = [d.bias[...] for d in denses if d.bias is not None]
    return cut(denses[0]), cut(denses[1]), biases


def assert_uniform(values, bound):
    assert 0.99 * bound < abs(values).max() <= bound
    assert abs(values.mean()) < 5 * bound / math.sqrt(3 * values.size)
    assert abs((values**2).mean() / bound**2 - 1 / 3) < 5 * math.sqrt(4 / 45 / values.size)


def assert_truncated(values, std):
    """A normal law cut at two deviations, of the deviation given after the cut."""
    assert abs(values.mean()) < 5 * std / math.sqrt(values.size)
    assert abs((values**2).mean() / std**2 - 1) < 5 * math.sqrt(2 / values.size)
    assert 2.15 * std < abs(values).max() <= 2 / 0.87962566 * std * (1 + 1e-6)


@pytest.mark.parametrize("name, kind", KNOWN)
def test_the_input_matrices_have_the_frameworks_law(name, kind):
    W_x = column(draw(name, kind), "W_x")
    if name in ("torch", "equinox"):
        assert_uniform(W_x, HIDDEN**-0.5)
    elif name == "keras":  # Glorot's fan out is that of the fused matrix
        assert_uniform(W_x, math.sqrt(6 / (INPUT + len(W_x) * HIDDEN)))
    elif name == "haiku" and kind != "gru_reset_before":
        fan_in = INPUT + HIDDEN * (kind == "lstm")
        assert_truncated(W_x, 0.87962566 / math.sqrt(fan_in))
    else:
        assert_truncated(W_x, 1 / math.sqrt(INPUT))


@pytest.mark.parametrize("name, kind", KNOWN)
def test_the_recurrent_matrices_have_the_frameworks_law(name, kind):
    W_h = column(draw(name, kind), "W_h")
    if name in ("torch", "equinox"):
        assert_uniform(W_h, HIDDEN**-0.5)
    elif name == "haiku":
        fan_in = HIDDEN + INPUT * (kind == "lstm")
        cut = 1 if kind == "gru_reset_before" else 0.87962566
        assert_truncated(W_h, cut / math.sqrt(fan_in))
    elif (name, kind) in FUSED:
        whole = W_h.reshape(-1, HIDDEN)
        np.testing.assert_allclose(whole.T @ whole, np.eye(HIDDEN), atol=1e-12)
        for block in W_h:
            assert abs(block.T @ block - np.eye(HIDDEN)).max() > 0.5
    else:
        for block in W_h:
            np.testing.assert_allclose(block.T @ block, np.eye(HIDDEN), atol=1e-12)


@pytest.mark.parametrize("name, kind", KNOWN)
def test_the_singular_values_of_a_gates_block_reach_their_edge(name, kind):
    # Of a block that is 1/p of an orthogonal matrix's rows, 2√(p-1)/p, and of independent
    # entries of deviation σ, 2σ√n: both in the limit of many units.
    W_h = column(draw(name, kind), "W_h")
    gates = len(W_h)
    haiku = {"lstm": HIDDEN + INPUT, "rnn": HIDDEN}.get(kind, HIDDEN * 0.87962566**2)
    edge = {
        "torch": 2 / math.sqrt(3),
        "equinox": 2 / math.sqrt(3),
        "haiku": 2 * 0.87962566 * math.sqrt(HIDDEN / haiku),
    }.get(name, 2 * math.sqrt(gates - 1) / gates if (name, kind) in FUSED else 1.0)
    singular = np.linalg.svd(W_h, compute_uv=False)
    np.testing.assert_allclose(singular.max(axis=1), edge, rtol=0.05)
    assert (singular.min(axis=1) < 0.03).all() or edge == 1.0


@pytest.mark.parametrize("name, kind", KNOWN)
def test_the_biases_have_the_frameworks_law(name, kind):
    bound = HIDDEN**-0.5
    for gate, p in draw(name, kind).items():
        extra = {n: v for n, v in p.items() if n not in ("W_x", "W_h", "b")}
        assert set(extra) == ({"b_h"} if (kind, gate) == ("gru", "n") else set())
        if name == "torch" and not extra:  # a triangular law: the sum of two uniform ones
            assert bound < abs(p["b"]).max() <= 2 * bound
            assert abs((p["b"] ** 2).mean() / bound**2 - 2 / 3) < 5 * math.sqrt(0.4 / HIDDEN)
        elif name in ("torch", "equinox"):
            for values in (p["b"], *extra.values()):
                assert 0.9 * bound < abs(values).max() <= bound
        else:
            starts_open = gate == "f" and name in ("keras", "haiku")
            np.testing.assert_array_equal(p["b"], float(starts_open))
            for values in extra.values():
                np.testing.assert_array_equal(values, 0)


@pytest.mark.parametrize("name, kind", KNOWN)
def test_no_two_of_what_is_drawn_are_alike(name, kind):
    gates = draw(name, kind)
    drawn = [W.ravel()[:50] for p in gates.values() for W in p.values() if np.ptp(W) > 0]
    assert len(drawn) >= 2 * len(gates)
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert abs(one - other).max() > 1e-3
    again, others = draw.__wrapped__(name, kind), draw(name, kind, seed=1)
    jax.tree.map(np.testing.assert_array_equal, gates, again)
    assert abs(column(gates, "W_h") - column(others, "W_h")).max() > 0.01


LINEN = {"lstm": linen.OptimizedLSTMCell, "gru": linen.GRUCell, "rnn": linen.SimpleCell}
NNX = {"lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell, "rnn": nnx.SimpleCell}


@pytest.mark.parametrize("kind", sorted(LINEN))
@pytest.mark.parametrize("name", ["flax_linen", "flax_nnx"])
def test_flax_itself_draws_by_the_same_law(name, kind):
    module = (
        LINEN[kind](HIDDEN) if name == "flax_linen" else NNX[kind](INPUT, HIDDEN, rngs=nnx.Rngs(0))
    )
    W_x, W_h, biases = flax_draw(module, kind)
    ours = draw(name, kind)
    ours_x, ours_h = column(ours, "W_x"), column(ours, "W_h")
    assert (W_x.shape, W_h.shape) == (ours_x.shape, ours_h.shape)
    np.testing.assert_allclose(np.std(W_x), np.std(ours_x), rtol=5 / math.sqrt(W_x.size))
    np.testing.assert_allclose(abs(W_x).max(), abs(ours_x).max(), rtol=0.01)
    np.testing.assert_allclose(np.std(W_h), np.std(ours_h), rtol=5 / math.sqrt(W_h.size))
    grams = [np.einsum("gij,gik->jk", W, W) for W in (W_h, ours_h)]  # the sum over all gates
    np.testing.assert_allclose(*grams, atol=1e-5)
    values = [np.linalg.svd(W, compute_uv=False) for W in (W_h, ours_h)]
    np.testing.assert_allclose(*values, atol=0.05)
    assert biases
    for b in biases:
        np.testing.assert_array_equal(b, 0)
    for p in ours.values():
        np.testing.assert_array_equal(p["b"], 0)


@pytest.mark.parametrize("kind", ["gru", "lstm", "rnn"])
def test_torch_itself_draws_by_the_same_law(kind):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    drawn = [getattr(torch.nn, kind.upper())(INPUT, HIDDEN).state_dict() for _ in range(10)]
    of = lambda name: np.stack([layer[f"{name}_l0"].numpy() for layer in drawn])  # noqa: E731
    ours = draw("torch", kind)
    for theirs, name in ((of("weight_ih"), "W_x"), (of("weight_hh"), "W_h")):
        assert_uniform(theirs, HIDDEN**-0.5)
        blocks = theirs.reshape(-1, HIDDEN, theirs.shape[-1])
        values = np.linalg.svd(blocks, compute_uv=False)
        low, high = values.min(axis=0), values.max(axis=0)
        spread = high - low  # of few draws: as much again on either side is beyond all chance
        mine = np.linalg.svd(column(ours, name), compute_uv=False)
        assert (low - spread < mine).all() and (mine < high + spread).all()
    theirs = (of("bias_ih") + of("bias_hh")).reshape(10, -1, HIDDEN)
    shared = [g for g, p in enumerate(ours.values()) if "b_h" not in p]
    added = np.stack([p["b"] for p in ours.values() if "b_h" not in p])
    np.testing.assert_allclose(np.std(added), np.std(theirs[:, shared]), rtol=0.25)


def test_nnx_lstm_cell_draws_each_gate_as_linen_does():
    module = nnx.LSTMCell(INPUT, HIDDEN, rngs=nnx.Rngs(0))
    for name in ("hi", "hf", "hg", "ho"):
        W = np.asarray(getattr(module, name).kernel[...])
        np.testing.assert_allclose(W @ W.T, np.eye(HIDDEN), atol=1e-5)


@pytest.mark.parametrize("name, kind", KNOWN)
def test_a_preset_keeps_the_contract_and_the_function(name, kind):
    check = lambda d, n: with_preset(FACTORIES[kind](d, n), name)  # noqa: E731
    if (name, kind) == ("keras", "lstm"):
        check_cell(check)  # of the others as well, as step and shapes are the cell's own
    cell = FACTORIES[kind](3, 4)
    ours = with_preset(cell, name)
    assert (ours.step, ours.hidden, ours.gates) == (cell.step, cell.hidden, cell.gates)
    shapes = lambda cell: jax.tree.map(jnp.shape, jax.eval_shape(cell.init, jax.random.key(0)))  # noqa: E731
    assert shapes(ours) == shapes(cell)
    assert shapes(check(0, 4)) == shapes(FACTORIES[kind](0, 4))


def test_a_cell_of_the_same_parameters_has_the_preset_too(key):
    W_h = with_preset(irnn(3, 4), "torch").init(key)["W_h"]
    assert 0 < abs(W_h - np.eye(4)).min() and abs(W_h).max() <= 0.5


@pytest.mark.parametrize(
    "cell, name, message",
    [
        (lstm(3, 4), "pytorch", r"Unknown preset 'pytorch'. Did you mean 'torch'\?"),
        (rnn(3, 4), "equinox", "Expected one of gru, lstm for the preset 'equinox', got rnn. Use"),
        (
            gru(3, 4),
            "haiku",
            "Expected one of gru_reset_before, lstm, rnn for the preset 'haiku', got gru.",
        ),
        (
            gru_reset_before(3, 4),
            "torch",
            "one of gru, lstm, rnn for the preset 'torch', got gru_reset_before",
        ),
        (
            lstm(3, 4, peephole=True),
            "torch",
            r"got a cell with parameters \{.*'p': \(4,\)",
        ),
        (
            rnn(3, 4)._replace(init=lambda key: {"u": jnp.zeros(4)}),
            "keras",
            r"got a cell with parameters \{'u': \(4,\)\}",
        ),
    ],
)
def test_what_a_framework_does_not_have_is_refused(cell, name, message):
    with pytest.raises(ValueError, match=message):
        with_preset(cell, name)
