"""The study of ReLU against tanh: its record by NumPy, its sweep of the gain, its claims."""

import math

import jax
import numpy as np
import pytest
import xarray
from studies import load_part, one_run, verdicts

from gradflow import flow, statistics, study
from gradflow.cells import rnn
from gradflow.tasks import resolve_task
from gradflow.train import Schedule, Training, resolve_clipping, resolve_optimiser

MODULE = load_part("relu_vs_tanh.study")
gain_sweep, runs, trained, tuning = (
    load_part(f"_kit.{name}") for name in ("gain_sweep", "runs", "trained", "tuning")
)
EXPERIMENT = MODULE.EXPERIMENT


def quick(**given):
    return EXPERIMENT.resolve(given, quick=True)


def test_the_record_is_that_of_plain_networks(dataset):
    params, x = one_run(quick(), rnn(2, 6, activation="relu"), 1)
    h, product, norms, sizes = np.zeros(6), np.eye(6), [0.0], []
    masks = []
    for x_t in np.asarray(x):
        h = np.maximum(params["W_x"] @ x_t + params["W_h"] @ h, 0)
        masks.append(h > 0)
        sizes.append(np.log(np.sqrt(np.mean(h**2))))
    for mask in masks[::-1]:
        product = product @ (mask[:, None] * params["W_h"])
        norms.append(np.log(np.linalg.norm(product, 2)))
    found = dataset.sel(activation="relu", init="orthogonal", run=1)
    np.testing.assert_allclose(found.log_norm, norms, atol=1e-8)
    np.testing.assert_allclose(found.log_size, sizes, atol=1e-10)
    shares = np.cumsum([0, *(np.log(mask.mean()) for mask in masks[::-1])])
    np.testing.assert_allclose(found.log_live, shares, atol=1e-10)  # every unit feeds every other


def test_rates_at_each_scale_are_those_of_plain_networks(dataset):
    cell = rnn(2, 6, activation="tanh", recurrent_init="identity")
    params, x = one_run(quick(), cell, 1)
    for std in (0.01, 1.0):
        expected = statistics.slope(np.asarray(flow.log_norms(cell, params, std * x)))
        found = dataset.rate.sel(activation="tanh", init="identity", input_std=std, run=1)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    norms = dataset.log_norm.sel(activation="relu", init="orthogonal", run=0)
    rate = dataset.rate.sel(activation="relu", init="orthogonal", run=0, input_std=1.0)
    np.testing.assert_allclose(rate, statistics.slope(norms.values), rtol=1e-9)


def test_the_sweep_of_a_linear_network_grows_by_the_gain(dataset):
    linear = dataset.sel(activation="identity")
    expected = 12 * np.log(dataset.gain) + 0.5 * math.log(6)
    np.testing.assert_allclose(linear.log_norm_end, np.tile(expected, (2, 1)), atol=1e-9)
    tanh = dataset.sel(activation="tanh")
    assert float(tanh.log_size_end.max()) < 0
    unscaled = dataset.log_size.sel(init="orthogonal").isel(step=-1)
    np.testing.assert_allclose(dataset.log_size_end.sel(gain=1.0), unscaled, rtol=1e-9)


def test_initialisers_are_in_the_order_in_which_they_are_given(dataset):
    assert list(dataset.init.values) == ["orthogonal", "identity"]  # the first of which is swept


def test_every_activation_is_trained_at_its_own_rate(dataset):
    loss = dataset.loss
    assert np.isfinite(loss).all() and bool((loss.isel(update=-1) != loss.isel(update=0)).all())
    final = loss.isel(update=0).values.reshape(-1)
    assert len(np.unique(final.round(9))) == final.size  # no two runs are the same network
    tried = dataset.validation_loss
    assert tried.dims == ("activation", "tried_rate", "validation_seed")
    chosen = tried.median("validation_seed").idxmin("tried_rate")
    np.testing.assert_array_equal(dataset.learning_rate, chosen)
    assert len(np.unique(tried.values.round(9))) == tried.size


