"""The map of gradient flow: what it records, and what it says of a flow that is known."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from studies import load, verdicts

from gradflow import flow, study

QUARTER_LIFE = "def cell(input_size, hidden_size):\n" + "".join(
    f"    {line}\n"
    for line in (
        "import jax.numpy as jnp",
        "from gradflow import Cell",
        "def step(params, h, x):",
        "    h = params * h",
        "    return h, h",
        "init = lambda key: jnp.full(hidden_size, 0.25)",
        "return Cell(init, step, lambda: jnp.zeros(hidden_size))",
    )
)


flow_map = load("flow_map")
EXPERIMENT = flow_map.EXPERIMENT


def quick(**given):
    return flow_map.EXPERIMENT.resolve(given, quick=True)


def dataset_of(log_norm, lags=(1,)):
    """A record with log norms of shape (run, later, earlier)."""
    later = np.arange(log_norm.shape[-1])
    names = {"source": "h", "target": "h", "norm": "spectral", "units": "nats"}
    return xarray.Dataset(
        {"log_norm": (("run", "later", "earlier"), log_norm, names)},
        coords={"later": later, "earlier": later},
        attrs={"cell": "mine", "lags": list(lags), "num_networks": len(log_norm)},
    )


def lag_of(num_steps):
    t = np.arange(num_steps + 1)
    return np.where(t[:, None] >= t, t[:, None] - t, np.nan)


def test_a_run_has_every_pair_and_draws_its_figure(folder, dataset):
    assert dataset.log_norm.dims == ("run", "later", "earlier")
    assert dataset.log_norm.shape == (3, 21, 21)
    assert json.loads((folder / "config.json").read_text())["config"]["lags"] == [1, 5, 10]
    assert (folder / "figure.png").stat().st_size > 10_000


def test_a_leaky_unit_has_its_closed_form_and_is_stationary(tmp_path):
    path = tmp_path / "leaky.py"
    path.write_text(QUARTER_LIFE)
    dataset = flow_map.run(quick(cell=f"{path}:cell", num_seeds=2, num_sequences=2))
    assert dataset.sizes["run"] == 4
    expected = lag_of(20) * np.log(0.25)
    for values in dataset.log_norm.values:
        np.testing.assert_allclose(values, expected, atol=1e-12)
    assert flow_map.summary(dataset).count("0.2500 [0.2500, 0.2500]") == 2
    assert verdicts(flow_map.claims(dataset)) == {"stationary": "supported"}


def test_runs_differ_by_seed_and_by_sequence():
    values = flow_map.run(quick(num_seeds=2, num_sequences=2, num_steps=12)).log_norm.values
    across = [values[i, -1, 0] for i in range(4)]
    assert len(set(across)) == 4


def test_at_lag_and_mean_by_lag_read_the_right_pairs():
    t = np.arange(5)
    marked = np.where(t[:, None] >= t, 10.0 * t[:, None] + t, np.nan)[None]  # "tk" as a number
    dataset = dataset_of(marked)
    np.testing.assert_array_equal(flow_map.at_lag(dataset, 3), [[30, 41]])
    np.testing.assert_array_equal(flow_map.mean_by_lag(dataset, 2, 4), [[[33, 37.5, 42]]])


def test_a_decay_that_changes_in_the_middle_is_not_stationary():
    # Step t takes a factor of exp(-0.1) up to t = 10 and of exp(-0.3) from there on.
    noise = 1 + 0.01 * np.arange(-2, 3)[:, None]
    rates = noise * np.where(np.arange(1, 21) <= 10, -0.1, -0.3)
    path = np.concatenate([np.zeros((5, 1)), np.cumsum(rates, axis=1)], axis=1)
    log_norm = np.where(np.isfinite(lag_of(20)), path[:, :, None] - path[:, None, :], np.nan)
    changing = dataset_of(log_norm)
    assert f"that early in it: {np.exp(-0.2):.4f}" in flow_map.summary(changing)
    assert verdicts(flow_map.claims(changing)) == {"stationary": "not supported"}
    steady = np.where(np.isfinite(lag_of(20)), -0.1 * noise[:, None] * lag_of(20), np.nan)
    steady += 1e-3 * np.nan_to_num(np.tril(np.random.default_rng(0).normal(size=steady.shape)))
    assert verdicts(flow_map.claims(dataset_of(steady))) == {"stationary": "supported"}


def test_sequences_of_one_network_are_no_networks():
    noise = 1 + 0.01 * np.arange(4)[:, None, None]
    of_four = dataset_of(-0.1 * noise * lag_of(20))
    of_one = of_four.assign_attrs(num_networks=1)
    of_two = of_four.assign_attrs(num_networks=2)
    said = "(intervals over the input sequences of one network)"
    assert said in flow_map.summary(of_one)
    assert said not in flow_map.summary(of_four) + flow_map.summary(of_two)
    wider, narrower = (
        np.diff(flow.summary(flow_map.mean_by_lag(d, 0, 10)).interval) for d in (of_two, of_four)
    )
    assert wider > 3 * narrower


def test_one_run_leaves_it_undecided():
    found = flow_map.claims(dataset_of(-lag_of(20)[None]))
    assert verdicts(found) == {"stationary": "inconclusive"}


def test_exact_zeros_are_shown_in_a_colour_of_their_own_and_said_so():
    log_norm = -lag_of(20)
    log_norm[12:, :12] = -np.inf
    dataset = dataset_of(np.stack([log_norm] * 3), lags=(1, 3))
    drawn = flow_map.EXPERIMENT.draw(dataset)
    ax = drawn.subfigs[0].axes[0]
    finite, cut = (image.get_array() for image in ax.get_images())
    np.testing.assert_array_equal(~np.ma.getmaskarray(finite), np.isfinite(log_norm))
    np.testing.assert_array_equal(~np.ma.getmaskarray(cut), np.isneginf(log_norm))
    assert "grey: exactly 0" in ax.texts[0].get_text()
    whole = flow_map.EXPERIMENT.draw(dataset_of(-lag_of(20)[None]))
    assert "grey" not in whole.subfigs[0].axes[0].texts[0].get_text()


def test_the_norms_drawn_are_log10():
    dataset = dataset_of(np.stack([-np.log(10) * lag_of(20)] * 3), lags=(1, 3))
    left, right = flow_map.EXPERIMENT.draw(dataset).subfigs[1].axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), -np.arange(21))
    np.testing.assert_allclose(right.lines[1].get_ydata(), np.full(18, -3.0))
    np.testing.assert_array_equal(right.lines[1].get_xdata(), np.arange(3, 21))


def test_lags_that_no_pair_has_are_refused():
    with pytest.raises(
        ValueError, match=r"Expected lags below num_steps=20, got lags=\(30,\). Remove"
    ):
        flow_map.run(quick(lags=(30,)))


def test_the_record_is_in_the_precision_asked_for():
    with study.precision(quick(precision="float32")):
        assert flow_map.run(quick(precision="float32")).log_norm.dtype == jnp.float32
