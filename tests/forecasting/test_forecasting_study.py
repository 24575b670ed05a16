"""The study of forecasting: its training against a plain loop, its record, and its claims."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray
from studies import load_part, verdicts

from gradflow import flow, study
from gradflow.interop import read_params
from gradflow.tasks import forecasting as f

RATIOS = load_part("forecasting.ratios")
NETS, TRAINING = load_part("forecasting.forecasters"), load_part("forecasting.training")
dense, forecaster, Forecasting, Plan = (
    NETS.dense,
    NETS.forecaster,
    TRAINING.Forecasting,
    TRAINING.Plan,
)
EXPERIMENT = load_part("forecasting.study").EXPERIMENT
AHEAD = 10
FLAGS = ["--quick", "--models=naive,linear,dense,rnn", "--num_windows=64", "--probe=log_norms"]


def walk(num_steps: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=num_steps).cumsum()


def test_every_run_is_trained_as_if_it_were_alone():
    series = np.stack([np.sin(np.arange(9) * (1 + 0.1 * n)) for n in range(40)])
    part = f.windows(series, 2)
    data = f.Split(part, part, part)
    net = dense(7, 3, 2)
    plan = Plan(num_epochs=2, batch_size=8, num_windows=32, learning_rate=0.05, num_seeds=2, seed=4)
    training = Forecasting(net, {"one": data, "direct": data}, plan)
    fitted, probes = training.fit()
    assert not probes

    first = training.init(jax.random.fold_in(jax.random.key(4), 0))
    adam = optax.adam(0.05, eps=1e-7)

    def loss(params, x, y):
        errors = (net.apply(params, x.T[:, :, None])[-1] - y[:, -1]) ** 2
        return jnp.mean(errors[:, 0]) if task == "one" else jnp.mean(errors)

    gradient = jax.jit(jax.grad(loss))
    for run, (task, seed) in enumerate([("one", 0), ("one", 1), ("direct", 0), ("direct", 1)]):
        gradient = jax.jit(jax.grad(loss)) if run in (0, 2) else gradient
        params = jax.tree.map(lambda a, run=run: a[run], first)
        memory = adam.init(params)
        for epoch in range(2):
            for x, y in training.batches(epoch):
                steps, memory = adam.update(gradient(params, x[run], y[run]), memory, params)
                params = optax.apply_updates(params, steps)
        for found, expected in zip(
            jax.tree.leaves(fitted[task]), jax.tree.leaves(params), strict=True
        ):
            np.testing.assert_allclose(found[seed], expected, rtol=1e-7, atol=1e-9)
    x = part.inputs[:3]
    steps = training.forecast(fitted["one"], x, iterated=True)
    again = training.forecast(fitted["one"], np.concatenate([x[:, 1:], steps[1, :, :1]], axis=1))
    np.testing.assert_allclose(steps[1, :, 1], again[1, :, 0], rtol=1e-9)


def test_each_task_weights_its_own_steps_of_the_loss():
    part = f.windows(np.zeros((4, 11)), 3)
    data = {task: f.Split(part, part, part) for task in ("one", "direct", "seq2seq")}
    plan = Plan(num_epochs=1, batch_size=4, num_windows=4)
    one, direct, every = Forecasting(forecaster("rnn", 2, 3), data, plan).weights(8)
    assert one[-1, 0] == 1 and one.sum() == 1
    np.testing.assert_allclose(direct, np.eye(8)[-1][:, None] * np.full((1, 3), 1 / 3))
    np.testing.assert_allclose(every, 1 / 24)
    assert Forecasting(forecaster("conv(cell='rnn')", 2, 3), data, plan).weights(8).shape[1] == 3
    with pytest.raises(ValueError, match="Unknown task of forecasting 'two'"):
        Forecasting(forecaster("rnn", 2, 3), {"two": data["one"]}, plan)


def test_the_record_and_the_trained_cell(folder, dataset):
    assert dataset.mse.sel(model="rnn").notnull().all()
    assert dataset.mse.sel(model="dense", column="seq2seq").isnull().all()
    ten = f.windows(f.two_sines(10_000, 30), AHEAD)
    x, y = (values[7000:9000].astype(float) for values in (ten.inputs, ten.targets[:, -1]))
    naive = dataset.mse.sel(model="naive", column="direct")
    np.testing.assert_allclose(naive, np.mean((x[:, -1:] - y) ** 2), rtol=1e-6)
    np.testing.assert_array_equal(dataset.history[0], ten.inputs[9000])
    shapes = jax.eval_shape(forecaster("rnn", 4, AHEAD).cell.init, jax.random.key(0))
    read_params(folder / "params" / "rnn.safetensors", shapes)
    np.testing.assert_allclose(dataset.log_norm.sel(model="rnn", lag=0), 0, atol=1e-12)


def test_the_last_probe_is_the_flow_through_the_trained_network(folder, dataset):
    cell = forecaster("rnn", 4, AHEAD).cell
    shapes = jax.eval_shape(cell.init, jax.random.key(0))
    params = read_params(folder / "params" / "rnn.safetensors", shapes)
    params = jax.tree.map(lambda a: np.asarray(a, float), params)
    x = f.windows(f.two_sines(10_000, 30), AHEAD).inputs[7000:9000]
    x = x[np.linspace(0, 1999, 8).astype(int)].astype(float)
    curves = jax.jit(jax.vmap(lambda one: flow.log_norms(cell, params, one[:, None])))(x)
    found = dataset.log_norms.sel(model="rnn").isel(seed=0, probe_epoch=-1)
    np.testing.assert_allclose(found, np.median(curves, axis=0)[:-1], rtol=1e-8, atol=1e-12)
    assert dataset.log_norms.sel(model="dense").isnull().all()


def test_the_claims_are_decided_by_the_numbers(dataset):
    published = dataset.pad(step=(30, 0))  # as if the windows were the published ones

    def claims(at_once, autoregressive):
        errors = dataset.mse * 0 + at_once
        errors.loc[{"column": ["iterated", "own"]}] = autoregressive
        return EXPERIMENT.claims(published.assign(mse=errors))

    yes, no = "supported", "not supported"
    found = claims(0.01, 0.02)
    assert verdicts(found) == {
        "naive-as-published": no,
        "linear-one-step": no,
        "ten-at-once": yes,
        "at-once-other-networks": yes,
        "at-once-same-networks": yes,
    }
    np.testing.assert_allclose([number.value for number in found[-1].measured], 2, rtol=1e-3)
    assert list(verdicts(claims(0.01, 0.005)).values())[-2:] == [no, no]
    assert list(verdicts(claims(0.01, 0.01)).values())[-2:] == ["inconclusive"] * 2
    shorter = verdicts(EXPERIMENT.claims(dataset))
    assert list(shorter) == ["at-once-other-networks", "at-once-same-networks"]


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [(-1.0, "supported"), (1.0, "not supported"), (0.0, "inconclusive")],
)
def test_further_is_better_where_horizon_and_error_are_in_opposite_order(errors, verdict):
    horizons, alternating = np.arange(8.0), (-1.0) ** np.arange(8)
    ordered = errors * horizons + (errors == 0) * alternating
    further_is_better = load_part("forecasting.reach").further_is_better
    (claim,) = further_is_better("reach", "", horizons, ordered)
    assert claim.verdict == verdict
    assert not list(further_is_better("reach", "", horizons * np.nan, ordered))


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    path, values = folder / "s.csv", np.exp(0.05 * walk(300))
    path.write_text("price\n" + "\n".join(map(repr, values.tolist())))
    flags = ["--quick", "--models=naive,seasonal,linear,dense", "--period=12", "--returns"]
    assert study.main(EXPERIMENT, [*flags, f"--series={path}:price", f"--workdir={folder}/o"]) == 0
    return study.read_dataset(folder / "o" / "result.nc"), values


def test_the_errors_of_rolling_origins_are_those_of_a_loop(real):
    dataset, values = real
    returns = 100 * np.diff(np.log(values))
    for origin in (239, 250, 289):
        ahead = values[origin + 1 : origin + 11]
        at = dataset.sel(origin=origin, view="level")
        np.testing.assert_allclose(at.truth, ahead)
        np.testing.assert_allclose(at.square.sel(model="naive"), (ahead - values[origin]) ** 2)
        season = values[origin - 11 : origin - 1]
        np.testing.assert_allclose(at.forecast.sel(model="seasonal"), season)
    changes = dataset.sel(view="returns", model="naive", origin=250)
    np.testing.assert_allclose(changes.square, returns[250:260] ** 2, rtol=1e-9)
    moved = np.diff(values)[dataset.sel(view="returns").dropna("origin", how="all").origin]
    found = RATIOS.price_error(dataset.sel(view="returns"), "naive")
    assert found == pytest.approx(np.sqrt(np.mean(moved**2)))


def test_what_beats_the_naive_forecast_is_claimed(real):
    dataset, _ = real
    assert EXPERIMENT.draw(dataset) and "[nan, nan]" in EXPERIMENT.summary(dataset)  # one block
    assert set(verdicts(EXPERIMENT.claims(dataset)).values()) == {"inconclusive"}
    dataset = xarray.concat([dataset] * 3, dim="origin", data_vars="minimal")
    square = dataset.square.copy()

    def outcome(linear):
        square.loc[{"model": "linear"}] = linear * square.sel(model="naive")
        square.loc[{"model": ["dense", "seasonal"]}] = 2 * square.sel(model="naive")
        changed = dataset.assign(square=square)
        return EXPERIMENT.summary(changed), EXPERIMENT.claims(changed)

    names = [f"beats-baselines-{view}-{when}" for view in ("level", "returns")
             for when in ("one-step-ahead", "over-10-steps")]  # fmt: skip
    summary, found = outcome(0.5)
    assert summary.count("Better than the naive forecast one step ahead: linear.") == 2
    season = "Better than that of a season before over 10 steps: naive, linear."
    assert summary.count(season) == 2
    assert verdicts(found) == dict.fromkeys(names, "supported")
    for claim in found:
        naive, seasonal = claim.measured
        assert naive.value == 0.5 and seasonal.value == pytest.approx(0.25)
        assert "of linear over the naive forecast" in naive.name
    summary, found = outcome(1.0)
    assert summary.count("Better than the naive forecast one step ahead: none.") == 2
    assert verdicts(found) == dict.fromkeys(names, "inconclusive")
    assert verdicts(outcome(1.5)[1]) == dict.fromkeys(names, "not supported")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--models=linear"], "Expected naive among the models"),
        (["--models=naive,arima"], "arima needs a real series, and this one is generated"),
        (["--models=naive,lsmt"], "Unknown cell 'lsmt'"),
        (["--series=no.csv:x"], "Expected PATH:COLUMN of a CSV file, got 'no.csv:x'"),
        (["--data=sunspots"], "with the file 'SN_m_tot_V2.0.csv', got none"),
        (["--series=FILE:x", "--returns"], "Expected positive values for returns, got -3"),
        (["--series=FILE:y"], "Expected a series that varies, got 1.0 throughout"),
        (
            ["--series=FILE:x", "--models=naive,seasonal"],
            "Expected the period of the seasonal naive",
        ),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, flags, message):
    file = tmp_path / "f.csv"
    file.write_text("x,y\n" + "\n".join(f"{-3 + n % 7},1" for n in range(300)))
    flags = [flag.replace("FILE", str(file)) for flag in flags]
    assert study.main(EXPERIMENT, ["--quick", *flags, f"--workdir={tmp_path}/out"]) == 1
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1


@pytest.mark.slow  # a net of the default size is trained for three tasks: less than a minute
def test_the_headline_numbers_are_reached():
    config = EXPERIMENT.resolve({"models": "naive,linear,deep_rnn"})
    with study.precision(config):
        dataset = EXPERIMENT.run(config, study.call)
    errors = dataset.mse.median("seed")
    naive = errors.sel(model="naive", column=["one", "direct"])
    np.testing.assert_allclose(naive, [0.020211, 0.256974], rtol=0, atol=5e-7)
    assert round(float(errors.sel(model="linear", column="one")), 4) <= 0.0029
    deep = errors.sel(model="deep_rnn")
    assert float(deep.sel(column="one")) <= 0.0033 and float(deep.sel(column="direct")) <= 0.012
    assert float(deep.sel(column="iterated")) > 2 * float(deep.sel(column="direct"))
