"""Recurrent cells of Flax Linen and NNX against Flax itself, and damaged files of them."""

import json
import shutil

import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import linen, nnx, serialization
from flax.training.train_state import TrainState
from foreign import check_log_norms, check_outputs, check_step, random_inputs

import gradflow
from gradflow.cells import lstm
from gradflow.interop import as_nnx
from gradflow.interop.flax import files as flax_files

EXACT = 1e-12

LINEN = {
    "lstm": linen.LSTMCell,
    "optimized": linen.OptimizedLSTMCell,
    "gru": linen.GRUCell,
    "rnn": linen.SimpleCell,
}
NNX = {
    "lstm": nnx.LSTMCell,
    "optimized": nnx.OptimizedLSTMCell,
    "gru": nnx.GRUCell,
    "rnn": nnx.SimpleCell,
}
SPECS = {"lstm": "lstm", "optimized": "lstm", "gru": "gru", "rnn": "rnn"}


def randomised(tree):
    """Parameters as after training: no bias is zero."""
    leaves, structure = jax.tree.flatten(tree)
    random = np.random.default_rng(2)
    return jax.tree.unflatten(structure, [random.normal(size=leaf.shape) / 2 for leaf in leaves])


class Stacked(linen.Module):
    """Two layers, both in both directions."""

    kind: str

    def setup(self):
        make = lambda: linen.RNN(LINEN[self.kind](4, param_dtype=float))  # noqa: E731
        self.first = linen.Bidirectional(make(), make())
        self.second = linen.Bidirectional(make(), make())

    def __call__(self, x):
        return self.second(self.first(x))


def linen_variables(kind):
    model = Stacked(kind)
    variables = model.init(jax.random.key(0), jnp.ones((2, 5, 3)))
    return model, randomised(variables)


def swapped(step):
    """Flax's (c, h) as (h, c)."""

    def of_carry(carry, x):
        given = carry[::-1] if isinstance(carry, tuple) else carry
        new, h = step(given, x)
        return (tuple(new[::-1]) if isinstance(carry, tuple) else new), h

    return of_carry


@pytest.mark.parametrize("kind", LINEN)
def test_linen_in_both_directions_equals_flax(kind):
    model, variables = linen_variables(kind)
    net = gradflow.load(variables)
    names = [f"{n}.{d}_rnn.cell" for n in ("first", "second") for d in ("forward", "backward")]
    assert [layer.name for layer in net.layers] == names
    assert [layer.direction for layer in net.layers] == ["forward", "reverse"] * 2
    assert {layer.spec for layer in net.layers} == {SPECS[kind]}
    assert all(layer.error is not None and layer.error < EXACT for layer in net.layers)
    x = random_inputs(3).astype(float)
    first = np.concatenate([net[name].run(x) for name in names[:2]], -1)
    outputs = np.concatenate([net[name].run(first) for name in names[2:]], -1)
    np.testing.assert_allclose(outputs, model.apply(variables, x), rtol=0, atol=EXACT)
    for name in names[1:3]:
        layer, direction, _ = name.split(".")
        params = variables["params"][layer][direction]["cell"]
        cell = LINEN[kind](4, param_dtype=float)
        step = swapped(lambda s, x, c=cell, p=params: c.apply({"params": p}, s, x))
        check_step(net[name], step, EXACT)
    check_log_norms(net[name], step, 1e-9)


class Nnx(nnx.Module):
    """Two layers of which the first has both directions and the second reads in reverse."""

    def __init__(self, kind, **options):
        make = lambda size: NNX[kind](  # noqa: E731
            size, 4, rngs=nnx.Rngs(1), dtype=float, param_dtype=float, **options
        )
        rngs = nnx.Rngs(2)
        self.first = nnx.Bidirectional(
            nnx.RNN(make(3), rngs=rngs), nnx.RNN(make(3), rngs=rngs), rngs=rngs
        )
        self.second = nnx.RNN(make(8), reverse=True, keep_order=True, rngs=rngs)
        state = nnx.state(self, nnx.Param)
        nnx.replace_by_pure_dict(state, randomised(nnx.to_pure_dict(state)))
        nnx.update(self, state)

    def __call__(self, x):
        return self.second(self.first(x))


