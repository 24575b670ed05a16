"""The catalogue is complete, what it says of results is so, and `measure` names all of it."""

import inspect
import itertools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tqdm import tqdm

import gradflow
from gradflow import flow
from gradflow.cells import lstm, rnn
from gradflow.flow import datasets
from gradflow.flow.catalogue import DIMENSIONS
from gradflow.flow.measurement import table

CELL, T = lstm(3, 4), 6
PARAMS = CELL.init(jax.random.key(0))
INPUTS = jax.random.normal(jax.random.key(1), (T, 3))
CARRY = jax.tree.map(lambda leaf: leaf + 0.1, CELL.initial_carry())
OPTIONS = {
    "loss": lambda h: jnp.sum(h[-1] ** 2),
    "losses": lambda h: jnp.sum(h**2, axis=1),
    "lags": [1, 4],
}
DOCUMENT = Path(__file__).parents[2] / "docs" / "measurements.md"


def test_every_public_measurement_is_in_the_catalogue():
    functions = {entry.function for entry in flow.CATALOGUE.values()}
    of_cells = {
        getattr(flow, name)
        for name in flow.__all__
        if {"cell", "params", "inputs"} <= set(_parameters(getattr(flow, name)))
    }
    assert of_cells - functions == {flow.measure, flow.default_block, flow.block_sizes}


def _parameters(function):
    return inspect.signature(function).parameters if inspect.isfunction(function) else {}


def test_measure_names_the_dimensions_and_the_units_of_every_measurement():
    dataset = gradflow.measure(CELL, PARAMS, INPUTS, what=flow.CATALOGUE, **OPTIONS)
    for name, entry in flow.CATALOGUE.items():
        for variable in entry.variables:
            found = dataset[variable.name]
            assert (found.dims, found.units) == (variable.dims, variable.units), name
            assert found.long_name == entry.equation
    sizes = {"lag": T + 1, "later": T + 1, "earlier": T + 1, "step": T, "at_lag": 2, "exponent": 8}
    assert {dim: dataset.sizes[dim] for dim in sizes} == sizes
    assert dataset.lag.values.tolist() == list(range(T + 1)) and dataset.lag.units == "steps"
    assert dataset.step.values[0] == 1 and dataset.at_lag.values.tolist() == [1, 4]
    assert set(DIMENSIONS) == {str(dim) for dim in dataset.dims if dim in DIMENSIONS}


def test_measure_has_the_numbers_of_the_functions():
    dataset = gradflow.measure(
        CELL,
        PARAMS,
        INPUTS,
        what=["log_norms", "components", "gates", "adjoints"],
        source="c",
        loss=OPTIONS["loss"],
    )
    expected = flow.log_norms(CELL, PARAMS, INPUTS, source="c")
    np.testing.assert_array_equal(dataset.log_norms, expected)
    components = flow.components(CELL, PARAMS, INPUTS, loss=OPTIONS["loss"])
    found = dataset.components.sel(parameter="f.W_h")
    np.testing.assert_array_equal(found, components["f"]["W_h"])
    gates = flow.gates(CELL, PARAMS, INPUTS)
    np.testing.assert_array_equal(dataset.gates.sel(gate_unit="o"), gates["o"])
    adjoints = flow.adjoints(CELL, PARAMS, INPUTS, loss=OPTIONS["loss"])
    np.testing.assert_array_equal(dataset.adjoints.sel(carry_entry="c"), adjoints.c)


def test_measure_computes_in_float64_whatever_the_settings():
    expected = gradflow.measure(CELL, PARAMS, INPUTS, what=["log_norms", "gates"], carry=CARRY)
    assert expected.attrs["precision"] == "float64"
    with jax.enable_x64(False):
        narrow = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (PARAMS, INPUTS, CARRY))
        params, inputs, carry = narrow
        found = gradflow.measure(CELL, params, inputs, what=["log_norms", "gates"], carry=carry)
        assert jnp.zeros(()).dtype == jnp.float32
        plain = flow.log_norms(CELL, params, inputs, carry=carry)
    assert {variable.dtype for variable in found.data_vars.values()} == {np.dtype("float64")}
    assert plain.dtype == np.float32
    np.testing.assert_allclose(found.log_norms, expected.log_norms, atol=1e-5)
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), narrow)
    exact = flow.log_norms(CELL, wide[0], jnp.asarray(wide[1]), carry=wide[2])
    np.testing.assert_array_equal(found.log_norms, exact)


