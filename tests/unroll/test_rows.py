"""Rows pulled back with combined matrices: the numbers of reverse mode, with fewer products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow.cells import resolve
from gradflow.flow.trace import as_matrix, pull_through, trace_of
from gradflow.numerics.scaling import Scaled
from gradflow.unroll.planner import plan_for_rows

T, INPUT, HIDDEN = 4, 3, 40


def normal(shape, seed):
    return jax.random.normal(jax.random.key(seed), shape)


def trace_from(spec, *, scale=1.0, lengths=None):
    cell = resolve(spec)(INPUT, HIDDEN)
    params = jax.tree.map(lambda leaf: scale * leaf, cell.init(jax.random.key(0)))
    return trace_of(cell, params, normal((T, INPUT), 1), lengths=lengths)


def plan_at(trace, index, num_rows):
    s, x = jax.tree.map(lambda leaf: leaf[index], (trace.before, trace.xs))
    return plan_for_rows(trace.primal_step(), trace.params, s, x, num_rows)


def pulled_both_ways(trace, step, exponent=0):
    """Rows pulled by the plan, and by reverse mode: matrices and exponents."""
    size = as_matrix(jax.tree.map(lambda leaf: leaf[None], trace.last)).size
    rows, index = (
        Scaled(trace.as_rows(normal((size, size), 2)), jnp.asarray(exponent)),
        jnp.asarray(step),
    )
    assert plan_at(trace, index, size) is not None
    found, expected = trace.pull(index, rows), pull_through(*trace.at(index), rows)
    return [(as_matrix(one.value), one.exponent) for one in (found, expected)]


def assert_same(found, expected):
    assert found[1] == expected[1]
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=2e-14)


@pytest.mark.parametrize(
    "spec",
    ["lstm(peephole=True)", "lstm_layer_norm", "gru", "nas", "lipschitz", "zoneout"],
)
def test_a_planned_cell_gives_the_rows_of_reverse_mode(spec):
    assert_same(*pulled_both_ways(trace_from(spec), 2))


@pytest.mark.parametrize("spec", ["rnn", "lem", "stack(cells='lstm, lstm')"])
def test_reverse_mode_stays_where_a_plan_has_no_fewer_operations(spec):
    """One product a unit, or vectors that are computed from other products."""
    trace = trace_from(spec)
    assert plan_at(trace, 2, HIDDEN) is None


def test_a_few_rows_are_pulled_by_reverse_mode():
    trace = trace_from("lstm")
    assert plan_at(trace, 2, 1) is None
    assert plan_at(trace, 2, HIDDEN) is not None


@pytest.mark.parametrize("spec", ["lstm", "gru"])
def test_saturated_units_and_padding(spec):
    # Slopes of 1e-155 and below, whose products underflow without room.
    trace = trace_from(spec, scale=300.0, lengths=3)
    for step in range(T):
        found, expected = pulled_both_ways(trace, step, exponent=-5000)
        assert_same(found, expected)
    size = len(found[0])
    np.testing.assert_array_equal(2.0 ** (found[1] + 5000) * found[0], normal((size, size), 2))


def test_the_product_of_small_factors_is_not_flushed_to_zero():
    """At s_0 = 0, ∂h_1/∂h_0 is proportional to W_h. Here W_h = 1e-160 and o = 1e-150."""

    def rows_of_h(exponent):
        cell = resolve("lstm")(INPUT, HIDDEN)
        params = cell.init(jax.random.key(0))
        params["o"]["b"] = jnp.full(HIDDEN, -345.0)
        for gate in params.values():
            gate["W_h"] = gate["W_h"] * 2.0**exponent
        trace = trace_of(cell, params, normal((1, INPUT), 1))
        return trace.pull(jnp.asarray(0), Scaled(trace.unit_rows(cell.hidden), jnp.asarray(0)))

    def block(rows):  # the columns of c do not have a factor W_h
        return np.asarray(rows.value.h), int(rows.exponent)

    (small, small_exponent), (plain, exponent) = block(rows_of_h(-531)), block(rows_of_h(0))
    expected = np.ldexp(plain, exponent - 531 - small_exponent)
    assert (expected != 0).all()
    np.testing.assert_allclose(small, expected, rtol=1e-12)


def test_an_lstm_takes_half_of_the_products():
    trace = trace_from("lstm")
    rows = Scaled(trace.as_rows(jnp.eye(HIDDEN, 2 * HIDDEN)), jnp.asarray(0))

    def operations(pull):
        closed = jax.make_jaxpr(pull)(rows)
        return sum(
            2 * eqn.outvars[0].aval.size * eqn.invars[0].aval.shape[-1]
            for eqn in closed.eqns
            if eqn.primitive.name == "dot_general"
        )

    index = jnp.asarray(1)
    whole = 2 * HIDDEN * 4 * HIDDEN * HIDDEN
    assert operations(lambda rows: pull_through(*trace.at(index), rows)) >= whole
    assert operations(lambda rows: trace.pull(index, rows)) < 0.6 * whole
