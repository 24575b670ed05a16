"""The zoo: what it measures, draws and says, and that each of its cells goes elsewhere as well."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from studies import load, one_run, verdicts

from gradflow import flow
from gradflow.cells import CELLS, rnn

ZOO = vars(load("cell_zoo"))
VANISHING = vars(load("vanishing"))
CUT = "masked(pattern='indirect', num_layers=3)"  # exactly 0 from lag 3
QUICK = dataclasses.replace(
    ZOO["Config"](), **ZOO["EXPERIMENT"].quick | {"cells": f"rnn,{CUT},orthogonal"}
)


@pytest.fixture(scope="module")
def dataset():
    return ZOO["run"](QUICK)


def test_a_curve_is_the_norm_of_that_cell_at_initialisation(dataset):
    cell = rnn(QUICK.input_size, QUICK.hidden_size)
    params, x = one_run(QUICK, cell, 1)
    W_x, W_h = np.asarray(params["W_x"]), np.asarray(params["W_h"])
    h, jacobians, product = np.zeros(QUICK.hidden_size), [], np.eye(QUICK.hidden_size)
    for x_t in np.asarray(x):
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
    *rows, sentence = ZOO["summary"](dataset).splitlines()[2:]
    assert sentence.endswith("in some runs of 1 of 3 cells.")
    order = [next(c for c in dataset.cell.values if row.startswith(c)) for row in rows]
    horizons = [flow.summary(dataset.log_norm.sel(cell=c).values).horizon for c in order]
    assert horizons == sorted(horizons, reverse=True) and order[-1] == CUT
    assert horizons[-1] == 3 and horizons[0] == np.inf
    assert "> 20" in rows[0] and rows[-1].endswith("3 of 3")
    assert "0 of 3" in rows[0]
    panels = ZOO["figure"](dataset).axes
    assert [ax.get_title().replace("\n", "") for ax in panels] == order
    assert all(ax.get_ylim() == (-20, 5) for ax in panels)
    line = panels[-1].lines[0].get_ydata()
    assert np.isfinite(line[:3]).all() and np.isnan(line[3:]).all()  # a gap, not a floor


def test_the_runs_that_are_cut_are_counted_and_drawn(dataset):
    values = dataset.log_norm.copy()
    values.loc[{"cell": "rnn", "run": 1, "lag": slice(10, None)}] = -np.inf
    changed = dataset.assign(log_norm=values)
    row = next(r for r in ZOO["summary"](changed).splitlines() if r.startswith("rnn"))
    assert row.endswith("1 of 3")
    titles = {ax.get_title(): ax for ax in ZOO["figure"](changed).axes}
    assert titles["rnn"].texts[0].get_text().endswith("1 of 3 cut")


def record_of(norms, gated):
    """A record of cells with these log10 norms at the longest lag, of which some have gates."""
    curves = (
        np.log(10) * np.asarray(norms)[:, None, None] * np.linspace(0, 1, 11) * np.ones((1, 3, 1))
    )
    names = [f"cell{i}" for i in range(len(norms))]
    return xarray.Dataset(
        {"log_norm": (("cell", "run", "lag"), curves)},
        coords={"cell": names, "gated": ("cell", gated), "lag": np.arange(11)},
    )


def test_the_claims_are_decided_by_the_norms_at_the_longest_lag():
    of = lambda *record: list(verdicts(ZOO["claims"](record_of(*record))).values())  # noqa: E731
    gated = [True, True, False, False]
    assert of([-12, -2, -8, 1], gated) == ["supported", "supported"]
    assert of([-4, -3, -2, 1], gated) == ["not supported", "not supported"]
    assert of([-12, -2, -8, 1], [True] * 4) == ["supported"]


def test_all_is_every_cell(monkeypatch):
    measured = []
    monkeypatch.setitem(
        ZOO["run"].__globals__, "_measure", lambda config, spec, cell: measured.append(spec)
    )
    monkeypatch.setattr("xarray.concat", lambda parts, dim: xarray.Dataset())
    ZOO["run"](ZOO["Config"]())
    assert set(CELLS) < set(measured) and len(set(measured)) == len(measured)


@pytest.mark.parametrize(
    "cells, message",
    [
        ("lsmt", "Unknown cell 'lsmt'. Did you mean 'lstm'"),
        ("gru(peephole=True)", "Unknown option 'peephole' of cell 'gru'. Known: "),
        (" , ", "Expected the name of a cell, got ' , '. Try all."),
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
