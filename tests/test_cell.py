"""The text of a cell: its factory, its sizes, the blocks of its carry and its gates."""

import jax.numpy as jnp
import pytest

from gradflow import Cell
from gradflow.cells import gru, lstm, resolve, rnn


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (
            lstm(3, 8),
            "lstm(input_size=3, hidden_size=8): carry h (8), c (8); gates f g i o",
        ),
        (rnn(2, 4), "rnn(input_size=2, hidden_size=4): carry (4)"),
        (gru(2, 4), "gru(input_size=2, hidden_size=4): carry (4); gates n r z"),
    ],
)
def test_the_text_of_a_cell(cell, text):
    assert repr(cell) == text


def test_a_cell_without_named_matrices_and_a_broken_one_have_a_text():
    def mine():
        def step(params, h, x):
            return params * h, params * h

        return Cell(lambda key: jnp.ones(4), step, lambda: jnp.zeros(4))

    name = mine.__qualname__.partition(".")[0]
    assert repr(mine()) == f"{name}(hidden_size=4): carry (4)"
    assert repr(mine()._replace(init=lambda key: 1 / 0)) == f"{name}(...)"
    assert "carry 0 (4), 1.h (4), 1.c (4)" in repr(resolve("stack(cells='rnn,lstm')")(3, 4))
