"""Recurrent cells of Equinox modules against Equinox itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from foreign import check_log_norms, check_step, random_inputs

import gradflow

eqx = pytest.importorskip("equinox")

EXACT = 1e-12


class Model(eqx.Module):
    """Two layers, the second of several cells, and something else."""

    first: eqx.Module
    rest: list
    readout: eqx.nn.Linear


def model(kind, *, use_bias=True):
    keys = jax.random.split(jax.random.key(0), 4)
    cells = [kind(size, 4, use_bias=use_bias, key=k) for size, k in zip((3, 4), keys, strict=False)]
    return Model(cells[0], [cells[1], jax.nn.relu], eqx.nn.Linear(4, 2, key=keys[3]))


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell"])
def test_two_layers_equal_equinox(kind, use_bias):
    net = model(getattr(eqx.nn, kind), use_bias=use_bias)
    found = gradflow.load(net)
    assert [layer.name for layer in found.layers] == ["first", "rest.0"]
    assert all(layer.spec == kind[:-4].lower() for layer in found.layers)
    assert all(layer.error is not None and layer.error < EXACT for layer in found.layers)

    def step_of(cell):
        def step(carry, x):
            new = cell(x, carry)
            return new, new[0] if isinstance(new, tuple) else new

        return step

    x = random_inputs(3).astype(float)
    for example, expected in zip(x, found["rest.0"].run(found["first"].run(x)), strict=True):
        carries = [jnp.zeros(4), jnp.zeros(4)]
        carries = [(c, c) if kind == "LSTMCell" else c for c in carries]
        for x_t, h_t in zip(example, expected, strict=True):
            carries[0], h = step_of(net.first)(carries[0], x_t)
            carries[1], h = step_of(net.rest[0])(carries[1], h)
            np.testing.assert_allclose(h, h_t, rtol=0, atol=EXACT)
    check_step(found["first"], step_of(net.first), EXACT)
    check_log_norms(found["rest.0"], step_of(net.rest[0]), 1e-9)


def test_a_cell_alone_and_an_ensemble():
    cell = eqx.nn.GRUCell(2, 3, key=jax.random.key(0))
    assert [layer.name for layer in gradflow.load(cell).layers] == ["cell"]
    make = eqx.filter_vmap(lambda key: eqx.nn.GRUCell(2, 3, key=key))
    several = gradflow.load(make(jax.random.split(jax.random.key(0), 5)))
    assert "several cells" in several.unsupported["cell"]
    with pytest.raises(ValueError, match="got none in Linear"):
        gradflow.load(eqx.nn.Linear(2, 2, key=jax.random.key(0)))
