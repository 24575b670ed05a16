"""Arguments that do not fit: the error names the one that is wrong, and what to do."""

import inspect
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from gradflow import Cell, unroll
from gradflow.cell import split_key
from gradflow.cells import gru, lstm, resolve, rnn
from gradflow.unroll import check_inputs
from gradflow.unroll.fit import check_is_cell

CELL, T = lstm(3, 4), 7
PARAMS = CELL.init(jax.random.key(0))
INPUTS = jnp.ones((T, 3))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (
            "gru",
            r"got the name 'gru'\. Make it: gradflow.cells.resolve\('gru'\)\(input_size, hidden",
        ),
        (resolve("lstm"), r"got the function lstm\. If it is a factory, call it first"),
        (PARAMS, "got dict. Give the arguments in the order cell, params, inputs"),
    ],
)
def test_what_is_no_cell_is_an_error(cell, message):
    with pytest.raises(TypeError, match=f"Expected a cell, a gradflow.Cell, {message}"):
        inspect.unwrap(check_is_cell)(cell)


EVERY = """
import jax.numpy as jnp
from gradflow import flow, unroll
from gradflow.cells import CELLS, resolve

options = {"loss": {"loss": jnp.sum}, "losses": {"losses": jnp.sum}, "lags": {"lags": [1]}}
runs = {name: (one.function, options.get(one.needs, {})) for name, one in flow.CATALOGUE.items()}
for name, (run, given) in {**runs, "unroll": (unroll, {})}.items():
    for cell in ("lstm", resolve("lstm")):
        try:
            run(cell, {}, jnp.ones((3, 2)), **given)
        except TypeError as error:
            assert "Expected a cell, a gradflow.Cell, got the" in str(error), (name, error)
        else:
            raise AssertionError(name)

expected = "Expected a random key, got 7. Make one from a seed: cell.init(jax.random.key(0))."
for name, factory in CELLS.items():
    try:
        factory(4, 4).init(7)
    except TypeError as error:
        assert str(error) == expected, (name, error)
    else:
        raise AssertionError(name)
"""


def test_every_measurement_refuses_a_name_and_every_cell_a_seed_for_a_key():
    # In a process of its own, because the tests' check of types would refuse them first.
    found = subprocess.run([sys.executable, "-c", EVERY], capture_output=True, text=True)
    assert not found.returncode, found.stderr


def test_raw_keys_are_keys():
    raw, typed = CELL.init(jax.random.PRNGKey(0)), CELL.init(jax.random.key(0))
    assert jnp.array_equal(raw["f"]["W_h"], typed["f"]["W_h"])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (INPUTS.T, r"\(T, input\) with 3 features, .* got shape \(3, 7\)\. .*: give inputs\.T\."),
        (
            jnp.ones((T, 5)),
            r"\(T, input\) .* got shape \(7, 5\)\. Give inputs of that width, or a cell of input",
        ),
        (jnp.ones((3, T, 2)), r"\(T, B, input\) with 3 .*: give jnp\.moveaxis\(inputs, 0, -1\)\."),
        (jnp.ones((T, 2, 5)), r"\(T, B, input\) with 3 .* got shape \(7, 2, 5\)\. Give inputs"),
    ],
)
def test_inputs_of_another_width(inputs, message):
    with pytest.raises(ValueError, match=f"Expected inputs of shape {message}"):
        unroll(CELL, PARAMS, inputs)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (lstm(3, 5).init(jax.random.key(0)), r"f\.W_h has shape \(4, 4\), got \(5, 5\)\. Give"),
        (gru(3, 4).init(jax.random.key(0)), r"f\.W_h has shape \(4, 4\), got none\. Give"),
        (jnp.ones(3), r"f\.W_h has shape \(4, 4\), got none\. Give the parameters that its own"),
    ],
)
def test_parameters_of_another_cell(params, message):
    with pytest.raises(
        ValueError, match=f"Expected the parameters of this cell, in which {message}"
    ):
        unroll(CELL, params, INPUTS)


def test_a_key_is_no_parameters():
    with pytest.raises(TypeError, match=r"got a random key\. Initialise them: params = cell.init"):
        unroll(CELL, jax.random.key(0), INPUTS)


def test_parameters_are_no_inputs():
    with pytest.raises(
        TypeError, match=r"\(T, input\), got a dict\. Give .* order cell, params, in"
    ):
        inspect.unwrap(check_inputs)(PARAMS)


def test_a_step_that_fails_for_another_reason_reports_its_own_error():
    def step(params, h, x):
        raise ValueError("no such thing")

    broken = rnn(3, 4)._replace(step=step)
    with pytest.raises(ValueError, match="that the cell's step takes, got .*: no such thing. Give"):
        unroll(broken, broken.init(jax.random.key(0)), INPUTS)


def test_an_init_that_fails_is_not_what_the_error_is_about():
    cell = Cell(lambda key: 1 / 0, rnn(3, 4).step, lambda: jnp.zeros(4))
    params = rnn(3, 4).init(jax.random.key(0))
    with pytest.raises(ValueError, match="with 3 features"):
        unroll(cell, params, INPUTS[:, :2])


def test_a_seed_is_no_key():
    with pytest.raises(
        TypeError, match=r"Expected a random key, got 0\. Make one from a seed: cell"
    ):
        inspect.unwrap(split_key)(0)
