"""A dataset of `gradflow.measure` plots itself."""

import importlib
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import gradflow
from gradflow.cells import lstm

CELL = lstm(2, 3)
INPUTS = jax.random.normal(jax.random.key(1), (6, 2))
WHAT = ["log_norms", "log_norm_map", "log_singular_values", "gates"]


@pytest.fixture(scope="module")
def dataset():
    return gradflow.measure(CELL, CELL.init(jax.random.key(0)), INPUTS, what=WHAT)


def test_it_draws_norms_a_map_a_spectrum_and_gates(dataset):
    assert dataset.flow.measurements == WHAT
    panels = [ax for ax in dataset.flow.plot().axes if ax.get_title("left")]
    assert [ax.get_title("left") for ax in panels] == [
        "Norms",
        "Norm map",
        "Singular values",
        "Gates",
    ]
    norms, image, spectrum, gates = panels
    drawn = norms.lines[0].get_ydata()
    np.testing.assert_allclose(drawn, dataset.log_norms / np.log(10), atol=1e-12)
    assert len(image.images) == 1 and len(spectrum.lines) == 3 and len(gates.lines) == 4


def test_it_draws_what_is_asked_for_over_runs_and_shows_itself():
    params = jax.vmap(CELL.init)(jax.random.split(jax.random.key(0), 2))
    found = gradflow.measure(CELL, params, jnp.stack([INPUTS, 2 * INPUTS]), what=WHAT, runs=True)
    picture = found.flow.plot(["gates"])
    assert picture.get_suptitle() == "median and 10–90 % over 2 runs"
    assert picture._repr_png_()[:4] == b"\x89PNG"


def test_bad_requests_are_refused(dataset):
    with pytest.raises(ValueError, match="Unknown measurement of this dataset 'gate'. Did you m"):
        dataset.flow.plot(["gate"])
    with pytest.raises(ValueError, match=r"Expected a dataset of gradflow.measure, got .*\['a'\]"):
        xarray.Dataset({"a": 1}).flow.plot()


def test_loading_it_again_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.reload(sys.modules["gradflow.report.accessor"])


def test_measuring_imports_no_matplotlib():
    code = "import gradflow, sys; gradflow.measure; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
