"""Cells that are made alike share their programs; all others have their own."""

import subprocess
import sys

import jax
import jax.numpy as jnp

from gradflow import Cell
from gradflow.cells import lstm, resolve, rnn
from gradflow.flow.interned import interned


def test_cells_that_step_in_another_way_are_not():
    first = interned(rnn(3, 4))
    others = [rnn(3, 5), rnn(3, 4, activation="relu"), lstm(3, 4), lstm(3, 4, peephole=True)]
    assert len({id(interned(cell)) for cell in [first, *others]}) == 5
    zero, one = (interned(resolve(f"zoneout(cell='rnn', rate={r})")(3, 4)) for r in (0.1, 0.2))
    assert zero is not one


def test_a_cell_of_a_user_is_itself():
    def make(gain):
        def step(params, h, x):
            h = jnp.tanh(gain * h)
            return h, h

        return Cell(lambda key: {}, step, lambda: jnp.zeros(4))

    one, other = make(1.0), make(1.0)  # a global variable could have changed in between
    assert interned(one) is one and interned(other) is other


def test_a_cell_that_closes_over_a_traced_value_is_not_kept():
    kept = []

    def size(rate):
        cell = rnn(3, 4)
        traced = cell._replace(initial_carry=_closing_over(rate))
        kept.append(interned(traced) is traced)
        return rate

    jax.grad(size)(1.0)
    assert kept == [True]


def _closing_over(rate):
    def initial_carry():
        return rate * jnp.ones(4)

    initial_carry.__module__ = "gradflow.cells.rnn"
    return initial_carry


ALIKE = """
import jax, jax.numpy as jnp, numpy as np
import gradflow
from gradflow import flow
from gradflow.cells import CELLS, resolve
from gradflow.flow import datasets, interned, trace

same = [interned.interned(CELLS[n](4, 4)) is interned.interned(resolve(n)(4, 4)) for n in CELLS]
apart = [name for name, shared in zip(CELLS, same) if not shared]
assert not apart, apart

def call():
    cell = resolve("lstm")(3, 4)
    params, inputs = cell.init(jax.random.key(0)), jnp.ones((5, 3))
    runs = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), (params, inputs))
    alone = flow.log_norms(cell, params, inputs)
    return alone, gradflow.measure(cell, *runs, runs=True).log_norms

first, compiled = call(), trace._run._cache_size()
for a, b in zip(first, call()):
    np.testing.assert_array_equal(a, b)
assert trace._run._cache_size() == compiled
assert datasets._program.cache_info().hits == 1
"""


def test_cells_of_this_package_that_are_made_alike_share_what_is_compiled():
    # In a process of its own, because the tests' check of types wraps every function anew.
    found = subprocess.run([sys.executable, "-c", ALIKE], capture_output=True, text=True)
    assert not found.returncode, found.stderr
