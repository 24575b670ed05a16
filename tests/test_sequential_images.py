"""The study of images read pixel by pixel: its numbers by NumPy, its claims, bad input."""

import struct

import jax
import numpy as np
import pytest
import xarray
from studies import load

from gradflow import study
from gradflow.cells import resolve
from gradflow.interop import read_description, read_params
from gradflow.tasks.image_tasks import digit_sequences, digits

MODULE = load("sequential_images")
EXPERIMENT = MODULE.EXPERIMENT
IMAGES = digit_sequences("test", permuted=True)
FLAGS = ["--quick", "--cells=tanh", "--orders=permuted", "--hidden_size=5", "--probe=log_norms"]


@pytest.fixture(scope="module")
def trained(folder):
    path = folder / "params" / "tanh_permuted.safetensors"
    about = read_description(path)
    assert about == ("rnn(recurrent_init='glorot')", 1, 5)
    like = resolve(about.cell)(1, 5).init
    return read_params(path, jax.eval_shape(like, jax.random.key(0)))


def states(params, image):
    """h_0 ... h_T of one image, by hand."""
    W_x, W_h, b = (np.asarray(params[name], np.float64) for name in ("W_x", "W_h", "b"))
    h = [np.zeros(5)]
    for x in image / 16:
        h.append(np.tanh(W_x[:, 0] * x + W_h @ h[-1] + b))
    return W_h, h


def test_the_flow_after_training_is_the_product_of_the_jacobians(dataset, trained):
    W_h, h = states(trained, IMAGES.pixels[1])
    product, expected = np.eye(5), [0.0]
    for h_t in h[:0:-1]:
        product = product @ (np.diag(1 - h_t**2) @ W_h)
        expected.append(np.log(np.linalg.norm(product, 2)))
    found = dataset.log_norm.sel(stage="trained").isel(order=0, cell=0, seed=0, image=1)
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    change = dataset.log_norm.sel(stage="trained") - dataset.log_norm.sel(stage="initialisation")
    assert bool((abs(change).isel(lag=-1) > 1e-6).all())


def test_the_last_probe_is_the_flow_of_the_trained_network(dataset, trained):
    with jax.enable_x64(False):  # as in the run: 64 bits draw other images
        batch = digits(permuted=True).sample(jax.random.key(0), 2)
    norms = []
    for image in np.asarray(batch.inputs[..., 0], np.float64).T:
        W_h, h = states(trained, 16 * image)
        product, found = np.eye(5), [0.0]
        for h_t in h[:0:-1]:
            product = product @ (np.diag(1 - h_t**2) @ W_h)
            found.append(np.log(np.linalg.norm(product, 2)))
        norms.append(found)
    found = dataset.log_norms.isel(order=0, cell=0, seed=0, probe_update=-1)
    np.testing.assert_allclose(found, np.median(norms, axis=0), rtol=1e-6)


def test_the_accuracy_is_that_of_all_held_out_images(dataset, folder):
    number = dataset.held_out_accuracy * 360
    assert np.isclose(number, number.round()).all()
    cell = resolve("irnn")(1, 3)
    rng = np.random.default_rng(0)
    shapes = {"W_x": (3, 1), "W_h": (3, 3), "b": (3,)}
    params = {name: rng.normal(size=(2, *shape)) for name, shape in shapes.items()}
    readout = {"W": rng.normal(size=(2, 10, 3)), "b": rng.normal(size=(2, 10))}
    h = np.zeros((360, 3))
    for x in IMAGES.pixels.T / 16:
        h = np.maximum(x[:, None] * params["W_x"][1].T + h @ params["W_h"][1].T + params["b"][1], 0)
    classes = (h @ readout["W"][1].T + readout["b"][1]).argmax(axis=1)
    both = {"cell": params, "readout": readout}
    found = MODULE.accuracy(cell, both, IMAGES)
    assert found[1] == np.mean(classes == IMAGES.labels)


