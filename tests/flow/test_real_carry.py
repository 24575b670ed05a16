"""A complex diagonal linear cell, against the real cell of 2x2 rotations that is the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow import Cell, flow, measure

N, D, T = 3, 2, 9


def parts(z):
    return jnp.stack([z.real, z.imag])


def complex_cell() -> Cell:
    def init(key):
        radius, angle = jax.random.uniform(key, (2, N), minval=0.5, maxval=0.9)
        B = jax.random.normal(key, (2, N, D))
        return {"eigenvalues": radius * jnp.exp(3j * angle), "B": B[0] + 1j * B[1]}

    def step(params, z, x):
        # The product with |z| makes it a function that is not holomorphic.
        z = params["eigenvalues"] * z / (1 + jnp.abs(z)) + params["B"] @ x
        return z, z.real

    return Cell(init, step, lambda: jnp.zeros(N, complex), hidden=lambda z: z.real)


def real_cell() -> Cell:
    twin = complex_cell()

    def step(params, s, x):
        re, im = s
        a, b = params["eigenvalues"].real, params["eigenvalues"].imag
        scale = 1 + jnp.sqrt(re**2 + im**2)
        new_re = (a * re - b * im) / scale + params["B"].real @ x
        new_im = (a * im + b * re) / scale + params["B"].imag @ x
        return jnp.stack([new_re, new_im]), new_re

    return Cell(twin.init, step, lambda: jnp.zeros((2, N)), hidden=lambda s: s[0])


@pytest.fixture
def given(key):
    params = complex_cell().init(key)
    inputs = jax.random.normal(key, (T, D))
    # |z| has no derivative at zero, which the carry of a training leaves at its first step.
    start = jax.random.normal(key, (2, N))
    return params, inputs, start


@pytest.mark.parametrize("source, target", [("carry", "carry"), ("h", "h"), ("carry", "h")])
def test_norms_are_those_of_real_and_imaginary_parts(source, target, given):
    params, inputs, s = given
    blocks = {"source": source, "target": target}
    z = s[0] + 1j * s[1]
    found = flow.log_norms(complex_cell(), params, inputs, carry=z, **blocks)
    expected = flow.log_norms(real_cell(), params, inputs, carry=s, **blocks)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.abs(expected[1:]).min() > 1e-3


def test_every_other_measurement_is_too(given):
    params, inputs, s = given
    z = s[0] + 1j * s[1]

    def loss(outputs):
        return jnp.sum(outputs[-1] ** 2)

    def all_of(cell, carry):
        one = {"cell": cell, "params": params, "inputs": inputs, "carry": carry}
        return [
            flow.log_norm_map(**one),
            flow.log_singular_values(**one, source="carry", target="carry"),
            flow.lyapunov_exponents(**one).exponents,
            flow.log_adjoint_norms(**one, loss=loss, source="carry"),
            flow.adjoints(**one, loss=loss),
            flow.in_chunks(flow.log_norms, chunk_steps=4)(**one),
        ]

    for found, expected in zip(all_of(complex_cell(), z), all_of(real_cell(), s), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-8)


def test_measure_takes_a_complex_carry(given):
    params, inputs, s = given
    found = measure(complex_cell(), params, inputs, carry=s[0] + 1j * s[1])
    expected = measure(real_cell(), params, inputs, carry=s)
    np.testing.assert_allclose(found.log_norms, expected.log_norms, atol=1e-9)