def test_measure_computes_in_float32_on_request():
    params = jax.vmap(CELL.init)(jax.random.split(jax.random.key(2), 2))
    inputs = jnp.stack([INPUTS, INPUTS])
    found = gradflow.measure(CELL, params, inputs, runs=True, precision="float32")
    assert (found.log_norms.dtype, found.attrs["precision"]) == (np.float32, "float32")
    with pytest.raises(
        ValueError, match="Expected precision='float64' or 'float32', got 'float16'"
    ):
        inspect.unwrap(gradflow.measure)(CELL, PARAMS, INPUTS, precision="float16")


def test_runs_become_a_dimension():
    params = jax.vmap(CELL.init)(jax.random.split(jax.random.key(2), 3))
    inputs = jax.random.normal(jax.random.key(3), (3, T, 3))
    what = ["log_norms", "saturation"]
    dataset = gradflow.measure(CELL, params, inputs, what=what, runs=True)
    assert dataset.log_norms.dims == ("run", "lag")
    assert dataset.saturation.dims == ("run", "step", "side", "gate")
    second = jax.tree.map(lambda leaf: leaf[1], params)
    alone = flow.log_norms(CELL, second, inputs[1])
    np.testing.assert_allclose(dataset.log_norms[1], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        (["log_norm"], {}, "Unknown measurement 'log_norm'. Did you mean 'log_norms'"),
        (["components"], {}, r"Expected loss=... for components, got none. Give it to measure."),
        (["log_norms"], {"burn_in": 3}, r"Expected options of log_norms, got burn_in. Remove"),
        (["gates"], {}, "Expected a cell with gates"),
    ],
)
def test_errors(what, options, message):
    cell = rnn(3, 4)
    with pytest.raises(ValueError, match=message):
        gradflow.measure(cell, cell.init(jax.random.key(0)), INPUTS, what=what, **options)


def test_the_table_in_the_documentation_is_that_of_the_catalogue():
    expected = table(flow.CATALOGUE).splitlines()
    printed = DOCUMENT.read_text(encoding="utf-8")
    found = printed.split("<!-- catalogue -->\n")[1].split("\n<!-- end of catalogue -->")[0]
    problem = first_difference(expected, found.splitlines())
    assert problem is None, f"In the table of {DOCUMENT.name}: {problem}"


def first_difference(expected, found):
    """Which row of a table differs first from the one expected, where, and what to do."""
    for before, row, has in itertools.zip_longest(["", *expected], expected, found):
        if row != has and row is None:
            return f"remove this row, which the catalogue does not have:\n{has}"
        if row != has:
            return f"this row is missing:\n{row}\nIt belongs below:\n{before}\nThere is:\n{has}"
    return None


def test_the_first_difference_of_a_table_names_the_row_and_its_place():
    rows = ["| a |", "| b |", "| c |"]
    assert first_difference(rows, rows) is None
    assert first_difference(rows, rows[:1] + rows[2:]).startswith(
        "this row is missing:\n| b |\nIt belongs below:\n| a |\nThere is:\n| c |"
    )
    assert "below:\n| b |" in first_difference(rows, rows[:2])
    assert first_difference(rows, [*rows, "| d |"]).startswith("remove this row")


def test_progress_is_shown_on_a_terminal_alone(monkeypatch):
    assert datasets._with_progress(["a", "b"]) == ["a", "b"]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shown = datasets._with_progress(["a", "b"])
    assert isinstance(shown, tqdm) and list(shown) == ["a", "b"]
    assert datasets._with_progress(["a"]) == ["a"]
