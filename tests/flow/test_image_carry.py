"""Measurements of cells whose carry is an image, against the cells with the same matrices."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import random_state
from products import step_jacobians

from gradflow import flow
from gradflow.cells import conv_gru, conv_lstm, gru, resolve
from gradflow.cells.stack import stack
from gradflow.unroll import unroll

T = 5
GRID = {"height": 3, "width": 4}
CELL = conv_lstm(12, 24, **GRID, peephole=True)
PARAMS = random_state(CELL, 12)[0]
INPUTS = jax.random.normal(jax.random.key(1), (T, 12))


def on_vectors(cell):
    """The same cell with h, c and the gates as vectors."""
    like = cell.initial_carry()
    restore = lambda carry: jax.tree.map(lambda a, b: a.reshape(b.shape), carry, like)  # noqa: E731
    flat = lambda tree: jax.tree.map(jnp.ravel, tree)  # noqa: E731
    return cell._replace(
        step=lambda params, carry, x: flat(cell.step(params, restore(carry), x)),
        initial_carry=lambda: flat(like),
        hidden=lambda carry: cell.hidden(restore(carry)).ravel(),
        gates=lambda params, carry, x: flat(cell.gates(params, restore(carry), x)),
    )


def loss(outputs):
    return jnp.sum(losses(outputs))


def losses(outputs):
    return jnp.sum(jnp.sin(outputs.reshape(T, -1) + 0.3), axis=1) * jnp.arange(1.0, T + 1)


FLAT = on_vectors(CELL)
NEEDS = {"loss": {"loss": loss}, "losses": {"losses": losses}, "lags": {"lags": (0, 3, 5)}}


OF_OTHERS = {"norm_certificate", "norm_map_certificate", "effective_rank"}
"""Made by the programs of other measurements, from the same blocks of the carry."""


@pytest.mark.parametrize("name", sorted(set(flow.CATALOGUE) - OF_OTHERS))
def test_every_measurement_of_images_is_that_of_the_vectors_of_their_pixels(name):
    entry = flow.CATALOGUE[name]
    blocks = {"source", "target"} & set(inspect.signature(entry.function).parameters)
    given = NEEDS.get(entry.needs, {}) | dict.fromkeys(blocks, "c")
    ours, theirs = (
        entry(cell=cell, params=PARAMS, inputs=INPUTS, **given) for cell in (CELL, FLAT)
    )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a.reshape(b.shape), b, rtol=1e-9, atol=1e-9)


def test_norms_and_singular_values_of_images_equal_products_of_the_step_jacobians():
    product, spectra = np.eye(48), []
    for jacobian in step_jacobians(CELL, PARAMS, INPUTS)[::-1]:
        spectra.append(np.linalg.svd(product[:24, :24], compute_uv=False))
        product = product @ jacobian
    spectra = np.log([*spectra, np.linalg.svd(product[:24, :24], compute_uv=False)])
    found = flow.log_singular_values(CELL, PARAMS, INPUTS)
    np.testing.assert_allclose(found, spectra, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(flow.log_norms(CELL, PARAMS, INPUTS), spectra[:, 0], atol=1e-9)


def test_the_gates_of_images_are_counted_over_all_pixels():
    gates = flow.gates(CELL, PARAMS, INPUTS)
    run = unroll(CELL, PARAMS, INPUTS).carries
    first = CELL.gates(PARAMS, jax.tree.map(lambda leaf: leaf[0], run), INPUTS[0])
    assert first["f"].shape == (2, 3, 4)
    np.testing.assert_allclose(gates["f"][0], first["f"].ravel(), rtol=1e-12)
    fractions = flow.saturation(gates, low=0.5, high=0.5 + 1e-9)["f"]
    np.testing.assert_allclose(fractions.sum(axis=1), 1)
    assert flow.gate_histograms(gates)["f"].shape == (T, 20)


def test_a_vector_layer_reads_the_pixels_of_the_image_layer_below_it():
    cell = stack([CELL, gru(24, 5)])
    params = cell.init(jax.random.key(0))
    run = unroll(cell, params, INPUTS)
    below = unroll(CELL, params[0], INPUTS).outputs.reshape(T, 24)
    np.testing.assert_allclose(
        run.outputs, unroll(gru(24, 5), params[1], below).outputs, rtol=1e-12
    )
    assert np.isfinite(flow.log_norms(cell, params, INPUTS)).all()


@pytest.mark.parametrize(
    "spec",
    [
        "feedback(cell='conv_gru(height=3, width=4)')",
        "residual(cell='conv_lstm(height=3, width=4)')",
        "zoneout(cell='conv_lstm(height=3, width=4)')",
        "stack(cells='conv_lstm(height=3, width=4), rnn', skip='input')",
        "stack(cells='conv_lstm(height=3, width=4), conv_gru(height=3, width=4)', skip='residual')",
    ],
)
def test_combinators_take_cells_of_images(spec):
    cell = resolve(spec)(12, 24)
    params, carry, _ = random_state(cell, 12)
    norms = flow.log_norms(cell, params, INPUTS, source="carry", target="carry", carry=carry)
    product = np.linalg.multi_dot(step_jacobians(cell, params, INPUTS, carry)[::-1])
    np.testing.assert_allclose(norms[-1], np.log(np.linalg.norm(product, 2)), atol=1e-9)


def test_the_description_of_a_cell_of_images_gives_the_shape_of_its_carry():
    assert repr(conv_gru(12, 24, **GRID)) == "conv_gru(): carry (2, 3, 4)"
    assert repr(CELL) == "conv_lstm(): carry h (2, 3, 4), c (2, 3, 4)"
