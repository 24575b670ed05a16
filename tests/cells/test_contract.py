"""Every cell of the package, and a user's own, under the public contract test."""

import inspect

import pytest

from gradflow.cells import CELLS, resolve
from gradflow.testing import check_cell, check_structure

MINE = """
import jax, jax.numpy as jnp
from gradflow import Cell

def mine(input_size, hidden_size, *, rate=0.5):
    def init(key):
        return {"W_h": jax.random.normal(key, (hidden_size, hidden_size))}

    def step(params, h, x):
        h = (1 - rate) * h + rate * jnp.tanh(params["W_h"] @ h + x.sum())
        return h, h

    return Cell(init, step, lambda: jnp.zeros(hidden_size))
"""


@pytest.mark.parametrize("name", sorted(CELLS))
def test_every_cell_satisfies_the_contract(name):
    check_cell(CELLS[name])


def test_every_cell_can_be_autonomous():
    for factory in CELLS.values():
        check_structure(factory, input_size=0, hidden_size=6)


def test_every_factory_takes_two_sizes_and_then_keyword_options():
    for name, factory in CELLS.items():
        first, second, *options = inspect.signature(factory).parameters.values()
        assert (first.name, second.name) == ("input_size", "hidden_size"), name
        assert all(option.kind is option.KEYWORD_ONLY for option in options), name
        assert all(option.default is not option.empty for option in options), name


@pytest.mark.parametrize("name", sorted(CELLS))
def test_bad_sizes_raise(name):
    with pytest.raises(ValueError, match="Expected input_size to be at least 0, got -1"):
        CELLS[name](-1, 4)
    with pytest.raises(ValueError, match="Expected hidden_size to be at least [12], got 0"):
        CELLS[name](3, 0)
    with pytest.raises(TypeError, match="Expected input_size to be an integer, got True"):
        CELLS[name](True, 4)


def test_user_cell_in_a_file_satisfies_the_contract(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    check_cell(resolve(f"{path}:mine"))
    check_cell(resolve(f"{path}:mine(rate=0.1)"))
    path.write_text(MINE.replace('W_h"] @ h', 'W_h"] @ jax.lax.stop_gradient(h)'))
    with pytest.raises(ValueError, match=r"Clause 'gradient': expected ∂carry\[0\]/∂carry"):
        check_cell(resolve(f"{path}:mine"))
