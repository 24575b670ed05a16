"""Measurements of cells that close over a weight, a gate's weight or an s_0 that is traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow import flow
from gradflow.cell import Cell
from gradflow.flow.blocks import block
from gradflow.flow.closed_over import open_cell

X = jax.random.normal(jax.random.key(1), (4, 3))
W = jax.random.normal(jax.random.key(2), (3, 3))
B = {"b": jnp.full(3, 0.1)}


def loss(outputs):
    return jnp.sum(outputs[-1] ** 2)


def closing_over(W, in_s_0=True):
    def step(params, h, x):
        h = jnp.tanh(W @ h + x + params["b"])
        return h, h

    def gates(params, h, x):
        return {"g": jnp.tanh(W @ h + x + params["b"])}

    s_0 = (lambda: 0.1 * W[0]) if in_s_0 else lambda: jnp.zeros(3)
    return Cell(lambda key: B, step, s_0, gates=gates)


def with_parameter():
    def step(params, h, x):
        h = jnp.tanh(params["W"] @ h + x + params["b"])
        return h, h

    return Cell(
        lambda key: B, step, lambda: jnp.zeros(3), gates=lambda *args: {"g": step(*args)[1]}
    )


MEASURES = {
    "log_norms": lambda *a, **o: flow.log_norms(*a, **o)[1:],
    "log_norm_map": lambda *a, **o: flow.log_norm_map(*a, **o)[-1, :-1],
    "lyapunov_exponents": lambda *a, **o: flow.lyapunov_exponents(*a, **o).exponents,
    "adjoints": lambda *a, **o: flow.adjoints(*a, loss=loss, **o),
    "log_adjoint_norms": lambda *a, **o: flow.log_adjoint_norms(*a, loss=loss, **o),
    "components": lambda *a, **o: flow.components(*a, loss=loss, **o)["b"],
    "component_map": lambda *a, **o: jnp.tril(
        flow.component_map(*a, losses=lambda h: jnp.sum(h**2, axis=1), **o)["b"]
    ),
    "component_gradients": lambda *a, **o: flow.component_gradients(*a, loss=loss, **o)["b"],
    "gates": lambda *a, **o: flow.gates(*a, **o)["g"],
}


@pytest.mark.parametrize("name", MEASURES)
def test_the_gradient_by_a_closed_over_weight_is_that_by_a_parameter(name):
    measure = MEASURES[name]
    cell = with_parameter()

    def by_closure(W):
        return jnp.nansum(measure(closing_over(W), B, X))

    def by_parameter(W):
        return jnp.nansum(measure(cell, B | {"W": W}, X, carry=0.1 * W[0]))

    found, expected = jax.grad(by_closure)(W), jax.grad(by_parameter)(W)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)
    assert np.any(found != 0)


@pytest.mark.parametrize("measure", [flow.log_singular_values, flow.cut_slopes, flow.log_norms])
def test_values_are_the_same_under_jit_and_vmap(measure):
    both = jnp.stack([W, 2 * W])
    found = jax.jit(jax.vmap(lambda W: measure(closing_over(W), B, X)))(both)
    for i in range(2):
        plain = measure(closing_over(both[i]), B, X)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-9), found, plain)


def test_the_gradient_by_a_closed_over_weight_of_one_opened_step():
    def first(W):
        cell, params, _ = open_cell(closing_over(W), B, X)
        return jnp.sum(cell.step(params, X[0], X[1])[0]) + jnp.sum(block(cell, "h")(X[0]))

    np.testing.assert_allclose(
        jax.grad(first)(W), jax.grad(lambda W: jnp.sum(closing_over(W).step(B, X[0], X[1])[0]))(W)
    )


def test_a_cell_that_closes_over_known_values_is_unchanged():
    cell = closing_over(W)
    for _ in range(2):  # and is known the second time
        assert open_cell(cell, B, X) == (cell, B, None)


def test_arguments_that_do_not_fit_raise_the_error_of_the_measurement():
    def refused(W):
        return jnp.sum(flow.log_norms(closing_over(W, in_s_0=False), {"b": jnp.zeros(7)}, X))

    with pytest.raises(ValueError, match="Expected the parameters of this cell"):
        jax.grad(refused)(W)
