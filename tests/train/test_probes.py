import echo
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow import flow
from gradflow.cells import gru, rnn
from gradflow.train.driver import Schedule, fit
from gradflow.train.fresh import fresh_sequences
from gradflow.train.model import init_model
from gradflow.train.optimisers import resolve_optimiser
from gradflow.train.probes import Probing, probe, resolve_probes
from gradflow.train.runs import begin
from gradflow.train.training import Training

T = 5
CELL, TASK = gru(1, 3), echo.echo(T)
NAMES = ("log_norms", "adjoints", "components", "spectrum", "gates")
PROBING = Probing(NAMES, jax.random.key(7), num_sequences=3)
PARAMS = jax.vmap(lambda key: init_model(CELL, 1, key))(jax.random.split(jax.random.key(0), 2))


@pytest.fixture(scope="module")
def probed():
    return probe(CELL, TASK, PARAMS, PROBING)


def by_hand(params, x, measure):
    """measure(h_k -> h_T, h_k -> loss of the sequence) for k = 0 ... T, by differentiation."""
    found, h = [], jnp.zeros(3)
    for k in range(T + 1):

        def end(h, k=k):
            for x_t in x[k:]:
                h, _ = CELL.step(params["cell"], h, x_t)
            return h

        def loss(h, end=end):
            said = params["readout"]["W"] @ end(h) + params["readout"]["b"]
            return jnp.sum((said - x[0]) ** 2)

        found.append(measure(jax.jacobian(end)(h), jax.grad(loss)(h)))
        if k < T:
            h, _ = CELL.step(params["cell"], h, x[k])
    return np.array(found)


def each(measure):
    """The median over the sequences of what is measured by hand, for each run."""
    inputs = TASK.sample(PROBING.key, 3).inputs
    return np.array(
        [
            np.median([measure(jax.tree.map(lambda p: p[run], PARAMS), inputs[:, b])  # noqa: B023
                       for b in range(3)], axis=0)
            for run in range(2)
        ]
    )  # fmt: skip


def test_norms_adjoints_and_spectra_are_those_of_automatic_differentiation(probed):
    def norms(params, x):
        return by_hand(params, x, lambda J, a: np.log([np.linalg.norm(J, 2), np.linalg.norm(a)]))

    expected = each(norms)
    np.testing.assert_allclose(probed["log_norms"], expected[..., 0], atol=1e-9)
    np.testing.assert_allclose(probed["adjoints"], expected[..., 1], atol=1e-9)

    def values(params, x):
        return np.log(by_hand(params, x, lambda J, a: np.linalg.svd(J, compute_uv=False))[0])

    np.testing.assert_allclose(probed["spectrum"], each(values), atol=1e-9)


def test_components_are_the_sizes_of_the_shares_in_all_recurrent_weights(probed):
    def shares(params, x):
        def loss(outputs):
            return jnp.sum(
                (outputs[-1] @ params["readout"]["W"].T + params["readout"]["b"] - x[0]) ** 2
            )

        parts = flow.component_gradients(CELL, params["cell"], x, loss=loss)
        squares = sum(np.sum(np.asarray(parts[g]["W_h"]) ** 2, axis=(1, 2)) for g in "rzn")
        with np.errstate(divide="ignore"):  # the first step has no share: h_0 = 0
            return np.log(squares) / 2

    np.testing.assert_allclose(probed["components"], each(shares), atol=1e-9)


def test_gates_are_counted_where_they_are_saturated(probed):
    wide = jax.tree.map(lambda leaf: 20 * leaf, PARAMS)
    found = probe(CELL, TASK, wide, PROBING._replace(names=("gates",), num_sequences=1))
    x = TASK.sample(PROBING.key, 1).inputs[:, 0]
    h, params = jnp.zeros(3), jax.tree.map(lambda leaf: leaf[1], wide["cell"])
    for t in range(T):
        gates = CELL.gates(params, h, x[t])
        expected = np.mean((gates["z"] < 0.1) | (gates["z"] > 0.9))
        assert found["gates.z"][1, t] == pytest.approx(expected)
        h, _ = CELL.step(params, h, x[t])
    assert set(found) == {"gates.r", "gates.z", "gates.n"}
    assert 0 < found["gates.z"].mean() < 1


def test_a_probe_measures_in_double_precision_what_is_trained_in_single(probed):
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), PARAMS)
    again = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), single)
    found = probe(CELL, TASK, single, PROBING)
    assert all(value.dtype == np.float64 for value in found.values())
    jax.tree.map(np.testing.assert_array_equal, found, probe(CELL, TASK, again, PROBING))


def test_a_training_probes_when_it_is_asked_to_and_a_dead_run_gives_nan():
    task = echo.echo(T, success=-1.0)  # solved from the start, and trained on all the same
    training = Training(rnn(1, 3), task, resolve_optimiser("adam"), batch_size=4, eval_size=4)
    rates = jnp.array([0.01, 1e300])
    runs = begin(training, jax.random.split(jax.random.key(1), 2), rates)
    probing = Probing(("log_norms", "spectrum"), jax.random.key(2), 1)
    first = probe(training.cell, TASK, runs.params, probing)
    schedule = Schedule(4, 1, probe_every=2, early_stop=False)
    *_, last = fit(fresh_sequences(training, runs, probing), schedule)
    assert last.probes["log_norms"].shape == (3, 2, T + 1)
    np.testing.assert_array_equal(last.probes["log_norms"][0], first["log_norms"])
    now = probe(training.cell, TASK, last.state.params, probing)
    np.testing.assert_array_equal(last.probes["spectrum"][2], now["spectrum"])
    assert np.isnan(last.probes["log_norms"][1:, 1, 0]).all()  # ∂h_T/∂h_0 of the dead run
    assert np.isfinite(last.probes["log_norms"][:, 0]).all()


def test_bad_probes_are_refused():
    assert resolve_probes(" gates,log_norms, gates", CELL) == ("gates", "log_norms")
    with pytest.raises(ValueError, match="Unknown probe 'spectra'. Did you mean 'spectrum'"):
        resolve_probes("spectra", CELL)
    with pytest.raises(ValueError, match="The probe 'gates' needs a cell with gates"):
        resolve_probes("gates", rnn(1, 3))
