"""Parameters that are no floating numbers have no gradient, and no measurement fails on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_every_measurement import CELL, LSTM, MEASURES, OF_LSTM, PARAMS, inputs_with, plain


def with_integers(cell):
    """The cell with a number of turns, a mask and a scale that are not floating."""

    def step(params, s, x):
        own, turns, mask = params["own"], params["turns"], params["mask"]
        return cell.step(jax.tree.map(lambda a: a * turns[0] * mask, own), s, x)

    gates = cell.gates and (lambda params, s, x: cell.gates(params["own"], s, x))
    return cell._replace(step=step, gates=gates)


CELLS = {CELL: with_integers(CELL), LSTM: with_integers(LSTM)}


@pytest.mark.parametrize("name", MEASURES)
def test_integer_parameters_change_nothing_and_have_no_component(name):
    function, own = MEASURES[name]
    cell = LSTM if name in OF_LSTM else CELL
    params = {"own": PARAMS[cell], "turns": jnp.ones(2, int), "mask": jnp.ones((), bool)}
    found = function(cell=CELLS[cell], params=params, inputs=inputs_with(), **own)
    if name.startswith("component"):
        nothing = 0 if name == "component_gradients" else -jnp.inf
        for leaf in (found["turns"], found["mask"]):
            assert jnp.issubdtype(leaf.dtype, jnp.floating)
            past = np.tri(len(leaf), dtype=bool) if name == "component_map" else slice(None)
            assert (leaf[past] == nothing).all()
        found = found["own"]
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(plain(name)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