def test_a_validation_run_is_a_plain_network_at_its_rate(dataset):
    config, cell = quick(), rnn(2, 6, activation="relu")
    _, keys = tuning.keys(config)
    cells = jax.vmap(lambda key: cell.init(runs.cell_key(key)))(keys)  # in float64
    cells = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), cells)
    training = Training(
        cell,
        resolve_task("adding(num_steps=6)"),
        resolve_optimiser("adam"),
        resolve_clipping("global_norm(threshold=1)"),
        batch_size=4,
    )
    with jax.enable_x64(False):
        begun = trained.begin(training, keys, [(0.01,)], cells)
        last = trained.to_end(training, begun, Schedule(10, 5, early_stop=False))
    found = dataset.validation_loss.sel(activation="relu", tried_rate=0.01)
    np.testing.assert_allclose(found, last.metrics["loss"][-1], rtol=1e-4)


def sweep_of(half, end, norm):
    """Two runs over the gains 1, 2, 3 of one activation."""
    return xarray.Dataset(
        {
            "log_size_half": (("run", "gain"), np.array(half)),
            "log_size_end": (("run", "gain"), np.array(end)),
            "log_norm_end": (("run", "gain"), np.array(norm)),
        },
        coords={"gain": [1.0, 2.0, 3.0]},
    )


def test_what_has_blown_up_and_from_which_gain():
    inf, nan = np.inf, np.nan
    data = sweep_of(
        [[0, 0, inf], [-inf, 1, 1]],
        [[2.2, 2.4, inf], [-inf, 1, 2]],
        [[0, 8, nan], [-inf, 6, 6.8]],
    )  # log 10 = 2.30, log 1000 = 6.91
    blown, exploded = gain_sweep.blown_up(data), gain_sweep.exploded(data)
    np.testing.assert_array_equal(blown, [[False, True, True], [False, False, False]])
    np.testing.assert_array_equal(exploded, [[False, True, True], [False, False, False]])
    np.testing.assert_array_equal(gain_sweep.boundaries(blown), [1.5, inf])
    assert gain_sweep.boundaries(data.log_size_end > 2)[0] == 0.5


def test_the_claims_are_decided_by_the_numbers(dataset):
    names = ["tanh", "relu"]
    data = dataset.sel(activation=names).assign_coords(gain=[0.5, 1, 1.3, 1.5, 2, 3])
    # The rate of tanh less that of ReLU: by scale from orthogonal, the same from the identity.
    coords = {"init": ["orthogonal", "identity"], "input_std": [0.01, 1.0]}
    more = xarray.DataArray([[0.15, -0.2], [-0.3, -0.3]], coords)
    is_tanh = xarray.DataArray([1.0, 0.0], {"activation": names})
    end = xarray.where(data.gain > 1.4, 5.0, 0.0) * xarray.DataArray([0, 1], {"activation": names})
    data = data.assign(
        rate=is_tanh * more + 0 * data.rate,
        log_size_half=0 * data.log_size_half,
        log_size_end=end + 0 * data.log_size_end,
    )
    claims = EXPERIMENT.claims(data)
    assert verdicts(claims) == {
        "tanh-longer-from-orthogonal": "supported",
        "relu-longer-from-orthogonal": "supported",
        "relu-longer-from-identity": "supported",
        "relu-blows-up": "supported",
    }
    assert [[number.value for number in claim.measured] for claim in claims[:3]] == [
        [0.15],
        [-0.2],
        [-0.3, -0.3],
    ]
    assert "with inputs of standard deviation 0.01, tanh keeps its" in claims[0].statement
    spoilt = data.rate.copy(deep=True)
    spoilt.loc[{"init": "identity", "input_std": 0.01, "activation": "tanh"}] = 1.0
    assert EXPERIMENT.claims(data.assign(rate=spoilt))[2].verdict == "not supported"
    assert [number.value for number in claims[-1].measured] == [1.4, 0.0]
    turned = EXPERIMENT.claims(data.assign_coords(activation=names[::-1]))
    assert [claim.verdict for claim in turned] == ["not supported"] * 4
    assert EXPERIMENT.claims(data.sel(activation=["relu"])) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"activations": ("rleu",)}, "'rleu'"),
        ({"activations": ()}, "Expected an activation and an initialiser, got activations="),
        ({"inits": ""}, "and inits=''. Try --activations=tanh --inits=orthogonal."),
        ({"inits": "orthogonl"}, "Unknown initialiser 'orthogonl'"),
        ({"input_stds": (1.0, 0.1)}, "Expected input_stds in ascending order, got"),
        ({"num_updates": 11}, "num_updates to be a positive multiple of eval_every=5"),
    ],
)
def test_bad_input_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        EXPERIMENT.run(quick(**given), study.call)