def test_the_claims_are_decided_by_the_numbers(dataset):
    lift = dataset.log_norm.copy()
    lift.loc[{"stage": "trained"}] = lift.sel(stage="initialisation").values + 1

    def two_cells(tanh, gru, log_norm):
        parts = [
            dataset.assign(
                held_out_accuracy=dataset.held_out_accuracy * 0 + value, log_norm=log_norm
            ).assign_coords(cell=[name])
            for name, value in (("tanh", tanh), ("gru", gru))
        ]
        return xarray.concat(parts, dim="cell").assign_attrs(data="mnist")

    def verdicts(*given):
        return [claim.verdict for claim in EXPERIMENT.claims(two_cells(*given))]

    yes, no, unknown = "supported", "not supported", "inconclusive"
    assert verdicts(0.9, 0.96, lift) == [yes] * 3
    assert verdicts(0.9, 0.94, 2 * dataset.log_norm - lift)[0] == no
    assert verdicts(0.96, 0.97, lift) == [no, yes, yes]
    assert verdicts(0.9, 0.96, dataset.log_norm * 0) == [yes, unknown, unknown]
    seeds = xarray.DataArray([-0.02, 0.02], dims="seed")
    assert verdicts(0.9, 0.96 + seeds, lift)[0] == unknown
    (alone,) = EXPERIMENT.claims(dataset)
    assert alone.id == "training-lifts-tanh"
    assert "0.793" in EXPERIMENT.summary(two_cells(0.9, 0.96, lift))  # published on MNIST


def test_mnist_is_read_and_the_long_form_has_its_sizes(tmp_path, monkeypatch):
    for split, size in (("train", 12), ("t10k", 7)):
        for name, shape in (("images-idx3", (size, 2, 2)), ("labels-idx1", (size,))):
            header = struct.pack(f">{1 + len(shape)}I", 2048 + len(shape), *shape)
            content = np.arange(np.prod(shape), dtype=np.uint8) % 10
            (tmp_path / f"{split}-{name}-ubyte").write_bytes(header + content.tobytes())
    given = {"data": "mnist", "data_dir": str(tmp_path), "cells": "lstm"}
    seen = []

    def measure(sizes, place, cell, found, folder):
        seen.append((sizes, place, found))
        raise KeyboardInterrupt

    monkeypatch.setitem(EXPERIMENT.run.__globals__, "_measure", measure)
    with pytest.raises(KeyboardInterrupt):
        EXPERIMENT.run(EXPERIMENT.resolve(given, full=True), study.call)
    ((sizes, place, found),) = seen
    assert place == ("plain", "lstm") and sizes.num_updates == EXPERIMENT.full["num_updates"]
    assert found.task.num_steps == 4 and len(found.held_out.labels) == 7


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cells": ""}, "Expected the name of a cell, got ''"),
        ({"cells": "lsmt"}, "Unknown cell 'lsmt'"),
        ({"orders": ("plane",)}, "Unknown order of the pixels 'plane'. Did you mean 'plain'"),
        ({"orders": ()}, "Expected an order of the pixels, got none. Try --orders=plain."),
        ({"num_updates": 7}, "Expected num_updates to be a multiple of num_evaluations=3, got 7"),
        ({"data": "mnist"}, "Expected a folder with the file 'train-images-idx3-ubyte.gz'"),
    ],
)
def test_bad_input_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        EXPERIMENT.run(EXPERIMENT.resolve(given, quick=True), study.call)


@pytest.mark.slow  # two networks of the default size are trained: about a minute
def test_a_gated_cell_classifies_more_of_the_digits_than_tanh():
    config = EXPERIMENT.resolve({"cells": "tanh,gru", "orders": ("plain",)})
    with study.precision(config):
        accuracy = (
            EXPERIMENT.run(config, study.call).held_out_accuracy.mean("seed").sel(order="plain")
        )
    assert float(accuracy.sel(cell="gru")) > max(0.93, float(accuracy.sel(cell="tanh")))
