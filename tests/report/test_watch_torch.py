"""A PyTorch training that is watched: what is recorded, and that nothing else changes."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradflow
from gradflow import flow
from gradflow.report import read_watch

torch = pytest.importorskip("torch")

T, N, D, H = 7, 5, 3, 4


class Model(torch.nn.Module):
    def __init__(self, kind="LSTM", gain=1.0, **options):
        super().__init__()
        self.rnn = getattr(torch.nn, kind)(D, H, **options)
        self.readout = torch.nn.Linear(H * (1 + self.rnn.bidirectional), 1)
        with torch.no_grad():
            for name, p in self.rnn.named_parameters():
                if "weight_hh" in name:
                    p.mul_(gain)

    def forward(self, x, hx=None):
        outputs, _ = self.rnn(x, hx)
        return self.readout(outputs[-1] if not self.rnn.batch_first else outputs[:, -1])


def train(model, updates, *, rate=0.1, after=lambda update, x: None):
    optimiser = torch.optim.SGD(model.parameters(), rate)
    losses = []
    for update in range(1, updates + 1):
        x = torch.randn(T, N, D)
        model.eval()
        with torch.no_grad():
            model(x)  # an evaluation is no update
        model.train()
        model(x)  # nor is a forward pass without a backward pass
        loss = (model(x) - x.sum((0, 2))[:, None]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        after(update, x)
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_an_exploding_training_is_recorded_and_not_disturbed(tmp_path, capsys):
    runs, states, inputs, weights = [], [], {}, {}
    for watched in (False, True):
        torch.manual_seed(0)
        model = Model("RNN", gain=3.0)
        keep = lambda update, x, model=model: (  # noqa: E731
            inputs.__setitem__(update, x.numpy().copy()),
            weights.__setitem__(
                update, {n: p.detach().numpy().copy() for n, p in model.named_parameters()}
            ),
        )
        if watched:
            with gradflow.watch(model, every=3, folder=str(tmp_path), max_cost=None) as monitor:
                runs.append(train(model, 7, rate=3.0, after=keep))
            assert not model.rnn._forward_hooks and not model._forward_pre_hooks
        else:
            runs.append(train(model, 7, rate=3.0))
        states.append((torch.get_rng_state(), [p.detach().clone() for p in model.parameters()]))
    np.testing.assert_array_equal(*runs)
    assert torch.equal(states[0][0], states[1][0])
    assert all(torch.equal(a, b) for a, b in zip(states[0][1], states[1][1], strict=True))
    found = monitor.dataset()
    assert found["update"].values.tolist() == [1, 4, 7] and found["layer"].values == ["rnn.l0"]
    cell = gradflow.cells.resolve("rnn")(D, H)
    for update in (1, 4, 7):
        own = weights[update]
        params = {"W_x": own["rnn.weight_ih_l0"], "W_h": own["rnn.weight_hh_l0"]}
        params = {name: jnp.asarray(a, float) for name, a in params.items()}
        params["b"] = jnp.asarray(own["rnn.bias_ih_l0"].astype(float) + own["rnn.bias_hh_l0"])
        x = jnp.asarray(inputs[update], float)[:, :4]
        expected = np.median([flow.log_norms(cell, params, x[:, k]) for k in range(4)], axis=0)
        np.testing.assert_allclose(
            found.log_norms.sel(update=update).values[0], expected, rtol=1e-7
        )
        assert found.horizon.sel(update=update)[0] == flow.horizons(expected)
    assert np.all(found.seconds > 0) and monitor.compiling > 0
    assert read_watch(tmp_path).equals(found)


def test_weights_that_are_nan_are_reported_once(tmp_path, capsys):
    torch.manual_seed(0)
    model = Model("GRU")

    def damage(update, x):
        if update == 2:
            with torch.no_grad():
                model.rnn.weight_hh_l0[0, 0] = torch.nan

    monitor = gradflow.watch(model, every=1, folder=str(tmp_path), max_cost=None)
    train(model, 4, after=damage)
    found = monitor.dataset()
    assert found.nonfinite_step.values.tolist() == [[-1, -1, 1, 1]]
    assert np.isnan(found.log_norms.values[0, 2, 1:]).all()
    lines = [line for line in capsys.readouterr().err.splitlines() if "not finite" in line]
    assert lines == ["gradflow.watch: update 3: rnn.l0 is not finite from step 1 of 7"]


def test_a_short_horizon_is_reported_once_until_it_changes(tmp_path, capsys):
    model = Model("RNN", gain=0.001)
    monitor = gradflow.watch(model, every=1, folder=str(tmp_path), max_cost=None)

    def grow(update, x):
        if update == 3:
            with torch.no_grad():
                model.rnn.weight_hh_l0.mul_(100.0)

    train(model, 4, rate=0.0, after=grow)
    lines = capsys.readouterr().err.splitlines()
    horizons = monitor.dataset().horizon.values[0]
    assert len(lines) == 2 and lines[0].startswith(
        f"gradflow.watch: update 1: rnn.l0: ‖∂h_T/∂h_k‖ is below 0.001 after {horizons[0]:g} steps,"
        " but the loss needs 7"
    )
    assert "update 4" in lines[1] and horizons[3] >= 2 * horizons[0]


@pytest.mark.parametrize("needed, count", [(1, 0), (30, 1)])
def test_the_needed_lag_decides(tmp_path, capsys, needed, count):
    model = Model("RNN", gain=0.1)
    options = {"folder": str(tmp_path), "max_cost": None, "needed_lag": needed}
    with gradflow.watch(model, **options):
        train(model, 2, rate=0.0)
    assert len(capsys.readouterr().err.splitlines()) == count


def expected_of(model, name, x, **given):
    layer = gradflow.load(model, verify=False)[name]
    params = {g: {n: jnp.asarray(a) for n, a in w.items()} for g, w in layer.params.items()}
    return flow.log_norms(layer.cell, params, jnp.asarray(x), **given)


def test_layers_directions_states_and_lengths(tmp_path):
    torch.manual_seed(0)
    model = Model("GRU", num_layers=2, bidirectional=True, batch_first=True)
    options = {"every": 1, "folder": str(tmp_path), "max_cost": None, "num_sequences": 1}
    x, hx = torch.randn(N, T, D), torch.randn(4, N, H)
    with gradflow.watch(model, **options) as monitor:
        model(x, hx).sum().backward()
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, [7, 6, 5, 4, 3], batch_first=True)
        shorter = x[-1:, :4]
        for given in (packed, shorter):
            model.rnn(given)[1].sum().backward()
    found = monitor.dataset()
    assert found["layer"].values.tolist() == [
        "rnn.l0",
        "rnn.l0_reverse",
        "rnn.l1",
        "rnn.l1_reverse",
    ]
    assert found["update"].values.tolist() == [1, 2, 3]
    one = {"layer": "rnn.l0", "update": 1}
    expected = expected_of(model, "rnn.l0", x[0].double().numpy(), carry=hx[0, 0].double().numpy())
    np.testing.assert_allclose(found.log_norms.sel(one).values, expected, rtol=1e-7)
    _, states = model.rnn(x, hx), hx[3, 0].double().numpy()
    first, _ = torch.nn.GRU.forward(_first_of(model.rnn), x, hx[:2])
    turned = first[0].detach().double().numpy()[::-1]
    expected = expected_of(model, "rnn.l1_reverse", turned, carry=states)
    one = {"layer": "rnn.l1_reverse", "update": 1}
    np.testing.assert_allclose(found.log_norms.sel(one).values, expected, atol=1e-5)
    expected = expected_of(model, "rnn.l0_reverse", x[-1, :4].double().numpy()[::-1])
    one = {"layer": "rnn.l0_reverse", "update": 3}  # measured with padding
    np.testing.assert_allclose(found.log_norms.sel(one).values[:5], expected, rtol=1e-7)
    assert np.isnan(found.log_norms.sel(one).values[5:]).all()


def _first_of(rnn):
    """The first layer of a GRU of two."""
    first = torch.nn.GRU(D, H, bidirectional=True, batch_first=True)
    first.load_state_dict({n: p for n, p in rnn.state_dict().items() if "l0" in n})
    return first


def test_packed_sequences_have_their_own_lengths(tmp_path):
    model = Model("LSTM", bidirectional=True)
    options = {"every": 1, "folder": str(tmp_path), "max_cost": None, "num_sequences": 2}
    x = torch.randn(T, 2, D)
    with gradflow.watch(model, **options) as monitor:
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, [7, 4])
        model.rnn(packed)[1][0].sum().backward()
    found = monitor.dataset().log_norms
    both = x.double().numpy()
    long = expected_of(model, "rnn.l0_reverse", both[::-1, 0])
    short = expected_of(model, "rnn.l0_reverse", both[3::-1, 1])
    expected = np.concatenate([np.median([long[:5], short], axis=0), long[5:]])
    np.testing.assert_allclose(found.sel(layer="rnn.l0_reverse").values[0], expected, rtol=1e-7)


def test_cells_in_a_loop_are_one_sequence(tmp_path):
    class Loop(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = torch.nn.LSTMCell(D, H)

        def forward(self, x):
            state = None
            for row in x:
                state = self.cell(row, state)
            return state[0]

    model, x = Loop(), torch.randn(T, N, D)
    options = {"every": 1, "folder": str(tmp_path), "max_cost": None, "num_sequences": 1}
    with gradflow.watch(model, **options) as monitor:
        model(x).sum().backward()
        model(x).sum().backward()
    expected = expected_of(model, "cell", x[:, 0].double().numpy())
    found = monitor.dataset()
    assert found.sizes["update"] == 2
    np.testing.assert_allclose(found.log_norms.values[0, 1], expected, rtol=1e-7)


def test_an_error_is_recorded_and_reported_once(tmp_path, capsys, monkeypatch):
    model = Model("RNN")
    monitor = gradflow.watch(model, every=1, folder=str(tmp_path), max_cost=None)
    monkeypatch.setattr(type(monitor), "_subjects", lambda self: 1 / 0)
    train(model, 3)
    assert monitor.dataset().sizes["update"] == 0
    assert (tmp_path / "watch.jsonl").read_text().count('"error": "ZeroDivisionError') == 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "training goes on" in lines[0]


def test_a_module_without_recurrent_modules_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Expected a module with RNN, LSTM"):
        gradflow.watch(torch.nn.Linear(2, 2), folder=str(tmp_path))
    with pytest.raises(ValueError, match="Expected no sample"):
        gradflow.watch(Model("RNN"), folder=str(tmp_path), sample=np.zeros((1, 2, 3)))