@pytest.mark.parametrize("kind", NNX)
def test_nnx_modules_equal_flax(kind):
    model = Nnx(kind)
    net = gradflow.load(model)
    names = ["first.forward_rnn.cell", "first.backward_rnn.cell", "second.cell"]
    assert [layer.name for layer in net.layers] == names
    assert [layer.direction for layer in net.layers] == ["forward", "reverse", "reverse"]
    assert {layer.spec for layer in net.layers} == {SPECS[kind]}
    x = random_inputs(3).astype(float)
    first = np.concatenate([net[name].run(x) for name in names[:2]], -1)
    np.testing.assert_allclose(net[names[2]].run(first), model(x), rtol=0, atol=EXACT)
    check_step(net[names[2]], swapped(model.second.cell), EXACT)
    check_log_norms(net[names[2]], swapped(model.second.cell), 1e-9)
    tree = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    for same in (gradflow.load(tree), gradflow.load(nnx.state(model, nnx.Param))):
        for layer in net.layers:
            jax.tree.map(np.testing.assert_array_equal, layer.params, same[layer.name].params)
            assert same[layer.name].error < EXACT


def test_nnx_activations_and_residual_are_those_of_the_module():
    model = Nnx("rnn", activation_fn=jax.nn.relu, residual=True)
    net = gradflow.load(model)
    assert net["second.cell"].spec == "rnn(activation='relu', residual=True)"
    check_step(net["second.cell"], swapped(model.second.cell), EXACT)
    model = Nnx("optimized", activation_fn=nnx.softplus, gate_fn=nnx.hard_sigmoid)
    net = gradflow.load(model)
    spec = "lstm(activation='softplus', gate_activation='hard_sigmoid')"
    assert net["second.cell"].spec == spec
    check_step(net["second.cell"], swapped(model.second.cell), EXACT)
    unknown = gradflow.load(Nnx("rnn", activation_fn=lambda x: x / 2))
    assert set(unknown.unsupported) == {l.name for l in net.layers}  # noqa: E741
    assert "not one of jax.nn" in unknown.unsupported["second.cell"]


def test_the_activation_of_a_simple_cell_can_be_named():
    _, variables = linen_variables("rnn")
    name = "first.forward_rnn.cell"
    assert "assumes tanh" in gradflow.load(variables)[name].note
    layer = gradflow.load(variables, activation="relu")[name]
    assert layer.spec == "rnn(activation='relu')" and not layer.note
    cell = linen.RNN(linen.SimpleCell(4, activation_fn=jax.nn.relu, param_dtype=float))
    params = variables["params"]["first"]["forward_rnn"]
    check_outputs(layer, lambda x: cell.apply({"params": params}, x.astype(float)), EXACT)


def test_every_file_gives_the_same_as_memory(tmp_path):
    model, variables = linen_variables("gru")
    state = TrainState.create(apply_fn=model.apply, params=variables["params"], tx=optax.adam(1e-3))
    (tmp_path / "net.msgpack").write_bytes(serialization.to_bytes(variables))
    (tmp_path / "state.msgpack").write_bytes(serialization.to_bytes(state))
    nnx_model = Nnx("lstm")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "linen", variables)
        checkpointer.save(tmp_path / "nnx", nnx.state(nnx_model))
    with ocp.CheckpointManager(tmp_path / "steps") as manager:
        manager.save(3, args=ocp.args.StandardSave(variables))
    expected = gradflow.load(variables)
    places = ("net.msgpack", "state.msgpack", "linen", "steps/3")
    for net in [gradflow.load(tmp_path / place) for place in places] + [gradflow.load(state)]:
        # The moments of Adam have the names of parameters, and are none.
        assert {layer.name for layer in net.layers} == {layer.name for layer in expected.layers}
        for layer in expected.layers:
            jax.tree.map(np.testing.assert_array_equal, layer.params, net[layer.name].params)
    net = gradflow.load(tmp_path / "nnx")
    for layer in gradflow.load(nnx_model).layers:
        jax.tree.map(np.testing.assert_array_equal, layer.params, net[layer.name].params)


