"""PyTorch modules and files: imported layers compute what PyTorch computes, and its gradient."""

import argparse
import copy
import io
import os
import pickle
import warnings
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import gradflow
from gradflow import flow
from gradflow.interop import archives, formats, gates
from gradflow.interop.net import feed, to_lowest
from gradflow.interop.torch import pickles
from gradflow.report.samples import captured_batches

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402  (only where PyTorch is installed)

INPUT, HIDDEN, STEPS = 3, 4, 7
KINDS = {
    "rnn_tanh": (nn.RNN, {}),
    "rnn_relu": (nn.RNN, {"nonlinearity": "relu"}),
    "gru": (nn.GRU, {}),
    "lstm": (nn.LSTM, {}),
    "lstm_projected": (nn.LSTM, {"proj_size": 2}),
}


def made(kind="lstm", seed=0, **options):
    torch.manual_seed(seed)
    make, own = KINDS[kind]
    return make(INPUT, HIDDEN, dtype=torch.float64, **own, **options)


def array(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def assert_same_net(found, expected):
    assert found.framework == expected.framework == "PyTorch"
    assert sorted(one.name for one in found.layers) == sorted(one.name for one in expected.layers)
    for one in found.layers:
        other = expected[one.name]
        same = ("spec", "input_size", "hidden_size", "convention", "direction", "fed_by")
        for name in same:
            assert getattr(one, name) == getattr(other, name)
        jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


PAIRWISE = [(1, False, True), (1, True, False), (2, False, False), (2, True, True)]
"""Layers, both directions, biases: every two of them in every combination."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("layers", "bidirectional", "bias"), PAIRWISE)
def test_outputs_are_those_of_the_module(kind, layers, bidirectional, bias):
    module = made(kind, num_layers=layers, bidirectional=bidirectional, bias=bias)
    net = gradflow.load(module)
    ends = ["", "_reverse"][: 1 + bidirectional]
    assert [one.name for one in net.layers] == [f"l{k}{e}" for k in range(layers) for e in ends]
    assert all(one.error is not None and one.error < 1e-12 for one in net.layers)
    assert all(one.fed_by == () for one in net.layers[: 1 + bidirectional])
    inputs = array(2, STEPS, INPUT, seed=1)
    given = feed(net, to_lowest(net, inputs))
    top = net.layers[-1 - bidirectional :]
    found = np.concatenate([one.run(given[one.name]) for one in top], -1)
    with torch.no_grad():
        expected = module(torch.from_numpy(inputs).swapaxes(0, 1))[0].swapaxes(0, 1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)


def stepped(module, x, h, c):
    """h_t and c_t (None but for an LSTM) after one step of a module of one layer."""
    state = (h[None, None], c[None, None]) if isinstance(module, nn.LSTM) else h[None, None]
    _, state = module(x[None, None], state)
    return (state[0][0, 0], state[1][0, 0]) if isinstance(module, nn.LSTM) else (state[0, 0], None)


@pytest.mark.parametrize("kind", KINDS)
def test_step_jacobians_are_those_of_autograd(kind):
    module = made(kind)
    layer = gradflow.load(module, verify=False)["l0"]
    size = len(layer.cell.hidden(layer.cell.initial_carry()))
    x, h, c = array(INPUT), array(size, seed=1), array(HIDDEN, seed=2)
    carry = layer.cell.initial_carry()
    carry = (
        type(carry)(jnp.asarray(h), jnp.asarray(c)) if kind.startswith("lstm") else jnp.asarray(h)
    )
    step, params = layer.cell.step, jax.tree.map(jnp.asarray, layer.params)
    found = jax.jacobian(lambda carry: step(params, carry, jnp.asarray(x))[0])(carry)
    expected = torch.autograd.functional.jacobian(
        lambda h, c: tuple(filter(lambda s: s is not None, stepped(module, torch.tensor(x), h, c))),
        (torch.tensor(h), torch.tensor(c)),
    )
    if not kind.startswith("lstm"):
        expected = [row[:1] for row in expected]
    expected = [block.numpy() for row in expected for block in row]
    for one, other in zip(jax.tree.leaves(found), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("kind", ["rnn_tanh", "gru", "lstm", "lstm_projected"])
def test_norms_of_flow_are_those_of_autograd(kind):
    module = made(kind)
    layer = gradflow.load(module, verify=False)["l0"]
    inputs = array(STEPS, INPUT)
    found = flow.log_norms(layer.cell, layer.params, jnp.asarray(inputs))
    size = len(layer.cell.hidden(layer.cell.initial_carry()))
    h, c = torch.zeros(size, dtype=torch.float64), torch.zeros(HIDDEN, dtype=torch.float64)
    expected = []
    for start in range(STEPS + 1):

        def last(h, c=c, start=start):
            for x in torch.from_numpy(inputs[start:]):
                h, c = stepped(module, x, h, c)
            return h

        J = torch.autograd.functional.jacobian(last, h)
        expected.append(np.log(np.linalg.norm(J.numpy(), 2)))
        if start < STEPS:
            h, c = (
                None if s is None else s.detach()
                for s in stepped(module, torch.from_numpy(inputs[start]), h, c)
            )
    np.testing.assert_allclose(found, expected[::-1], atol=1e-6)


class Tagger(nn.Module):
    """Token ids through an embedding, two layers in both directions, and a cell in a loop."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(5, INPUT)
        self.encoder = nn.LSTM(INPUT, HIDDEN, 2, bidirectional=True, dropout=0.5, batch_first=True)
        self.norm = nn.BatchNorm1d(2 * HIDDEN)
        self.decoder = nn.GRUCell(2 * HIDDEN, HIDDEN)

    def forward(self, tokens, scale: torch.Tensor | None = None):
        y = self.encoder(self.embedding(tokens))[0]
        y = self.norm(y.swapaxes(1, 2)).swapaxes(1, 2)
        y = y if scale is None else y * scale
        state: torch.Tensor | None = None
        for step in y.unbind(1):
            state = self.decoder(step, state)
        return state


NAMES = [f"encoder.l{k}{end}" for k in (0, 1) for end in ("", "_reverse")] + ["decoder"]


def test_a_model_is_walked_and_captured():
    model = Tagger().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    net = gradflow.load(model)
    assert [one.name for one in net.layers] == NAMES
    assert net["encoder.l1_reverse"].fed_by == ("encoder.l0", "encoder.l0_reverse")
    tokens = np.random.default_rng(0).integers(0, 5, (2, STEPS))
    given = net.capture({"x": tokens})
    again = net.capture({"tokens": tokens, "scale": np.array(2.0)})
    assert set(given) == set(NAMES) and model.training and model.norm.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.encoder._forward_pre_hooks
    with torch.no_grad():
        model.eval()
        x = model.embedding(torch.from_numpy(tokens))
        y = model.norm(model.encoder(x)[0].swapaxes(1, 2)).swapaxes(1, 2)
    np.testing.assert_allclose(given["encoder.l0"], x)
    np.testing.assert_allclose(given["decoder"], y, atol=1e-6)
    np.testing.assert_allclose(again["decoder"], 2 * y, atol=1e-6)
    last = net["decoder"].run(given["decoder"])[:, -1]
    np.testing.assert_allclose(last, model(torch.from_numpy(tokens)).detach(), atol=1e-6)
    top = [net[name].run(given[name]) for name in NAMES[2:4]]
    with torch.no_grad():
        expected = model.encoder(x)[0]
    np.testing.assert_allclose(np.concatenate(top, -1), expected, atol=1e-6)


@pytest.mark.parametrize("batch_first", [False, True])
def test_calls_are_joined_along_time_or_along_the_batch(batch_first):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(INPUT, HIDDEN, batch_first=batch_first)

        def forward(self, x, chunked):
            if not batch_first:
                x = x.swapaxes(0, 1)
            if not chunked:
                return self.rnn(input=x)[0] + self.rnn(x, torch.zeros(1, 2, HIDDEN))[0]
            _, h = self.rnn(x)
            return self.rnn(x, h)[0]

    net = gradflow.load(Twice(), verify=False)
    x = array(2, STEPS, INPUT).astype(np.float32)
    along_time = net.capture({"x": x, "chunked": np.array(True)})["rnn.l0"]
    np.testing.assert_array_equal(along_time, np.concatenate([x, x], 1))
    along_batch = net.capture({"x": x, "chunked": np.array(False)})["rnn.l0"]
    np.testing.assert_array_equal(along_batch, np.concatenate([x, x], 0))


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(INPUT, HIDDEN)

    def forward(self, x, lengths):
        return self.rnn(nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True))


