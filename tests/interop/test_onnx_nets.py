"""Recurrent nodes of ONNX models: values and Jacobians as in onnxruntime and PyTorch."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow
from gradflow import flow
from gradflow.interop.net import feed, to_lowest
from gradflow.spec import parse_spec

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

T, N, D, H = 7, 2, 3, 4
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
rng = np.random.default_rng(0)


def value(name, kind=onnx.TensorProto.FLOAT):
    # X_... and Y_... have the axes of X and Y; those of a loop are stacked along one more.
    rank = {"X": "tni", "R": "dgh"}.get(name[:1], "yyyy" if name != "Y_all" else "ayyyy")
    axes = [f"{name}_{axis}{k}" for k, axis in enumerate(rank)]
    return helper.make_tensor_value_info(name, kind, [] if kind != 1 else axes)


def model_of(nodes, tensors, inputs=("X",), outputs=("Y",), opset=22, functions=()):
    graph = helper.make_graph(
        nodes,
        "graph",
        [one if not isinstance(one, str) else value(one) for one in inputs],
        [value(one) for one in outputs],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    sets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=10, functions=functions)


def weights(kind, directions=1, *, size=D, bias=True, peephole=False):
    rows = GATES[kind] * H
    shapes = {"W": (directions, rows, size), "R": (directions, rows, H)}
    shapes |= {"B": (directions, 2 * rows)} if bias else {}
    shapes |= {"P": (directions, 3 * H)} if peephole else {}
    return {name: rng.normal(size=shape, scale=0.5).astype("f") for name, shape in shapes.items()}


def node_of(kind, tensors, *, name="", states=(), x="X", y="Y", **attributes):
    names = [x, "W", "R", "B" if "B" in tensors else "", "", *states]
    if "P" in tensors:
        names += [""] * (7 - len(names)) + ["P"]
    return helper.make_node(kind, names, [y], name=name, hidden_size=H, **attributes)


def run(model, **feeds):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    feeds = {name: np.asarray(a, "f") for name, a in feeds.items()}
    return session.run(None, feeds)


def assert_same(layer, expected, inputs, atol=1e-6):
    np.testing.assert_allclose(layer.run(inputs), expected, atol=atol)
    assert layer.error is not None and layer.error < atol


def assert_model_matches(model, atol=1e-6):
    """Holds every direction of the only node against the whole model in onnxruntime."""
    x = 2 * rng.normal(size=(T, N, D))
    (expected,) = run(model, X=x)
    net = gradflow.load(model)
    for index, layer in enumerate(net.layers):
        assert_same(layer, expected[:, index].swapaxes(0, 1), x.swapaxes(0, 1), atol)
    return net


FUNCTIONS = {"Relu": "relu", "LeakyRelu": "leaky_relu", "Elu": "elu", "Softsign": "soft_sign"}
FUNCTIONS |= {"Softplus": "softplus", "HardSigmoid": "hard_sigmoid_fifth"}


CASES = [
    ("LSTM", {}, "lstm"),
    ("GRU", {}, "gru_reset_before"),
    ("GRU", {"linear_before_reset": 1}, "gru"),
    ("RNN", {}, "rnn"),
    ("LSTM", {"clip": 0.5}, "lstm(clip=0.5)"),
    ("GRU", {"clip": 0.5}, "gru_reset_before(clip=0.5)"),
    ("GRU", {"clip": 0.5, "linear_before_reset": 1}, "gru(clip=0.5)"),
    ("RNN", {"clip": 0.5}, "rnn(clip=0.5)"),
    ("LSTM", {"input_forget": 1}, "lstm(coupled=True)"),
    (
        "LSTM",
        {"activations": ["HardSigmoid", "Relu", "Tanh"], "input_forget": 1},
        "lstm(activation='relu', gate_activation='hard_sigmoid_fifth', coupled=True, "
        "output_activation='tanh')",
    ),
    (
        "LSTM",
        {
            "activations": ["HardSigmoid", "Softsign", "Softsign"],
            "activation_alpha": [1 / 6],
            "activation_beta": [0.5],
        },
        "lstm(activation='soft_sign', gate_activation='hard_sigmoid')",
    ),
    ("GRU", {"activations": ["Sigmoid", "Relu"]}, "gru_reset_before(activation='relu')"),
    (
        "RNN",
        {"activations": ["Affine"], "activation_alpha": [1.0], "activation_beta": [0.0]},
        "rnn(activation='identity')",
    ),
    *(("RNN", {"activations": [a]}, f"rnn(activation='{b}')") for a, b in FUNCTIONS.items()),
]


@pytest.mark.parametrize(
    "kind, attributes, spec, peephole",
    [(*case, p) for case in CASES for p in ([False, True] if case[0] == "LSTM" else [False])],
    ids=str,
)
def test_a_node_is_the_cell_that_onnxruntime_runs(kind, attributes, spec, peephole):
    tensors = weights(kind, peephole=peephole)
    net = assert_model_matches(model_of([node_of(kind, tensors, **attributes)], tensors), 2e-6)
    (name, options), (_, expected) = parse_spec(net.layers[0].spec), parse_spec(spec)
    assert options == expected | ({"peephole": True} if peephole else {})
    assert spec.startswith(name)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
def test_directions(kind, direction):
    tensors = weights(kind, 2 if direction == "bidirectional" else 1, bias=False)
    model = model_of([node_of(kind, tensors, name="r", direction=direction)], tensors)
    net = assert_model_matches(model)
    names = ["r.forward", "r.reverse"] if direction == "bidirectional" else ["r"]
    assert [one.name for one in net.layers] == names
    assert net.layers[-1].direction == "reverse"


def test_initial_states_are_carried():
    tensors = weights("LSTM", 2)
    states = {name: rng.normal(size=(2, 1, H)).astype("f") for name in ("h", "c")}
    shape = {"shape": np.array([2, N, H])}
    nodes = [helper.make_node("Expand", [name, "shape"], [f"{name}_all"]) for name in states]
    nodes += [node_of("LSTM", tensors, states=("h_all", "c_all"), direction="bidirectional")]
    net = assert_model_matches(model_of(nodes, tensors | states | shape))
    np.testing.assert_array_equal(net.layers[1].carry.c, states["c"][1, 0])
    several = {"h": rng.normal(size=(1, N, H)).astype("f")}
    tensors = weights("RNN")
    node = node_of("RNN", tensors, states=("h",))
    (layer,) = gradflow.load(model_of([node], tensors | several)).layers
    assert layer.carry is None and "initial state is not constant" in layer.note


def test_layout_with_sequences_first():
    tensors = weights("GRU", 2) | {"h": rng.normal(size=(N, 2, H)).astype("f")}
    tensors["h"][1] = tensors["h"][0]
    attributes = {"direction": "bidirectional", "linear_before_reset": 1}
    first = model_of([node_of("GRU", tensors, states=("h",), layout=1, **attributes)], tensors)
    layers = gradflow.load(first).layers
    x = rng.normal(size=(T, N, D))
    turned = tensors | {"h": tensors["h"].swapaxes(0, 1)}
    usual = model_of([node_of("GRU", turned, states=("h",), **attributes)], turned)
    (expected,) = run(usual, X=x)
    for index, layer in enumerate(layers):
        assert_same(layer, expected[:, index].swapaxes(0, 1), x.swapaxes(0, 1))


def test_weights_are_followed_through_the_graph():
    tensors = weights("LSTM")
    blocks = np.split(tensors["W"][0], 4)  # stored as i f o c, without the axis of directions
    stored = {"stored": np.concatenate([blocks[k] for k in (0, 2, 1, 3)]).T, "axes": np.array([0])}
    stored |= {name: np.array([k]) for k, name in ((0, "z"), (H, "a"), (2 * H, "b"), (3 * H, "d"))}
    stored |= {"e": np.array([4 * H]), "R": tensors["R"], "B": tensors["B"].reshape(2, -1)}
    parts = [("z", "a"), ("b", "d"), ("a", "b"), ("d", "e")]
    nodes = [helper.make_node("Transpose", ["stored"], ["rows"], perm=[1, 0])]
    nodes += [
        helper.make_node("Slice", ["rows", start, end, "axes"], [f"part{k}"])
        for k, (start, end) in enumerate(parts)
    ]
    shape = numpy_helper.from_array(np.array([1, -1]))
    nodes += [
        helper.make_node("Concat", [f"part{k}" for k in range(4)], ["joined"], axis=0),
        helper.make_node("Unsqueeze", ["joined", "axes"], ["W"]),
        helper.make_node("Constant", [], ["shape"], value=shape),
        helper.make_node("Identity", ["B"], ["B_same"]),
        helper.make_node("Reshape", ["B_same", "shape"], ["B_row"]),
        helper.make_node("LSTM", ["X", "W", "R", "B_row"], ["Y"], hidden_size=H),
    ]
    net = assert_model_matches(model_of(nodes, stored))
    np.testing.assert_array_equal(net.layers[0].params["f"]["W_x"], blocks[2])
    assert net.layers[0].name == "LSTM_0"


def branch(name, tensors, kind):
    own = {f"{key}_{name}": array for key, array in tensors.items()}
    node = helper.make_node(kind, ["X", *own], [f"Y_{name}"], name="net", hidden_size=H)
    held = [numpy_helper.from_array(array, key) for key, array in own.items()]
    return helper.make_graph([node], name, [], [value(f"Y_{name}")], held)


def test_nodes_in_branches_loops_scans_and_functions_are_found():
    tensors = weights("GRU")
    then = branch("then", weights("RNN"), "RNN")
    other = branch("else", tensors, "GRU")
    boolean, integer = onnx.TensorProto.BOOL, onnx.TensorProto.INT64
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["going"]),
            helper.make_node("RNN", ["X", "W", "R", "B"], ["Y_loop"], hidden_size=H),
        ],
        "body",
        [value("number", integer), value("go", boolean)],
        [value("going", boolean), value("Y_loop")],
    )
    scanned = helper.make_graph(
        [helper.make_node("RNN", ["X_row", "W", "R", "B"], ["Y_scan"], hidden_size=H)],
        "scanned",
        [value("X_row")],
        [value("Y_scan")],
    )
    sets = [helper.make_opsetid("", 22)]
    inner = helper.make_node("RNN", ["x", "w", "r", "b"], ["y"], hidden_size=H)
    function = helper.make_function("own", "Net", ["x", "w", "r", "b"], ["y"], [inner], sets)
    nodes = [
        helper.make_node("If", ["which"], ["Y"], name="if", then_branch=then, else_branch=other),
        helper.make_node("Loop", ["count", ""], ["Y_all"], name="loop", body=body),
        helper.make_node("Unsqueeze", ["X", "axes"], ["X_scan"]),
        helper.make_node("Scan", ["X_scan"], ["Y_rows"], num_scan_inputs=1, body=scanned),
        helper.make_node("Net", ["X", "W", "R", "B"], ["Y_own"], domain="own"),
    ]
    shared = weights("RNN") | {"count": np.array(1), "axes": np.array([0])}
    inputs = ["X", value("which", boolean)]
    model = model_of(nodes, shared, inputs, ["Y", "Y_all", "Y_own"], functions=[function])
    net = gradflow.load(model)
    x = rng.normal(size=(T, N, D)).astype("f")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    results = [session.run(None, {"X": x, "which": np.array(is_then)}) for is_then in (True, False)]
    expected = [results[1][0], results[0][0], results[0][1][0], results[0][1][0], results[0][2]]
    for layer, y in zip(net.layers, expected, strict=True):
        assert_same(layer, y[:, 0].swapaxes(0, 1), x.swapaxes(0, 1))
    names = [layer.name for layer in net.layers]
    assert names[:3] == ["if.else_branch/net", "if.then_branch/net", "loop.body/RNN_0"]
    assert names[3] == "Scan_3.body/RNN_0" and "RNN_0" in names[4]
    assert "cannot be captured" in net.layers[0].note and "captured" not in net.layers[4].note
    assert list(net.capture({"X": x, "which": np.array(True)})) == [names[4]]


def stack(kind, turn):
    """Two bidirectional nodes in a row, joined in one of the usual ways."""
    first, second = weights(kind, 2), weights(kind, 2, size=2 * H)
    tensors = first | {f"{name}2": array for name, array in second.items()}
    names = ["x2", "W2", "R2", "B2"]
    tensors |= {"shape": np.array([0, 0, -1])}
    options = {"direction": "bidirectional", "hidden_size": H}
    nodes = [
        helper.make_node(kind, ["X", "W", "R", "B"], ["Y1"], name="a", **options),
        helper.make_node("Transpose", ["Y1"], ["Yt"], perm=turn),
        helper.make_node("Reshape", ["Yt", "shape"], ["Yr"]),
        helper.make_node("Dropout", ["Yr"], ["x2"]),
        helper.make_node(kind, names, ["Y"], name="b", **options),
    ]
    return model_of(nodes, tensors)


def test_layers_that_feed_others_are_named():
    model = stack("LSTM", [0, 2, 1, 3])
    net = gradflow.load(model)
    assert net["b.reverse"].fed_by == ("a.forward", "a.reverse") and net["a.forward"].fed_by == ()
    x = rng.normal(size=(T, N, D))
    fed = feed(net, to_lowest(net, x.swapaxes(0, 1)))
    captured = net.capture({"X": x})
    np.testing.assert_allclose(fed["b.reverse"], captured["b.forward"], atol=1e-6)
    np.testing.assert_array_equal(captured["a.reverse"], x.swapaxes(0, 1).astype("f"))
    # The axes of units and directions are not neighbours here: the layers are mixed.
    assert gradflow.load(stack("RNN", [0, 2, 3, 1]))["b.reverse"].fed_by == ()


def test_directions_in_two_nodes_that_are_joined_feed_the_next():
    first, second = weights("RNN"), weights("RNN", size=2 * H)
    tensors = first | {f"{name}2": array for name, array in second.items()}
    tensors |= {"one": np.array([1])}
    nodes = [
        node_of("RNN", first, name="a", y="Ya"),
        node_of("RNN", first, name="b", y="Yb", direction="reverse"),
        helper.make_node("Squeeze", ["Ya", "one"], ["ya"]),
        helper.make_node("Squeeze", ["Yb", "one"], ["yb"]),
        helper.make_node("Concat", ["ya", "yb"], ["x2"], axis=-1),
        helper.make_node("RNN", ["x2", "W2", "R2", "B2"], ["Y"], name="c", hidden_size=H),
    ]
    net = gradflow.load(model_of(nodes, tensors))
    assert net["c"].fed_by == ("a", "b")


def exported(module, path):
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that keeps recurrent nodes is an old one
        example = torch.zeros(T, N, D)
        torch.onnx.export(module, (example,), str(path), dynamo=False, input_names=["X"])
    return module.double()


def torch_jacobians(module, x, kind):
    """∂h_t/∂h_k of a torch layer by autograd, through its own steps, for all k; t = T."""
    import torch

    state = torch.zeros(1, 1, H, dtype=torch.float64, requires_grad=True)
    carry = (state, torch.zeros_like(state)) if kind == "LSTM" else state
    states = [state]
    for row in x:
        _, carry = module(torch.as_tensor(row)[None, None], carry)
        states.append(carry[0] if kind == "LSTM" else carry)
        states[-1].retain_grad()
    rows = [torch.autograd.grad(states[-1][0, 0, j], states, retain_graph=True) for j in range(H)]
    return [np.stack([row[k][0, 0].numpy() for row in rows]) for k in range(len(states))]


# Every two of the options in every combination.
@pytest.mark.parametrize(
    ("num_layers", "bidirectional", "bias"),
    [(1, False, True), (1, True, False), (2, False, False), (2, True, True)],
)
@pytest.mark.parametrize("kind", GATES)
def test_models_exported_from_pytorch(tmp_path, kind, num_layers, bidirectional, bias):
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    options = {"num_layers": num_layers, "bidirectional": bidirectional, "bias": bias}
    module = getattr(torch.nn, kind)(D, H, **options).eval()
    path = tmp_path / "net.onnx"
    module = exported(module, path)
    net = gradflow.load(path)
    directions = 1 + bidirectional
    assert len(net.layers) == num_layers * directions
    assert net.layers[-1].fed_by == tuple(one.name for one in net.layers[:-directions])
    x = rng.normal(size=(T, N, D)).astype("f").astype(float)
    fed = feed(net, to_lowest(net, x.swapaxes(0, 1)))
    outputs = [layer.run(fed[layer.name]) for layer in net.layers[-directions:]]
    with torch.no_grad():
        expected = module(torch.as_tensor(x))[0].numpy()
    np.testing.assert_allclose(np.concatenate(outputs, -1).swapaxes(0, 1), expected, atol=1e-6)
    assert all(layer.error < 1e-6 for layer in net.layers)
    if num_layers == 1 and not bidirectional:
        assert_flow_is_autograd(net.layers[0], module, x[:, 0], kind)


def assert_flow_is_autograd(layer, module, x, kind):
    params = jax.tree.map(jnp.asarray, layer.params)
    norms = [np.linalg.norm(one, 2) for one in torch_jacobians(module, x, kind)]
    found = flow.log_norms(layer.cell, params, jnp.asarray(x))
    np.testing.assert_allclose(np.exp(found)[::-1], norms, rtol=1e-6)

    def step(h):
        carry = layer.cell.initial_carry()
        carry = carry._replace(h=h) if kind == "LSTM" else h
        return layer.cell.step(params, carry, jnp.asarray(x[0]))[1]

    one = torch_jacobians(module, x[:1], kind)[0]
    np.testing.assert_allclose(jax.jacobian(step)(jnp.zeros(H)), one, atol=1e-6)


@pytest.mark.parametrize(
    "attributes, message",
    [
        ({"activations": ["ScaledTanh"], "activation_alpha": [2.0]}, "no cell has .* ScaledTanh"),
        ({"activations": ["Affine"]}, r"no cell has .* Affine with alpha and beta \(nan, nan\)"),
        ({"activations": ["Own"]}, "the activation Own is unknown"),
        ({"activations": ["Tanh"] * 3}, r"are not 1 for each direction"),
        ({"clip": -1.0}, "Expected clip"),
        ({"direction": "sideways"}, "the direction 'sideways' is unknown"),
    ],
)
def test_what_no_cell_computes_is_named(attributes, message):
    tensors = weights("RNN")
    bad = node_of("RNN", tensors, name="bad", y="Y2", **attributes)
    with pytest.raises(ValueError, match=f"can be imported, got bad: .*{message}"):
        gradflow.load(model_of([bad], tensors, outputs=["Y2"]))
    both = model_of([bad, node_of("RNN", tensors, name="good")], tensors)
    net = gradflow.load(both)
    assert [one.name for one in net.layers] == ["good"] and list(net.unsupported) == ["bad"]


def test_weights_that_are_no_constants_or_do_not_fit_are_named():
    tensors = weights("RNN")

    def reason(nodes, tensors, inputs=("X",)):
        with pytest.raises(ValueError, match="Expected a recurrent node") as caught:
            gradflow.load(model_of(nodes, tensors, inputs))
        return str(caught.value)

    part = {name: tensors[name] for name in ("W", "B")}
    assert "'R' is an input of the graph" in reason([node_of("RNN", tensors)], part, ["X", "R"])
    product = helper.make_node("MatMul", ["W", "W"], ["R"])
    assert "computed by MatMul" in reason([product, node_of("RNN", tensors)], part)
    cut = tensors | {"R": tensors["R"][:, :, 1:]}
    assert "W has the shape (1, 4, 3) where (1, 3, 3)" in reason([node_of("RNN", tensors)], cut)
    flat = tensors | {"R": tensors["R"][0]}
    assert "have not three axes" in reason([node_of("RNN", tensors)], flat)
    coupled = {"input_forget": 1, "activations": ["Relu", "Tanh", "Tanh"]}
    lstm = weights("LSTM")
    assert "input_forget with" in reason([node_of("LSTM", lstm, **coupled)], lstm)
    names = ["X", "W", "R"]
    node = helper.make_node("RNN", names, ["Y"], hidden_size=H + 1)
    assert "hidden_size contradicts" in reason([node], tensors)
    quantized = helper.make_node("DynamicQuantizeLSTM", names, ["Y"], domain="own")
    assert "without quantization" in reason([quantized], tensors)


def test_a_cell_that_is_written_out_is_reported():
    nodes = [
        helper.make_node("MatMul", ["X", "W"], ["a"]),
        helper.make_node("Sigmoid", ["a"], ["Y"]),
    ]
    with pytest.raises(ValueError, match="1 Gemm or MatMul and 1 Sigmoid or Tanh.*dynamo=False"):
        gradflow.load(model_of(nodes, {"W": np.zeros((D, H), "f")}))
    with pytest.raises(ValueError, match="got 1 nodes, such as Identity"):
        gradflow.load(model_of([helper.make_node("Identity", ["X"], ["Y"])], {}))


def test_without_onnxruntime_the_layer_says_so(monkeypatch):
    tensors = weights("RNN")
    model = model_of([node_of("RNN", tensors)], tensors)
    assert gradflow.load(model, verify=False).layers[0].verification == "not verified"
    broken = {name: np.full_like(a, np.nan) for name, a in tensors.items()}
    (layer,) = gradflow.load(model_of([node_of("RNN", tensors)], broken)).layers
    assert "weights are not finite" in layer.note
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    net = gradflow.load(model)
    assert "not verified: onnxruntime is not installed" in net.layers[0].note
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'gradflow-rnn\[onnx\]'"):
        net.capture({"X": np.zeros((T, N, D))})


def test_samples_that_do_not_fit_are_reported():
    tensors = weights("RNN")
    net = gradflow.load(model_of([node_of("RNN", tensors)], tensors))
    with pytest.raises(ValueError, match="Expected a sample with the inputs X .* got x"):
        net.capture({"x": np.zeros((T, N, D))})
    model = stack("RNN", [0, 2, 1, 3])
    with pytest.raises(ValueError, match="a sample that the model can be run on, got an error"):
        gradflow.load(model).capture({"X": np.zeros((T, N, D + 1))})


@pytest.fixture
def file(tmp_path):
    """A model whose weights lie in another file."""
    tensors = weights("LSTM")
    path = tmp_path / "models" / "net.onnx"
    path.parent.mkdir()
    onnx.save(
        model_of([node_of("LSTM", tensors)], tensors),
        str(path),
        save_as_external_data=True,
        location="net.onnx_data",
        size_threshold=0,
    )
    return path


def test_data_in_another_file_is_read(file):
    net = gradflow.load(file)
    assert net.layers[0].error < 1e-6 and net.path == str(file)
    x = rng.normal(size=(T, N, D))
    np.testing.assert_allclose(net.capture({"X": x})["LSTM_0"], x.swapaxes(0, 1), rtol=1e-6)
    bare = onnx.load(str(file), load_external_data=False)
    with pytest.raises(ValueError, match="in another file|should be stored"):
        gradflow.load(bare)


def test_data_outside_of_the_folder_is_not_read(file):
    outer = file.parents[1] / "net.onnx_data"
    (file.parent / "net.onnx_data").rename(outer)
    with pytest.raises(ValueError, match="is damaged .*net.onnx_data"):
        gradflow.load(file)
    model = onnx.load(str(file), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../net.onnx_data"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="is damaged|leads out of it"):
        gradflow.load(file)
    (file.parent / "net.onnx_data").symlink_to(outer)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "net.onnx_data"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="is damaged|leads out of it"):
        gradflow.load(file)


def test_damaged_files_are_one_line(tmp_path):
    tensors = weights("LSTM")
    good = model_of([node_of("LSTM", tensors)], tensors).SerializeToString()
    path = tmp_path / "net.onnx"
    random = np.random.default_rng(3)
    damaged = [random.bytes(300), b"\x08", good[:-40], good[: len(good) // 2]]
    for _ in range(60):
        changed = bytearray(good)
        for place in random.integers(0, 200, 3):
            changed[place if random.random() < 0.5 else -place - 1] = random.integers(256)
        damaged.append(bytes(changed))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            gradflow.load(path)
        except (ValueError, OSError) as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 30


def test_text_that_is_no_text_is_refused():
    tensors = weights("RNN")
    model = model_of([node_of("RNN", tensors, name="name")], tensors)
    content = model.SerializeToString().replace(b"name", b"na\xff\xfe")
    with pytest.raises(ValueError, match="Expected a valid ONNX model"):
        gradflow.load(onnx.load_from_string(content))


def absurd(tensors, nodes=()):
    return model_of([*nodes, node_of("RNN", tensors)], tensors)


def test_nothing_is_allocated_beyond_the_file():
    tensors = weights("RNN")
    model = absurd(tensors)
    model.graph.initializer[0].dims[:] = [1, 2**40, 2**20]
    with pytest.raises(ValueError, match="cannot be computed|Expected a valid ONNX model"):
        gradflow.load(model)
    model = absurd(tensors)
    model.graph.initializer[1].dims[:] = [1, 2**40, 0]
    model.graph.initializer[1].raw_data = b""
    with pytest.raises(ValueError, match="R has the shape|W has the shape"):
        gradflow.load(model)
    doubled = [helper.make_node("Concat", [f"R{k}"] * 2, [f"R{k + 1}"], axis=0) for k in range(40)]
    last = helper.make_node("Identity", ["R40"], ["R"])
    nodes = [*doubled, last, node_of("RNN", tensors)]
    own = {"W": tensors["W"], "R0": tensors["R"], "B": tensors["B"]}
    with pytest.raises(ValueError, match="is too large for its file"):
        gradflow.load(model_of(nodes, own))
    chain = [helper.make_node("Identity", [f"R{k}"], [f"R{k + 1}"]) for k in range(3000)]
    nodes = [*chain, helper.make_node("Identity", ["R3000"], ["R"]), node_of("RNN", tensors)]
    with pytest.raises(ValueError, match="recursion"):
        gradflow.load(model_of(nodes, own))


def test_functions_that_call_themselves_are_refused():
    sets = [helper.make_opsetid("", 22), helper.make_opsetid("own", 1)]
    again = helper.make_node("Net", ["x"], ["y"], domain="own")
    function = helper.make_function("own", "Net", ["x"], ["y"], [again], sets)
    call = helper.make_node("Net", ["X"], ["Y"], domain="own")
    with pytest.raises(ValueError, match="functions that can be expanded|Expected a valid"):
        gradflow.load(model_of([call], {}, functions=[function]))


@pytest.mark.parametrize("shape", [(H,), (3, 1, H), (1, 1, H + 1), (0, 1, H)], ids=str)
def test_initial_states_of_another_shape_are_left_out(shape):
    tensors = weights("RNN", 2) | {"h": np.ones(shape, "f")}
    node = node_of("RNN", tensors, states=("h",), direction="bidirectional")
    for layer in gradflow.load(model_of([node], tensors)).layers:
        assert layer.carry is None and "initial state" in layer.note and layer.error < 1e-6
