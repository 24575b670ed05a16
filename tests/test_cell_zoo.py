"""The zoo: what it measures, draws and says, and that each of its cells goes elsewhere as well."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from products import step_jacobians
from studies import load, one_run, verdicts

from gradflow.cells import CELLS, lstm, rnn
from gradflow.spec import parse_spec

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


def test_a_cell_with_two_states_is_judged_by_both():
    config = dataclasses.replace(QUICK, cells="lstm", num_steps=5)
    cell = lstm(QUICK.input_size, QUICK.hidden_size)
    params, x = one_run(config, cell, 1)
    product = np.linalg.multi_dot(step_jacobians(cell, params, x)[::-1])
    found = ZOO["run"](config).log_norm.sel(cell="lstm")[1, -1]
    np.testing.assert_allclose(found, np.log(np.linalg.norm(product, 2)), atol=1e-9)


def test_the_same_cells_give_the_same_bits(dataset):
    again = ZOO["run"](dataclasses.replace(QUICK, cells=f"{CUT},rnn"))
    for spec in (CUT, "rnn"):
        one, two = (d.log_norm.sel(cell=spec).values for d in (again, dataset))
        assert one.tobytes() == two.tobytes()


def test_every_cell_has_a_family():
    specs = [*CELLS, *ZOO["VARIANTS"], *ZOO["AS_USED"].values()]
    assert [spec for spec in specs if ZOO["family"](spec) == ZOO["OTHER"]] == []
    assert ZOO["family"]("mine.py:gru") == ZOO["OTHER"]
    assert ZOO["family"]("lstm(coupled=True)") == "LSTM"


def test_the_cells_are_sorted_by_horizon_within_the_families(dataset):
    groups = ZOO["by_family"](record_of([-30, -8, 1, -2], ["gru", "rnn", "lstm", "irnn"]))
    assert {name: [row.cell for row in rows] for name, rows in groups.items()} == {
        "no gates": ["irnn", "rnn"],
        "LSTM": ["lstm"],
        "GRU": ["gru"],
    }
    *rows, sentence = ZOO["summary"](dataset).splitlines()[2:]
    assert sentence.endswith("in some runs of 1 of 3 cells.")
    order = [row.cell for rows in ZOO["by_family"](dataset).values() for row in rows]
    assert order == ["rnn", "orthogonal", CUT] and all(map(str.__contains__, rows, order))
    assert "> 20" in rows[1] and rows[1].endswith("0 of 3") and rows[2].endswith("3 of 3")


def test_the_figure_shows_the_numbers_of_the_table(dataset):
    factor, horizon = ZOO["figure"](dataset).axes
    labels = [text.get_text() for text in factor.get_yticklabels()]
    assert labels[:4] == ["no gates", "rnn", "orthogonal and unitary", "orthogonal"]
    rows = [row for group in ZOO["by_family"](dataset).values() for row in group]
    dots = [line for line in factor.lines if len(line.get_xdata()) == 1]
    np.testing.assert_allclose(
        [d.get_xdata()[0] for d in dots], [r.found.decay.value for r in rows]
    )
    bars = [line for line in factor.lines if len(line.get_xdata()) == 2][: len(rows)]
    np.testing.assert_allclose([bar.get_xdata() for bar in bars], [r.found.decay[1:] for r in rows])
    dots = [line for line in horizon.lines if len(line.get_xdata()) == 1]
    expected = [min(row.found.horizon, 40) for row in rows]  # beyond 20 steps: at 40, an arrow
    assert [dot.get_xdata()[0] for dot in dots] == expected and expected[1:] == [40, 3]
    assert [dot.get_marker() for dot in dots][1:] == [">", "X"]


def test_long_names_are_shortened_in_the_figure_alone():
    chrono = "lstm(forget_bias='chrono(max_lag=100)')"
    record = record_of([-2], [chrono])
    labels = [text.get_text() for text in ZOO["figure"](record).axes[0].get_yticklabels()]
    assert labels == ["LSTM", "lstm(forget_bias=chrono…"]
    assert chrono in ZOO["summary"](record)


def test_the_runs_that_are_cut_are_counted(dataset):
    values = dataset.log_norm.copy()
    values.loc[{"cell": "rnn", "run": 1, "lag": slice(10, None)}] = -np.inf
    changed = dataset.assign(log_norm=values)
    row = next(r for r in ZOO["summary"](changed).splitlines() if " rnn " in r)
    assert row.endswith("1 of 3")


def record_of(norms, names, gated=False):
    """A record of cells with these log10 norms at the longest lag, of which some have gates."""
    curves = (
        np.log(10) * np.asarray(norms)[:, None, None] * np.linspace(0, 1, 11) * np.ones((1, 3, 1))
    )
    gated = np.broadcast_to(gated, len(norms))
    return xarray.Dataset(
        {"log_norm": (("cell", "run", "lag"), curves)},
        coords={
            "cell": names,
            "gated": ("cell", gated),
            "state": ("cell", ["carry"] * len(names)),
            "blocks": ("cell", ["1 of 4"] * len(names)),
            "lag": np.arange(11),
        },
    )


def test_the_claims_are_decided_by_the_norms_at_the_longest_lag():
    def of(norms, gated):
        record = record_of(norms, ["rnn", "irnn", "gru", "lstm"], gated)
        return list(verdicts(ZOO["claims"](record)).values())

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
    assert {parse_spec(spec)[0] for spec in measured} == set(CELLS)
    assert len(set(measured)) == len(measured) > len(CELLS)


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
