"""The zoo: what it measures, draws and says, and that each of its cells goes elsewhere as well."""

import dataclasses
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow import flow
from gradflow.cells import CELLS, rnn

ROOT = Path(__file__).parents[1]
ZOO = runpy.run_path(str(ROOT / "experiments" / "cell_zoo.py"))
VANISHING = runpy.run_path(str(ROOT / "experiments" / "vanishing.py"))
CUT = "masked(pattern='indirect', num_layers=3)"  # exactly 0 from lag 3
QUICK = dataclasses.replace(
    ZOO["Config"](), **ZOO["EXPERIMENT"].quick | {"cells": f"rnn,{CUT},orthogonal"}
)


@pytest.fixture(scope="module")
def dataset():
    return ZOO["run"](QUICK)


def test_a_curve_is_the_norm_of_that_cell_at_birth(dataset):
    cell = rnn(QUICK.input_size, QUICK.hidden_size)
    k_params, k_inputs = jax.random.split(jax.random.key(QUICK.seed))
    params = cell.init(jax.random.split(k_params, QUICK.num_seeds)[1])
    W_x, W_h = np.asarray(params["W_x"]), np.asarray(params["W_h"])
    x = jax.random.normal(k_inputs, (QUICK.num_seeds, QUICK.num_steps, QUICK.input_size))
    h, jacobians, product = np.zeros(QUICK.hidden_size), [], np.eye(QUICK.hidden_size)
    for x_t in np.asarray(x[1]):
        h = np.tanh(W_x @ x_t + W_h @ h)
        jacobians.append((1 - h**2)[:, None] * W_h)
    expected = [0.0]
    for J in reversed(jacobians):
        product = product @ J
        expected.append(np.log(np.linalg.norm(product, 2)))
    np.testing.assert_allclose(dataset.log_norm.sel(cell="rnn")[1], expected, atol=1e-9)


def test_the_same_cells_give_the_same_bits(dataset):
    again = ZOO["run"](dataclasses.replace(QUICK, cells=f"{CUT},rnn"))
    for spec in (CUT, "rnn"):
        one, two = (d.log_norm.sel(cell=spec).values for d in (again, dataset))
        assert one.tobytes() == two.tobytes()


def test_the_table_and_the_panels_are_sorted_by_horizon(dataset):
    rows = ZOO["summary"](dataset).splitlines()[2:]
    order = [next(c for c in dataset.cell.values if row.startswith(c)) for row in rows]
    horizons = [flow.summary(dataset.log_norm.sel(cell=c).values).horizon for c in order]
    assert horizons == sorted(horizons, reverse=True) and order[-1] == CUT
    assert horizons[-1] == 3 and horizons[0] == np.inf
    assert "> 20" in rows[0] and rows[-1].split()[-4] == "3"
    panels = ZOO["figure"](dataset).axes
    assert [ax.get_title().replace("\n", "") for ax in panels] == order
    assert all(ax.get_ylim() == (-20, 5) for ax in panels)
    line = panels[-1].lines[0].get_ydata()
    assert np.isfinite(line[:3]).all() and np.isnan(line[3:]).all()  # a gap, not a floor


def test_all_is_every_cell(monkeypatch):
    measured = []
    monkeypatch.setitem(
        ZOO["run"].__globals__, "_measure", lambda config, spec, cell: measured.append(spec)
    )
    monkeypatch.setattr("xarray.concat", lambda parts, dim: None)
    ZOO["run"](ZOO["Config"]())
    assert set(CELLS) < set(measured) and len(set(measured)) == len(measured)


@pytest.mark.parametrize(
    "cells, message",
    [
        ("lsmt", "unknown cell 'lsmt': did you mean 'lstm'"),
        ("gru(peephole=True)", "cell 'gru' has no option 'peephole'; it takes"),
        (" , ", "names of cells are expected, got ' , '; try all"),
    ],
)
def test_cells_that_are_not_there_are_refused(cells, message):
    with pytest.raises(ValueError, match=message):
        ZOO["run"](dataclasses.replace(QUICK, cells=cells))


@pytest.mark.parametrize("spec", [*sorted(CELLS), *ZOO["VARIANTS"], "stack(cells='gru,gru,rnn')"])
def test_every_cell_goes_through_the_vanishing_experiment(spec, monkeypatch):
    """All but the numbers, which are held elsewhere: traced and not compiled."""

    def traced(function):
        shapes = lambda *arguments: jax.eval_shape(function, *arguments)  # noqa: E731
        return lambda *a: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes(*a))

    monkeypatch.setattr(jax, "jit", traced)
    config = VANISHING["Config"](cell=spec, hidden_size=6, num_steps=4, num_seeds=1)
    dataset = VANISHING["run"](config)
    assert list(dataset.cell.values) == [spec] and dataset.log_norm.shape == (1, 1, 5)