def test_cells_without_an_equal_are_named_and_others_load():
    class Both(linen.Module):
        def setup(self):
            self.mgu = linen.RNN(linen.MGUCell(4, param_dtype=float))
            self.gru = linen.RNN(linen.GRUCell(4, param_dtype=float))

        def __call__(self, x):
            return self.gru(self.mgu(x))

    net = gradflow.load(Both().init(jax.random.key(0), jnp.ones((1, 2, 3))))
    assert [layer.name for layer in net.layers] == ["gru.cell"]
    assert "MGUCell" in net.unsupported["mgu.cell"]
    conv = linen.ConvLSTMCell(2, kernel_size=(3, 3))
    start = conv.initialize_carry(jax.random.key(0), (1, 4, 4, 1))
    variables = conv.init(jax.random.key(0), start, jnp.ones((1, 4, 4, 1)))
    assert "images" in gradflow.load(variables).unsupported["cell"]
    own = nnx.RNN(as_nnx(lstm(3, 4), rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
    assert "from_nnx" in gradflow.load(own).unsupported["cell"]


def test_wrong_objects_are_refused():
    with pytest.raises(ValueError, match="Pass what module.init returned"):
        gradflow.load(linen.GRUCell(4))
    with pytest.raises(ValueError, match="with a recurrent cell, got kernel"):
        gradflow.load({"kernel": np.ones((2, 2))})
    with pytest.raises(ValueError, match="no convention but flax or haiku"):
        gradflow.load({"kernel": np.ones((2, 2))}, convention="keras")
    with pytest.raises(ValueError, match="got none in Linear"):
        gradflow.load(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda p: p["hn"].pop("kernel"), "Expected an array at 'hn/kernel'"),
        (lambda p: p.update(ir={"kernel": np.ones((9, 9))}), "shapes belong together"),
        (lambda p: p.update(ir={"kernel": "text"}), "Expected an array of real numbers"),
    ],
)
def test_damaged_parameters_are_refused(change, message):
    variables = linen.GRUCell(4).init(jax.random.key(0), jnp.zeros(4), jnp.ones(3))
    params = {name: dict(leaf) for name, leaf in variables["params"].items()}
    change(params)
    with pytest.raises(ValueError, match=message):
        gradflow.load({"params": params})


def test_nan_is_imported_and_named():
    params = linen.GRUCell(4).init(jax.random.key(0), jnp.zeros(4), jnp.ones(3))["params"]
    params = {**params, "hz": {"kernel": np.full((4, 4), np.nan)}}
    layer = gradflow.load(params)["cell"]
    assert "z.W_h" in layer.note and layer.error is not None


@pytest.fixture(scope="module")
def variables():
    rnn = linen.RNN(linen.GRUCell(3, param_dtype=float))
    return rnn.init(jax.random.key(0), jnp.ones((1, 2, 2)))


def load(path):
    return gradflow.load(path, verify=False)


def test_damaged_msgpack_is_refused(tmp_path, variables):
    path = tmp_path / "net.msgpack"
    whole = serialization.to_bytes(variables)
    deep = b"\x81\xa1a" * 900 + b"\xc0"
    for content in (whole[: len(whole) // 2], b"\xc1" * 50, deep * 3):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="it is damaged|nested too deeply"):
            load(path)
    path.write_bytes(msgpack.packb([1, 2]))
    with pytest.raises(ValueError, match="nested dictionaries of parameters in .*got list"):
        load(path)
    shape = msgpack.packb([[2**40], "float32", b"1234"])
    path.write_bytes(msgpack.packb({"params": msgpack.ExtType(1, shape)}))
    with pytest.raises(ValueError, match="it is damaged"):
        load(path)


def test_no_flipped_byte_of_msgpack_raises_anything_else(tmp_path, variables):
    path = tmp_path / "net.msgpack"
    whole = serialization.to_bytes(variables)
    random = np.random.default_rng(1)
    refused = 0
    for place in random.integers(0, len(whole), 200):
        content = bytearray(whole)
        content[place] ^= int(random.integers(1, 256))
        path.write_bytes(content)
        try:
            load(path)
        except ValueError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 20


def test_an_incomplete_or_absurd_checkpoint_is_refused(tmp_path, variables, monkeypatch):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "net", variables)
    damaged = shutil.copytree(tmp_path / "net", tmp_path / "damaged")
    (damaged / "_METADATA").write_text("{")
    with pytest.raises(ValueError, match="it is damaged"):
        load(damaged)
    monkeypatch.setattr(flax_files, "FACTOR", 0)
    monkeypatch.setattr(flax_files, "_SPARE", 8)
    with pytest.raises(ValueError, match="arrays of the size of the files"):
        load(tmp_path / "net")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match="without the metadata of an Orbax checkpoint"):
        load(tmp_path / "other")
