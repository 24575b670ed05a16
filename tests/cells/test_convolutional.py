"""The convolutional cells against loops over pixels, and the cells with the matrices of theirs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from oracle import assert_step_matches, random_state, sigmoid

from gradflow.cells.convolutional import conv_gru, conv_lstm
from gradflow.cells.gru import gru_reset_before
from gradflow.cells.lstm import LSTMCarry, lstm
from gradflow.unroll import unroll

GRID = {"height": 3, "width": 2}
PIXELS = 6


def convolve(kernel, image):
    """Σ over channels and offsets, with zeros beyond the border; the kernel is not flipped."""
    outputs, channels, size, _ = kernel.shape
    _, height, width = image.shape
    found = np.zeros((outputs, height, width), image.dtype)
    for y, x, dy, dx in itertools.product(range(height), range(width), range(size), range(size)):
        row, column = y + dy - size // 2, x + dx - size // 2
        if 0 <= row < height and 0 <= column < width:
            found[:, y, x] += kernel[:, :channels, dy, dx] @ image[:, row, column]
    return found


def affine(p, h, x):
    return convolve(p["W_x"], x) + convolve(p["W_h"], h) + p["b"][:, None, None]


def lstm_reference(p, carry, x):
    h, c = carry
    x = x.reshape(-1, *h.shape[1:])
    peep = lambda q, c: p[q]["p"] * c if "p" in p[q] else 0  # noqa: E731
    i, f = (sigmoid(affine(p[q], h, x) + peep(q, c)) for q in "if")
    c = f * c + i * np.tanh(affine(p["g"], h, x))
    return sigmoid(affine(p["o"], h, x) + peep("o", c)) * np.tanh(c), c


def gru_reference(p, carry, x):
    (h,) = carry if isinstance(carry, list) else [carry]
    x = x.reshape(-1, *h.shape[1:])
    z, r = (sigmoid(affine(p[q], h, x)) for q in "zr")
    return (1 - z) * h + z * np.tanh(affine(p["n"], r * h, x))


@pytest.mark.parametrize(
    "cell, reference, input_size",
    [
        (conv_lstm(6, 12, **GRID), lstm_reference, 6),
        (conv_lstm(12, 6, **GRID, peephole=True), lstm_reference, 12),
        (conv_lstm(3, 4), lstm_reference, 3),
        (conv_lstm(0, 6, **GRID, kernel_size=1), lstm_reference, 0),
        (conv_gru(6, 12, **GRID), gru_reference, 6),
        (conv_gru(6, 6, **GRID, kernel_size=5), gru_reference, 6),
    ],
    ids=["lstm", "peephole", "pixel", "autonomous", "gru", "wide"],
)
def test_step_equals_the_reference(cell, reference, input_size):
    assert_step_matches(cell, reference, input_size)


def as_matrix(kernel):
    """The matrix of a convolution of a whole image, column by column."""
    shape = (kernel.shape[1], *GRID.values())
    columns = [
        convolve(np.asarray(kernel), e.reshape(shape)).ravel() for e in np.eye(np.prod(shape))
    ]
    return jnp.asarray(np.stack(columns, axis=1))


def as_dense(gate):
    return {
        "W_x": as_matrix(gate["W_x"]),
        "W_h": as_matrix(gate["W_h"]),
        "b": jnp.repeat(gate["b"], PIXELS),
    } | ({"p": gate["p"].ravel()} if "p" in gate else {})


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_sequence_equals_that_of_the_cell_with_the_matrices_of_the_convolutions(name, key):
    make = {
        "lstm": lambda: conv_lstm(6, 12, **GRID, peephole=True),
        "gru": lambda: conv_gru(6, 12, **GRID),
    }
    dense = {"lstm": lstm(6, 12, peephole=True), "gru": gru_reset_before(6, 12)}[name]
    cell = make[name]()
    params, _, _ = random_state(cell, 6)
    matrices = {q: as_dense(gate) for q, gate in params.items()}
    if name == "gru":  # z is 1 where the old state is kept
        matrices["z"] = jax.tree.map(jnp.negative, matrices["z"])
    inputs = jax.random.normal(key, (7, 6))

    def end(cell, params, inputs):
        return unroll(cell, params, inputs).outputs[-1].ravel()

    for function in (end, jax.jacrev(end, argnums=2)):
        ours, theirs = function(cell, params, inputs), function(dense, matrices, inputs)
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-14)


def test_an_image_is_an_input_as_well_as_the_vector_of_its_pixels():
    cell = conv_lstm(6, 12, **GRID)
    params, carry, x = random_state(cell, 6)
    for found, same in zip(
        jax.tree.leaves(cell.step(params, carry, x.reshape(1, 3, 2))),
        jax.tree.leaves(cell.step(params, carry, x)),
        strict=True,
    ):
        np.testing.assert_array_equal(found, same)
    assert cell.step(params, carry, x)[1].shape == (2, 3, 2)


def test_a_pixel_reaches_its_neighbours_one_step_at_a_time():
    cell = conv_gru(0, 7, height=7)
    params = cell.init(jax.random.key(0))
    inputs = jnp.zeros((3, 0))
    end = jax.jacobian(lambda h: unroll(cell, params, inputs, carry=h).outputs[-1])(
        0.1 * jnp.ones((1, 7, 1))
    ).reshape(7, 7)
    # The candidate reads r ∘ h, whose r is itself a convolution: two pixels a step.
    distance = np.abs(np.subtract.outer(np.arange(7), np.arange(7)))
    np.testing.assert_array_equal(end[distance > 6], 0)
    assert (np.abs(end[distance <= 3]) > 0).all()


def test_initial_kernels_are_matrices_of_patches(key):
    cell = conv_lstm(12, 24, **GRID, forget_bias=2.0, peephole=True)
    params = cell.init(key)
    assert {q: gate["W_h"].shape for q, gate in params.items()} == dict.fromkeys(
        "ifgo", (4, 4, 3, 3)
    )
    flat = params["i"]["W_h"].reshape(4, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(4), atol=1e-13)
    np.testing.assert_array_equal(params["f"]["b"], np.full(4, 2.0))
    assert "p" not in params["g"] and not ravel_pytree(params["o"]["p"])[0].any()
    assert isinstance(cell.initial_carry(), LSTMCarry)
