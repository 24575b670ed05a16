"""Conversion of cells from and to Flax, against Flax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax.flatten_util import ravel_pytree

from gradflow import flow
from gradflow.cells import gru, lstm, rnn
from gradflow.cells.lstm import LSTMCarry
from gradflow.cells.stack import stack
from gradflow.interop import as_linen, as_nnx, from_linen, from_nnx, nnx_params
from gradflow.testing import check_cell
from gradflow.unroll import unroll

D, H = 3, 4
LINEN = {
    "lstm": linen.LSTMCell,
    "optimized": linen.OptimizedLSTMCell,
    "gru": linen.GRUCell,
    "mgu": linen.MGUCell,
    "simple": linen.SimpleCell,
}
NNX = {
    "lstm": nnx.LSTMCell,
    "optimized": nnx.OptimizedLSTMCell,
    "gru": nnx.GRUCell,
    "simple": nnx.SimpleCell,
}
OURS = {
    "lstm": lstm(D, H),
    "gru": gru(D, H),
    "rnn": rnn(D, H),
    "stack": stack([lstm(D, H), gru(H, H)]),
}


def make_nnx(name, input_size=D, hidden_size=H):
    # SimpleCell is the only one of these that computes in float32 by default.
    options = {"dtype": jnp.float64} if name == "simple" else {}
    return lambda rngs: NNX[name](input_size, hidden_size, rngs=rngs, **options)


def noise(tree, seed=1):
    flat, unravel = ravel_pytree(tree)
    return unravel(flat + 0.5 * jax.random.normal(jax.random.key(seed), flat.shape))


def jacobian(step, carry):
    flat, unravel = ravel_pytree(carry)
    return jax.jacobian(lambda s: ravel_pytree(step(unravel(s))[0])[0])(flat)


def assert_all_close(one, other, rtol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-14), one, other)


# --- Flax's as ours ---


def test_linen_cell_satisfies_the_contract():
    check_cell(lambda d, n: from_linen(linen.LSTMCell(n), d))


def test_nnx_cell_satisfies_the_contract():
    check_cell(lambda d, n: from_nnx(make_nnx("gru", d, n), d))


@pytest.mark.parametrize("name", sorted(LINEN))
def test_converted_linen_cell_equals_linen(name, key):
    module, inputs = LINEN[name](H), jax.random.normal(key, (6, D))
    cell = from_linen(module, D)
    params, s_0 = noise(cell.init(key)), noise(cell.initial_carry(), 2)
    run = unroll(cell, params, inputs, carry=s_0)
    theirs = linen.RNN(module).apply({"params": {"cell": params}}, inputs, initial_carry=s_0)
    assert_all_close(run.outputs, theirs)
    assert_all_close(cell.hidden(jax.tree.map(lambda leaf: leaf[-1], run.carries)), theirs[-1])
    one = jacobian(lambda s: module.apply({"params": params}, s, inputs[0]), s_0)
    np.testing.assert_array_equal(jacobian(lambda s: cell.step(params, s, inputs[0]), s_0), one)


@pytest.mark.parametrize("name", sorted(NNX))
def test_converted_nnx_cell_equals_nnx(name, key):
    inputs, module = jax.random.normal(key, (6, D)), make_nnx(name)(nnx.Rngs(7))
    cell = from_nnx(make_nnx(name), D)
    s_0 = noise(cell.initial_carry(), 2)
    run = unroll(cell, nnx_params(module), inputs, carry=s_0)
    assert_all_close(run.outputs, nnx.RNN(module)(inputs, initial_carry=s_0), rtol=1e-6)
    params = noise(cell.init(key))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, nnx_params(module))


@pytest.mark.parametrize("name", ["lstm", "gru", "simple"])
def test_linen_cell_equals_the_own_cell_with_the_same_weights(name, key):
    cell, own = from_linen(LINEN[name](H), D), {"lstm": lstm, "gru": gru, "simple": rnn}[name](D, H)
    theirs = noise(cell.init(key))
    bias = lambda gate, side: theirs[f"{side}{gate}"].get("bias", jnp.zeros(H))  # noqa: E731
    params = {
        gate: {
            "W_x": theirs[f"i{gate}"]["kernel"].T,
            "W_h": theirs[f"h{gate}"]["kernel"].T,
            "b": bias(gate, "i") + bias(gate, "h") * (name != "gru" or gate != "n"),
        }
        for gate in {"lstm": "ifgo", "gru": "rzn"}.get(name, [""])
    }
    if name == "gru":
        params["n"]["b_h"] = bias("n", "h")
    inputs = jax.random.normal(key, (6, D))
    norms = flow.log_norms(cell, theirs, inputs)
    assert_all_close(norms, flow.log_norms(own, params.get("", params), inputs), rtol=1e-9)
    assert_all_close(
        unroll(cell, theirs, inputs).outputs, unroll(own, params.get("", params), inputs).outputs
    )


def test_the_gru_of_nnx_has_no_hidden_bias():
    """A known defect of Flax that `from_nnx` documents; if it is fixed, change the document."""
    assert nnx.GRUCell(D, H, rngs=nnx.Rngs(0)).dense_h.bias is None
    assert "bias" in from_linen(linen.GRUCell(H), D).init(jax.random.key(0))["hn"]


def test_the_carry_of_flax_keeps_its_order():
    cell = from_linen(linen.LSTMCell(H), D)
    c, h = jnp.arange(4.0), jnp.arange(4.0, 8.0)
    np.testing.assert_array_equal(cell.hidden((c, h)), h)


def test_object_that_is_not_a_flax_cell_raises():
    with pytest.raises(TypeError, match="Expected a Linen cell, got Dense. Pass an unbound module"):
        from_linen(linen.Dense(4), 3)
    with pytest.raises(TypeError, match="makes an NNX cell, got Linear from it. Pass"):
        from_nnx(lambda rngs: nnx.Linear(3, 4, rngs=rngs), 3)


def test_flax_cell_with_another_compute_type_raises():
    with pytest.raises(ValueError, match="computes in float64, .* got float32. Make it with dtype"):
        from_nnx(lambda rngs: nnx.SimpleCell(3, 4, rngs=rngs), 3)


class Doubled(linen.SimpleCell):
    def __call__(self, carry, inputs):
        carry, h = super().__call__(carry, inputs)
        return carry, 2 * h


def test_output_outside_of_the_carry_raises():
    with pytest.raises(ValueError, match=r"output is a vector in its carry, .* shape \(4,\) and a"):
        from_linen(Doubled(4), 3)


# --- ours as Flax's ---


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("name", sorted(OURS))
def test_own_cell_runs_inside_the_rnn_of_linen(name, batch, key):
    cell = OURS[name]
    inputs = jax.random.normal(key, (*batch, 6, D))
    layer = linen.RNN(as_linen(cell))
    variables = layer.init(key, inputs)
    params = variables["params"]["cell"]["cell"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, cell.init(key))
    outputs = layer.apply(variables, inputs)
    time_major = jnp.moveaxis(inputs, -2, 0)
    assert_all_close(jnp.moveaxis(outputs, -2, 0), unroll(cell, params, time_major).outputs)
    if not batch:
        loss = lambda run: lambda p: (run(p) ** 2).sum()  # noqa: E731
        ours = jax.grad(loss(lambda p: unroll(cell, p, inputs).outputs))(params)
        apply = lambda p: layer.apply({"params": {"cell": {"cell": p}}}, inputs)  # noqa: E731
        assert_all_close(jax.grad(loss(apply))(params), ours, rtol=1e-10)


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("name", sorted(OURS))
def test_own_cell_runs_inside_the_rnn_of_nnx(name, batch, key):
    cell = OURS[name]
    inputs = jax.random.normal(key, (*batch, 6, D))
    inside = as_nnx(cell, rngs=nnx.Rngs(5))
    is_variable = lambda leaf: isinstance(leaf, nnx.Variable)  # noqa: E731
    params = jax.tree.map(lambda leaf: leaf[...], inside.params, is_leaf=is_variable)
    time_major = jnp.moveaxis(inputs, -2, 0)
    outputs = nnx.RNN(inside)(inputs)
    assert_all_close(jnp.moveaxis(outputs, -2, 0), unroll(cell, params, time_major).outputs)
    assert len(jax.tree.leaves(nnx.state(inside, nnx.Param))) == len(jax.tree.leaves(params))


def test_conversion_to_flax_and_back_is_the_identity(key):
    there_and_back = from_linen(as_linen(OURS["lstm"]), D)
    params, inputs = noise(OURS["lstm"].init(key)), jax.random.normal(key, (5, D))
    s_0 = LSTMCarry(jnp.ones(H), -jnp.ones(H))
    ours = unroll(OURS["lstm"], params, inputs, carry=s_0)
    assert_all_close(unroll(there_and_back, {"cell": params}, inputs, carry=s_0), ours)
