"""How a cell is found: by name, in a file, in a module; and what is said when it is not."""

import sys

import jax
import numpy as np
import pytest

from gradflow.cells import CELLS, resolve

MINE = """
from gradflow.cells import rnn

not_callable = 3
_hidden = rnn

def tanh_net(input_size, hidden_size, *, gain=1.0):
    return rnn(input_size, hidden_size, recurrent_init=f"identity(gain={gain})")

def anything(input_size, hidden_size, **options):
    return rnn(input_size, hidden_size, **options)
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def recurrent_gain(factory, **options):
    return float(factory(2, 3, **options).init(jax.random.key(0))["W_h"][0, 0])


def forget_bias(factory, **options):
    return float(factory(2, 3, **options).init(jax.random.key(0))["f"]["b"][0])


@pytest.mark.parametrize("name", sorted(CELLS))
def test_every_name_gives_its_factory(name):
    ours, theirs = (f(2, 4).init(jax.random.key(3)) for f in (resolve(name), CELLS[name]))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_options_are_defaults_that_a_call_can_change():
    factory = resolve("lstm(forget_bias=2.5)")
    assert factory.__name__ == "lstm(forget_bias=2.5)"
    assert (forget_bias(resolve("lstm")), forget_bias(factory)) == (1.0, 2.5)
    assert forget_bias(factory, forget_bias=-1.0) == -1.0


def test_a_cell_in_a_file(mine, monkeypatch):
    assert recurrent_gain(resolve(f"{mine}:tanh_net")) == 1.0
    assert recurrent_gain(resolve(f"{mine}:tanh_net(gain=0.5)")) == 0.5
    monkeypatch.chdir(mine.parent)
    assert recurrent_gain(resolve("mine.py:tanh_net(gain=0.25)")) == 0.25
    assert "mine" not in sys.modules  # two files of one name do not meet


def test_a_cell_in_a_module(mine, monkeypatch):
    monkeypatch.syspath_prepend(mine.parent)
    (mine.parent / "my_package").mkdir()
    (mine.parent / "my_package" / "cells_of_mine.py").write_text(MINE)
    assert recurrent_gain(resolve("my_package.cells_of_mine:tanh_net(gain=0.5)")) == 0.5
    assert forget_bias(resolve("gradflow.cells.lstm:lstm(forget_bias=0.5)")) == 0.5


def test_a_factory_that_takes_anything_is_given_everything(mine):
    factory = resolve(f"{mine}:anything(recurrent_init='identity(gain=0.125)')")
    assert recurrent_gain(factory) == 0.125


@pytest.mark.parametrize(
    "spec, message",
    [
        (
            "lsmt",
            r"Unknown cell 'lsmt'. Did you mean 'lstm'\? .*of your own is path/to/file.py:fact",
        ),
        (
            "lstm(forgetbias=2)",
            "Unknown option 'forgetbias' of cell 'lstm'. Did you mean 'forget_bias'",
        ),
        (
            "lstm(input_size=2)",
            "Unknown option 'input_size' of cell 'lstm'. .*Known: .*forget_bias",
        ),
        ("lstm(2)", "Expected options by keyword"),
        (
            "nowhere/mine.py:tanh_net",
            "file of a cell, got 'nowhere/mine.py', which does not exist. .*current directory",
        ),
        (
            "no_such_package.cells:f",
            "cell no_such_package.cells:f .* got 'no_such_package', which cannot be found. Check",
        ),
        ("gradflow.no_such:f", "cell gradflow.no_such:f .* got 'gradflow.no_such', .* Check"),
        (
            "gradflow.cells.lstm:gru",
            "factory in gradflow.cells.lstm, got 'gru'. .*LSTMCarry.*lstm",
        ),
    ],
)
def test_a_cell_that_cannot_be_found_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        resolve(spec)


@pytest.mark.parametrize(
    "rest, message",
    [
        (
            "tanhnet",
            "in .*mine.py, got 'tanhnet'. Choose one of its callables: rnn, tanh_net, anything.$",
        ),
        ("not_callable", "factory in .*, got 'not_callable'. Choose one of its callables: "),
        ("tanh_net(bias=1)", r"Unknown option 'bias' of cell '.*mine.py:tanh_net'. Known: gain.$"),
    ],
)
def test_a_file_without_that_factory_or_option_is_refused(mine, rest, message):
    with pytest.raises(ValueError, match=message):
        resolve(f"{mine}:{rest}")


def test_options_of_a_factory_without_any_are_refused(tmp_path):
    path = tmp_path / "bare.py"
    path.write_text("def bare(input_size, hidden_size): ...")
    with pytest.raises(ValueError, match="Unknown option 'gain' of cell '.*'. Known: none."):
        resolve(f"{path}:bare(gain=1)")