def test_packed_sequences_of_one_length_are_captured():
    x = array(2, STEPS, INPUT)
    net = gradflow.load(Packed(), verify=False)
    found = net.capture({"x": x, "lengths": np.array([STEPS, STEPS])})["rnn.l0"]
    np.testing.assert_allclose(found, x, rtol=1e-6)
    with pytest.raises(ValueError, match="Expected sequences of one length.*7, 5"):
        net.capture({"x": x, "lengths": np.array([7, 5])})


def test_a_sample_that_does_not_fit_is_an_error():
    net = gradflow.load(Tagger(), layer="decoder")
    with pytest.raises(ValueError, match="Expected a sample that the model can run.*tokens, scale"):
        net.capture({"tokens": array(2, 3), "scale": array(1)})


def test_calls_of_different_lengths_are_an_error():
    class Uneven(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(INPUT, HIDDEN)

        def forward(self, x):
            return self.rnn(x)[0][0] + self.rnn(x[1:])[0][0]

    net = gradflow.load(Uneven(), verify=False)
    with pytest.raises(ValueError, match="form sequences of one length"):
        net.capture({"x": array(STEPS, 2, INPUT)})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_cell_of_any_type_is_imported(dtype):
    cell = nn.LSTMCell(INPUT, HIDDEN, dtype=dtype)
    layer = gradflow.load(cell)["cell"]
    assert layer.error < 1e-12 and layer.params["f"]["W_h"].dtype == np.float64
    np.testing.assert_array_equal(layer.params["o"]["W_x"], cell.weight_ih[12:].double().detach())


def test_an_rnn_cell_keeps_its_activation():
    for activation in ("tanh", "relu"):
        layer = gradflow.load(nn.RNNCell(INPUT, HIDDEN, nonlinearity=activation))["cell"]
        assert layer.spec == f"rnn(activation='{activation}')"


def test_parametrised_weights_are_imported():
    module = nn.utils.parametrizations.weight_norm(made(), "weight_hh_l0")
    assert gradflow.load(module)["l0"].error < 1e-12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        older = nn.utils.weight_norm(made(), "weight_hh_l0")
    layer = gradflow.load(older)["l0"]
    assert layer.error < 1e-12 and "cannot be copied" in layer.note


def test_wrappers_do_not_change_names():
    names = [one.name for one in gradflow.load(nn.DataParallel(Tagger()), verify=False).layers]
    assert names == NAMES


def test_unsupported_modules_are_named_and_others_are_loaded():
    class Doubled(nn.LSTM):
        def forward(self, x, hx=None):
            y, state = super().forward(x, hx)
            return 2 * y, state

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(
            nn.Sequential(nn.LSTM(INPUT, HIDDEN)), {nn.LSTM}
        )
        scripted = torch.jit.script(nn.GRU(INPUT, HIDDEN))
    model = nn.ModuleDict(
        {
            "q": quantised,
            "s": scripted,
            "one": Doubled(INPUT, HIDDEN),
            "two": Doubled(INPUT, HIDDEN, 2),
            "good": made("gru"),
        }
    )
    net = gradflow.load(model)
    assert [one.name for one in net.layers] == ["good.l0"]
    assert set(net.unsupported) == {"q.0", "s", "one", "two"}
    assert "quantised" in net.unsupported["q.0"] and "TorchScript" in net.unsupported["s"]
    assert "differ" in net.unsupported["one"]
    assert "chain of its layers" in net.unsupported["two"]
    with pytest.raises(ValueError, match="can be imported, got q.0: Expected floating-point"):
        gradflow.load(model, layer="q")
    with pytest.raises(ValueError, match="there is none. 0: Expected floating-point weights"):
        gradflow.load(quantised)


def test_a_module_without_recurrence_is_an_error():
    with pytest.raises(ValueError, match="Expected a module with RNN.*got modules of Linear"):
        gradflow.load(nn.Linear(2, 3))


def test_weights_that_are_not_finite_are_imported_and_named():
    module = made()
    with torch.no_grad():
        module.weight_hh_l0[HIDDEN + 1, 2] = torch.nan
        module.bias_ih_l0[0] = torch.inf
    layer = gradflow.load(module)["l0"]
    assert "f.W_h has 1 numbers that are not finite, the first nan at (1, 2)" in layer.note
    assert "i.b has 1 numbers that are not finite, the first inf at (0,)" in layer.note
    assert layer.error == 0.0 or layer.error < 1e-12


def test_swapped_gates_do_not_pass(monkeypatch):
    monkeypatch.setitem(gates.ORDERS["torch"], "lstm", "igfo")
    with pytest.raises(ValueError, match="follows another convention"):
        gradflow.load(made())


# Files


def saved(path, thing, **options):
    torch.save(thing, path, **options)
    return path


def test_every_kind_of_file_gives_the_same_net(tmp_path):
    model = Tagger()
    expected = gradflow.load(model)
    state = model.state_dict()
    nested = {
        "epoch": 3,
        "nets": [{"model_state_dict": state}],
        "optimizer": {0: state["norm.bias"]},
    }
    parallel = {f"module._orig_mod.{name}": value for name, value in state.items()}
    arrays = {name: value.numpy() for name, value in state.items()}
    save_file(arrays, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", **arrays)
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    paths = [
        saved(tmp_path / "state.pt", state),
        saved(tmp_path / "nested.pth", nested),
        saved(tmp_path / "parallel.pt", {"state_dict": parallel}),
        saved(tmp_path / "legacy.bin", nested, _use_new_zipfile_serialization=False),
        tmp_path / "a.safetensors",
        tmp_path / "a.npz",
        tmp_path / "b.npz",
    ]
    for path in paths:
        net = gradflow.load(path)
        assert_same_net(net, expected)
        # Files of safetensors have their names sorted.
        names = [one.name for one in net.layers]
        assert names == (NAMES if path.suffix != ".safetensors" else NAMES[-1:] + NAMES[:-1])
        assert net.path == str(path) and all(one.error < 1e-12 for one in net.layers)
    assert_same_net(gradflow.load(state), expected)
    assert_same_net(gradflow.load(arrays), expected)
    assert_same_net(gradflow.load(scripted(tmp_path / "t.pt", model)), expected)


def scripted(path, model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(model), path)
    return path


def loaded_script(path, model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(scripted(path, model))


def test_a_script_in_memory_is_captured_as_its_module_is(tmp_path):
    model = Tagger()
    script = loaded_script(tmp_path / "t.pt", model).train()
    net = gradflow.load(script)
    assert_same_net(net, gradflow.load(model))
    tokens = np.random.default_rng(0).integers(0, 5, (2, STEPS))
    for sample in ({"x": tokens}, {"tokens": tokens, "scale": np.array(2.0)}):
        expected, found = gradflow.load(model).capture(sample), net.capture(sample)
        assert set(found) == set(NAMES) and script.training and script.norm.training
        for name in NAMES:
            np.testing.assert_array_equal(found[name], expected[name])
    with pytest.raises(ValueError, match="Expected a sample that the model can run.*tokens, scale"):
        net.capture({"tokens": array(2, 3), "scale": array(1)})


class Outputs(nn.Module):
    """The outputs of a recurrent module, for those alone cannot be called as a script."""

    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn

    def forward(self, x):
        return self.rnn(x)[0]


@pytest.mark.parametrize("kind", ["rnn_tanh", "rnn_relu", "gru", "lstm"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_every_kind_of_script_is_captured(kind, batch_first, tmp_path):
    module = Outputs(made(kind, batch_first=batch_first))
    net = gradflow.load(loaded_script(tmp_path / "t.pt", module))
    inputs = array(2, STEPS, INPUT)
    found = net.capture({"x": inputs if batch_first else inputs.swapaxes(0, 1)})
    np.testing.assert_array_equal(found["rnn.l0"], inputs)


def test_operators_are_as_before_after_a_capture(tmp_path):
    script = loaded_script(tmp_path / "t.pt", Outputs(made()))
    inputs = torch.from_numpy(array(STEPS, 2, INPUT))
    before = script(inputs).detach()
    with pytest.raises(ValueError, match="Expected a sample that the model can run"):
        gradflow.load(script).capture({"x": array(2, 2)[..., 0]})
    assert torch.equal(script(inputs), before)
    script(inputs).sum().backward()
    assert script.rnn.weight_hh_l0.grad.abs().max() > 0
    with pytest.raises(ValueError, match="that can be called, got LSTM, whose forward has several"):
        gradflow.load(loaded_script(tmp_path / "l.pt", made())).capture({"x": inputs.numpy()})


def test_a_traced_cell_has_no_operator_to_observe():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.cell = nn.GRU(INPUT, HIDDEN), nn.GRUCell(HIDDEN, HIDDEN)

        def forward(self, x):
            return self.cell(self.rnn(x)[0][-1])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(Loop(), torch.zeros(STEPS, 2, INPUT))
    found = gradflow.load(traced).capture({"x": array(STEPS, 2, INPUT).astype(np.float32)})
    assert set(found) == {"rnn.l0"}


def test_a_script_in_a_file_is_not_run_and_says_how_to(tmp_path):
    net = gradflow.load(scripted(tmp_path / "t.pt", made()))
    assert net.capture is None
    with pytest.raises(ValueError, match="a TorchScript file is a program, which is not run; if"):
        captured_batches(net, {"x": array(2, STEPS, INPUT)}, None)


def test_two_networks_in_one_checkpoint_have_the_paths_of_their_dictionaries(tmp_path):
    both = {"encoder": made("gru").state_dict(), "decoder": made("lstm").state_dict()}
    net = gradflow.load(saved(tmp_path / "both.pt", both))
    assert [one.name for one in net.layers] == ["encoder.l0", "decoder.l0"]


def test_torchscript_has_the_activation_in_its_code(tmp_path):
    path = scripted(tmp_path / "r.pt", made("rnn_relu"))
    assert gradflow.load(path)["l0"].spec == "rnn(activation='relu')"
    cell = scripted(tmp_path / "c.pt", nn.RNNCell(INPUT, HIDDEN, nonlinearity="tanh"))
    assert gradflow.load(cell)["cell"].spec == "rnn(activation='tanh')"
    both = nn.ModuleList([made("rnn_relu"), made("rnn_tanh"), made("gru")])

    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = both

        def forward(self, x):
            return self.parts[0](x)[0] + self.parts[1](x)[0] + self.parts[2](x)[0]

    net = gradflow.load(scripted(tmp_path / "b.pt", Holder()))
    assert [one.name for one in net.layers] == ["parts.2.l0"]
    assert "--activation=tanh" in net.unsupported["parts.0.l0"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_torchscript_of_any_type_is_read(tmp_path, dtype):
    module = nn.GRU(INPUT, HIDDEN, dtype=dtype)
    net = gradflow.load(scripted(tmp_path / "r.pt", module))
    assert_same_net(net, gradflow.load(module, verify=False))


class Evil:
    """An object whose unpickling makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_not_executed(tmp_path, zipped):
    trace = tmp_path / "executed"
    state = {**made().state_dict(), "extra": Evil(str(trace))}
    path = saved(tmp_path / "evil.pt", state, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="also wants to execute [a-z]+.mkdir.*state_dict"):
        gradflow.load(path)
    for name in ("plain.pt", "plain.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(Evil(str(trace))))
        with pytest.raises(ValueError, match="older format|can execute code"):
            gradflow.load(tmp_path / name)
    assert not trace.exists()
    pickle.loads((tmp_path / "plain.pkl").read_bytes())
    assert trace.exists()  # it was dangerous


def test_whole_modules_and_other_objects_are_refused(tmp_path):
    with pytest.raises(ValueError, match="wants to execute torch.nn.modules.rnn.LSTM"):
        gradflow.load(saved(tmp_path / "m.pt", made()))
    checkpoint = {"args": argparse.Namespace(lr=1), "model": made().state_dict()}
    with pytest.raises(ValueError, match="wants to execute argparse.Namespace"):
        gradflow.load(saved(tmp_path / "c.pt", checkpoint))


def repacked(path, target, replace):
    """Copies an archive with other contents of some members, and their right checksums."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, replace(name, old.read(name)))
    return target


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    def longer(name, content):
        if not name.endswith("data.pkl"):
            return content
        return content.replace(b"K\x10K\x03\x86", b"J\x00\x00\x00\x7fK\x03\x86")

    state = saved(tmp_path / "s.pt", made().state_dict())
    with pytest.raises(ValueError, match="cannot be read"):
        gradflow.load(repacked(state, tmp_path / "bad.pt", longer))
    script = scripted(tmp_path / "t.pt", made())
    swap = lambda name, data: data[:40] if name.endswith("/data/0") else data  # noqa: E731
    with pytest.raises(ValueError, match="lies in 40 bytes"):
        gradflow.load(repacked(script, tmp_path / "short.pt", swap))


def test_a_text_in_a_shape_is_not_repeated_in_memory():
    tensor = pickles.Tensor("0", np.float32, 0, (10**12, "text"), (1, 1))  # pyright: ignore
    with pytest.raises(ValueError, match="lies in 8 bytes"):
        tensor.view(bytes(8))


def test_parts_of_a_checkpoint_that_repeat_are_visited_once(tmp_path):
    deep = {"state": made().state_dict()}
    for _ in range(60):
        deep = {"a": deep, "b": deep, "c": [deep]}
    deep["itself"] = deep
    assert gradflow.load(saved(tmp_path / "deep.pt", deep))["l0"].spec == "lstm"


def test_views_of_the_same_storage_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST_RATIO", 3)
    monkeypatch.setattr(archives, "FREE_SIZE", 0)
    shared = nn.LSTM(INPUT, 40)
    module = nn.ModuleList([shared, *(copy.deepcopy(shared) for _ in range(9))])
    for one in module[1:]:
        for name, value in shared.named_parameters():
            setattr(one, name, value)
    state = saved(tmp_path / "s.pt", module.state_dict())
    for path in (state, scripted(tmp_path / "t.pt", module)):
        with pytest.raises(ValueError, match="repeat the same bytes too often"):
            gradflow.load(path, verify=False)


def test_a_pickle_that_allots_memory_is_refused(tmp_path):
    huge = b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R."
    state = saved(tmp_path / "s.pt", made().state_dict())
    swap = lambda name, data: huge if name.endswith("data.pkl") else data  # noqa: E731
    older = saved(tmp_path / "o.pt", {}, _use_new_zipfile_serialization=False)
    content = older.read_bytes()
    older.write_bytes(content[: content.rindex(b"\x80\x02}")] + huge)
    for path in (repacked(state, tmp_path / "h.pt", swap), older):
        with pytest.raises(ValueError, match="wants to execute builtins.bytearray"):
            gradflow.load(path)


def test_code_in_torchscript_is_not_executed(tmp_path):
    def poisoned(name, content):
        return b"this is no code" if name.endswith(".py") else content

    path = repacked(scripted(tmp_path / "t.pt", made()), tmp_path / "p.pt", poisoned)
    assert gradflow.load(path)["l0"].error < 1e-12


def test_a_pickle_of_torchscript_with_calls_is_data(tmp_path):
    trace = tmp_path / "executed"
    evil = pickle.dumps({"a": Evil(str(trace))}, protocol=2)
    swap = lambda name, data: evil if name.endswith("data.pkl") else data  # noqa: E731
    path = repacked(scripted(tmp_path / "t.pt", made()), tmp_path / "e.pt", swap)
    with pytest.raises(ValueError, match="Expected arrays with the names of PyTorch"):
        gradflow.load(path)
    assert not trace.exists()


def test_damaged_files_are_errors(tmp_path):
    state = saved(tmp_path / "s.pt", made().state_dict()).read_bytes()
    buffer = io.BytesIO()
    torch.save(made().state_dict(), buffer, _use_new_zipfile_serialization=False)
    broken = bytearray(state)
    broken[len(state) // 2] ^= 255
    contents = [state[: len(state) // 2], bytes(broken), buffer.getvalue()[:-50], b"\x80\x02", b"x"]
    for content in contents:
        (tmp_path / "bad.pt").write_bytes(content)
        with pytest.raises(ValueError, match="damaged|cannot be read|undamaged"):
            gradflow.load(tmp_path / "bad.pt")


def test_a_file_of_pytorch_without_pytorch_is_an_error(tmp_path, monkeypatch):
    path = saved(tmp_path / "s.pt", made().state_dict())
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(
        ModuleNotFoundError, match="package torch to read this model .PyTorch.*rnn.torch"
    ):
        gradflow.load(path)
    assert formats.FORMATS["torch"].extra == "torch"
