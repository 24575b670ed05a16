"""The study of ReLU against tanh: its mixed cell, its paths counted by hand, and its verdicts."""

import itertools
import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from oracle import jit

from gradflow import study, unroll
from gradflow.cells import rnn

FILE = Path(__file__).parents[1] / "experiments" / "relu_vs_tanh.py"
module = SimpleNamespace(**runpy.run_path(str(FILE)))
EXPERIMENT = module.EXPERIMENT


def quick(**given):
    return EXPERIMENT.resolve(given, quick=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("relu_vs_tanh")
    for name in ("one", "two"):
        assert study.main(EXPERIMENT, ["--quick", f"--workdir={folder / name}"]) == 0
    return folder / "one", folder / "two"


@pytest.fixture(scope="module")
def dataset(folders):
    return study.read_dataset(folders[0] / "result.nc")


def test_the_same_command_gives_the_same_bits_and_a_figure(folders):
    one, two = ((folder / "result.nc").read_bytes() for folder in folders)
    assert one == two
    assert (folders[0] / "figure.png").stat().st_size > 20_000


def test_the_mixed_cell_is_the_plain_net_of_its_activation(key):
    names = ("tanh", "relu")
    params, x = rnn(2, 3).init(key), jax.random.normal(key, (5, 2))

    def loss(cell, params):
        return jnp.sum(unroll(cell, params, x).outputs ** 3)

    def both(params):
        mixed = [
            jax.value_and_grad(lambda p: loss(module.mixed(names, 2, 3), p))(
                {"phi": jnp.asarray(index), "net": params}
            )
            for index in (0.0, 1.0)
        ]
        plain = [
            jax.value_and_grad(lambda p, name=name: loss(rnn(2, 3, activation=name), p))(params)
            for name in names
        ]
        return mixed, plain

    for (value, slope), (expected, gradient) in zip(*jit(both)(params), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), slope["net"], gradient
        )
        assert slope["phi"] == 0


def test_live_paths_are_those_that_are_counted_one_by_one():
    rng = np.random.default_rng(0)
    W_h = rng.normal(size=(3, 3)) * np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]])
    slopes = rng.normal(size=(4, 3)) * np.array([[1, 0, 1], [1, 1, 1], [1, 1, 0], [0, 1, 1]])
    expected = [1.0]
    for lag in range(1, 5):
        chains = itertools.product(range(3), repeat=lag + 1)
        paths = [c for c in chains if all(W_h[j, i] for i, j in itertools.pairwise(c))]
        live = [c for c in paths if all(slopes[4 - lag + n, i] for n, i in enumerate(c[1:]))]
        expected.append(len(live) / len(paths))
    found = module.log_live_paths(jnp.asarray(W_h), jnp.asarray(slopes))
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-12)
    slopes[1] = 0
    found = module.log_live_paths(jnp.asarray(W_h), jnp.asarray(slopes))
    np.testing.assert_array_equal(np.isfinite(found), [True, True, True, False, False])


def test_the_record_is_that_of_plain_nets(dataset):
    config = quick()
    k_params, k_inputs = jax.random.split(jax.random.key(0))
    cell = rnn(2, 6, activation="relu")
    params = cell.init(jax.random.split(k_params, 2)[1])
    x = jax.random.normal(k_inputs, (2, config.num_steps, 2))[1]
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


def test_the_sweep_of_a_linear_net_grows_by_the_gain(dataset):
    linear = dataset.sel(activation="identity")
    expected = 12 * np.log(dataset.gain) + 0.5 * math.log(6)
    np.testing.assert_allclose(linear.log_norm_end, np.tile(expected, (2, 1)), atol=1e-9)
    tanh = dataset.sel(activation="tanh")
    assert float(tanh.log_size_end.max()) < 0
    unscaled = dataset.log_size.sel(init="orthogonal").isel(step=-1)
    np.testing.assert_allclose(dataset.log_size_end.sel(gain=1.0), unscaled, rtol=1e-9)


def test_initialisers_are_in_the_order_in_which_they_are_given(dataset):
    assert list(dataset.init.values) == ["orthogonal", "identity"]  # the first of which is swept


def test_training_goes_by_activation_and_initialiser(dataset):
    loss = dataset.loss
    assert np.isfinite(loss).all() and bool((loss.isel(update=-1) != loss.isel(update=0)).all())
    final = loss.isel(update=0).values.reshape(-1)
    assert len(np.unique(final.round(9))) == final.size  # no two runs are the same net


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
    blown, exploded = module.blown_up(data), module.exploded(data)
    np.testing.assert_array_equal(blown, [[False, True, True], [False, False, False]])
    np.testing.assert_array_equal(exploded, [[False, True, True], [False, False, False]])
    np.testing.assert_array_equal(module.boundaries(blown), [1.5, inf])
    assert module.boundaries(data.log_size_end > 2)[0] == 0.5


def test_the_verdict_is_read_from_the_numbers(dataset):
    names = ["tanh", "relu"]
    data = dataset.sel(activation=names).assign_coords(gain=[0.5, 1, 1.3, 1.5, 2, 3])
    fall = xarray.DataArray([[-0.2, -0.3], [-0.35, 0.0]],
                            {"activation": names, "init": ["orthogonal", "identity"]})  # fmt: skip
    end = xarray.where(data.gain > 1.4, 5.0, 0.0) * xarray.DataArray([0, 1], {"activation": names})
    data = data.assign(
        log_norm=fall * data.lag + 0 * data.log_norm,
        log_size_half=0 * data.log_size_half,
        log_size_end=end + 0 * data.log_size_end,
    )
    closing = EXPERIMENT.closing(data)
    assert closing.count("not supported") == 0 and closing.count("supported") == 3
    assert "from orthogonal: supported (0.150 [0.150, 0.150] nats a step; runs cut" in closing
    assert "relu's from 1.40 [1.40, 1.40], 2 of 2 runs; tanh's: none, 0 of 2 runs" in closing
    turned = data.assign_coords(activation=names[::-1])
    assert EXPERIMENT.closing(turned).count("not supported") == 3
    assert "supported" not in EXPERIMENT.closing(data.sel(activation=["relu"]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"activations": ("rleu",)}, "'rleu'"),
        ({"activations": ()}, "an activation and an initialiser, at least, are expected"),
        ({"inits": ""}, "are expected, got .* and inits=''; try tanh and orthogonal"),
        ({"inits": "orthogonl"}, "unknown initialiser 'orthogonl'"),
        ({"num_updates": 11}, "num_updates is expected to be a multiple of eval_every=5"),
    ],
)
def test_what_cannot_be_run_is_said(given, message):
    with pytest.raises(ValueError, match=message):
        EXPERIMENT.run(quick(**given), study.call)
