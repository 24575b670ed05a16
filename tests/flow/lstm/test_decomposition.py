"""The paths of the LSTM's cell state against autodiff and against derivatives by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from products import problem

from gradflow.cell import Cell
from gradflow.cells import LSTMCarry, gru, lstm, rnn
from gradflow.flow.lstm import decomposition, decomposition_norms
from gradflow.flow.norms import log_norms
from gradflow.unroll import unroll

T = 6
VARIANTS = {
    "plain": {},
    "peephole": {"peephole": True},
    "coupled": {"coupled": True},
    "coupled peephole": {"coupled": True, "peephole": True},
    "no forget gate": {"forget_gate": False},
    "no forget gate peephole": {"forget_gate": False, "peephole": "i"},
}


setup = functools.partial(problem, num_steps=T)


def without_output_recurrence(params):
    """W_h^o = 0: the output gates see the inputs alone."""
    return params | {"o": params["o"] | {"W_h": jnp.zeros((4, 4))}}


def output_gates(cell, params, inputs, carry):
    """o_1 ... o_T along the trajectory."""
    carries = unroll(cell, params, inputs, carry=carry).carries
    before = jax.tree.map(lambda leaf: leaf[:-1], carries)
    return carries, jax.vmap(lambda s, x: cell.gates(params, s, x)["o"])(before, inputs)


def total_derivative(cell, params, inputs, carry, k, readout=jnp.tanh):
    """dc_T/dc_k by autodiff of the steps k + 1 ... T, h_k moving with c_k and o_k held fixed."""
    carries, o = output_gates(cell, params, inputs, carry)
    s_k = jax.tree.map(lambda leaf: leaf[k], carries)

    @jax.jit
    @jax.jacobian
    def by_c(c):
        s = LSTMCarry(o[k - 1] * readout(c) if k > 0 else s_k.h, c)
        return jax.lax.scan(lambda s, x: cell.step(params, s, x), s, inputs[k:])[0].c

    return by_c(s_k.c)


def spectral(matrix):
    return np.log(np.linalg.norm(matrix, ord=2))


@pytest.mark.parametrize("variant", VARIANTS)
def test_terms_sum_to_the_derivative_of_one_step(variant):
    cell = lstm(3, 4, **VARIANTS[variant])
    params, inputs, carry = setup(cell)
    total = sum(decomposition(cell, params, inputs, carry=carry))
    for t in (1, T):
        expected = total_derivative(cell, params, inputs[:t], carry, t - 1)
        np.testing.assert_allclose(total[t - 1], expected, rtol=1e-10, atol=1e-13)


def test_terms_of_the_plain_lstm_are_those_derived_by_hand():
    cell = lstm(3, 4)
    params, inputs, carry = setup(cell)
    terms = decomposition(cell, params, inputs, carry=carry)
    p = jax.tree.map(np.asarray, params)
    h, c = (np.asarray(leaf) for leaf in carry)
    d = np.zeros((4, 4))  # D_0: h_0 does not come from c_0
    for t, x in enumerate(np.asarray(inputs)):
        a = {q: p[q]["W_x"] @ x + p[q]["W_h"] @ h + p[q]["b"] for q in "ifgo"}
        i, f, o = (1 / (1 + np.exp(-a[q])) for q in "ifo")
        g = np.tanh(a["g"])
        expected = {
            "forget": np.diag(f),
            "through_f": np.diag(c * f * (1 - f)) @ p["f"]["W_h"] @ d,
            "through_i": np.diag(g * i * (1 - i)) @ p["i"]["W_h"] @ d,
            "through_g": np.diag(i * (1 - g**2)) @ p["g"]["W_h"] @ d,
        }
        for name, matrix in expected.items():
            np.testing.assert_allclose(getattr(terms, name)[t], matrix, rtol=1e-10, atol=1e-14)
        c = f * c + i * g
        h = o * np.tanh(c)
        d = np.diag(o * (1 - np.tanh(c) ** 2))


def test_a_peephole_opens_a_path_at_the_first_step():
    plain, peephole = lstm(3, 4), lstm(3, 4, peephole="f")
    params, inputs, carry = setup(peephole)
    terms = decomposition(peephole, params, inputs, carry=carry)
    _, f, _, _ = peephole.gates(params, carry, inputs[0]).values()
    expected = np.diag(carry.c * f * (1 - f) * params["f"]["p"])
    np.testing.assert_allclose(terms.through_f[0], expected, rtol=1e-12)
    params, _, _ = setup(plain)
    assert not decomposition(plain, params, inputs, carry=carry).through_f[0].any()


def test_a_gate_that_another_follows_has_the_path_of_both():
    cell = lstm(3, 4, coupled=True)
    params, inputs, carry = setup(cell)
    terms = decomposition(cell, params, inputs, carry=carry)
    carries = unroll(cell, params, inputs, carry=carry).carries
    before = jax.tree.map(lambda leaf: leaf[:-1], carries)
    g = jax.vmap(lambda s, x: cell.gates(params, s, x)["g"])(before, inputs)
    by_f = terms.through_f / before.c[:, :, None]
    np.testing.assert_allclose(terms.through_i, -g[:, :, None] * by_f, rtol=1e-9, atol=1e-13)


def test_a_cell_may_leave_out_the_gate_that_it_does_not_have():
    for options, absent in (({"coupled": True}, "i"), ({"forget_gate": False}, "f")):
        cell = lstm(3, 4, **options)
        params, inputs, carry = setup(cell)

        def fewer(params, carry, x, cell=cell, absent=absent):
            return {q: v for q, v in cell.gates(params, carry, x).items() if q != absent}

        measured = decomposition(cell._replace(gates=fewer), params, inputs, carry=carry)
        expected = decomposition(cell, params, inputs, carry=carry)
        for a, b in zip(measured, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


def normalised_lstm():
    """h_t = o_t ∘ φ(c_t) with φ that mixes the units."""
    inner = lstm(3, 4)

    def readout(c):
        return jnp.tanh((c - jnp.mean(c)) / jnp.sqrt(jnp.var(c) + 1e-2))

    def step(params, carry, x):
        i, f, g, o = inner.gates(params, carry, x).values()
        c = f * carry.c + i * g
        h = o * readout(c)
        return LSTMCarry(h, c), h

    return inner._replace(step=step), readout


def test_another_readout_is_taken_into_account():
    cell, readout = normalised_lstm()
    params, inputs, carry = setup(cell)
    total = sum(decomposition(cell, params, inputs, carry=carry, readout=readout))
    expected = total_derivative(cell, params, inputs, carry, T - 1, readout)
    np.testing.assert_allclose(total[-1], expected, rtol=1e-10, atol=1e-13)
    norms = decomposition_norms(cell, params, inputs, carry=carry, readout=readout)
    for k in (0, 3):
        expected = total_derivative(cell, params, inputs, carry, k, readout)
        np.testing.assert_allclose(norms.exact_total[T - k], spectral(expected), rtol=1e-10)


@pytest.mark.parametrize("variant", ["plain", "peephole"])
def test_norms_are_those_of_the_terms_and_of_autodiff_of_the_whole(variant):
    cell = lstm(3, 4, **VARIANTS[variant])
    params, inputs, carry = setup(cell)
    terms = decomposition(cell, params, inputs, carry=carry)
    norms = decomposition_norms(cell, params, inputs, carry=carry)
    for name, matrices in (*terms._asdict().items(), ("total", sum(terms))):
        with np.errstate(divide="ignore"):
            expected = [spectral(m) for m in np.asarray(matrices)]
        np.testing.assert_allclose(getattr(norms, name), expected, rtol=1e-10, atol=1e-12)

    forgets = totals = np.eye(4)
    for k in range(T - 1, -1, -1):
        forgets, totals = forgets @ terms.forget[k], totals @ sum(terms)[k]
        np.testing.assert_allclose(norms.product_forget[T - k], spectral(forgets), rtol=1e-10)
        np.testing.assert_allclose(norms.product_total[T - k], spectral(totals), rtol=1e-10)
    for k in (0, 3):
        exact = total_derivative(cell, params, inputs, carry, k)
        np.testing.assert_allclose(norms.exact_total[T - k], spectral(exact), rtol=1e-10)
    block = log_norms(cell, params, inputs, carry=carry, source="c", target="c")
    np.testing.assert_allclose(norms.exact_block, block, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("variant", ["plain", "coupled", "no forget gate"])
def test_the_product_of_the_sums_is_exact_if_the_output_gates_see_the_inputs_alone(variant):
    cell = lstm(3, 4, **VARIANTS[variant])
    params, inputs, carry = setup(cell)
    norms = decomposition_norms(cell, without_output_recurrence(params), inputs, carry=carry)
    np.testing.assert_allclose(norms.product_total, norms.exact_total, rtol=1e-12, atol=1e-12)
    # The one-line formula is not, and neither is what holds h_k fixed.
    assert (np.abs(norms.product_forget - norms.exact_total)[2:] > 1e-3).all()
    assert (np.abs(norms.exact_block - norms.exact_total)[2:-1] > 1e-4).all()


@pytest.mark.parametrize(
    ("peephole", "recurrence", "is_exact"),
    [(False, True, False), ("o", False, False), ("if", False, True)],
)
def test_the_product_of_the_sums_leaves_out_what_goes_through_the_output_gates(
    peephole, recurrence, is_exact
):
    cell = lstm(3, 4, peephole=peephole)
    params, inputs, carry = setup(cell)
    params = params if recurrence else without_output_recurrence(params)
    norms = decomposition_norms(cell, params, inputs, carry=carry)
    gap = np.abs(norms.product_total - norms.exact_total)
    np.testing.assert_allclose(gap[:2], 0, atol=1e-12)  # at lag 1 there is no gate between
    assert (gap[2:] < 1e-11).all() if is_exact else (gap[2:] > 1e-6).all()


def test_an_open_forget_gate_and_a_shut_input_gate_carry_the_cell_unchanged():
    cell = lstm(3, 4)
    params, inputs, carry = setup(cell)
    for gate, bias in (("f", 1000.0), ("i", -1000.0)):
        params = params | {gate: params[gate] | {"b": jnp.full(4, bias)}}
    terms = decomposition(cell, params, inputs, carry=carry)
    np.testing.assert_array_equal(terms.forget, np.broadcast_to(np.eye(4), (T, 4, 4)))
    for path in (terms.through_f, terms.through_i, terms.through_g):
        np.testing.assert_array_equal(path, 0)
    norms = decomposition_norms(cell, params, inputs, carry=carry)
    for by_lag in norms[5:]:
        np.testing.assert_allclose(by_lag, 0, atol=1e-14)
    assert np.isneginf(norms.through_i).all()


def test_products_go_far_below_any_float():
    cell = lstm(3, 4)
    params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0)))
    params["f"]["b"] = jnp.full(4, -3.0)
    norms = decomposition_norms(cell, params, jnp.zeros((2000, 3)))
    slope = -np.log1p(np.exp(3.0))
    for by_lag in norms[5:]:
        np.testing.assert_allclose(by_lag, np.arange(2001) * slope, rtol=1e-12)


def test_a_cell_of_another_form_is_an_error():
    _, inputs, _ = setup(lstm(3, 4))
    for cell in (gru(3, 4), rnn(3, 4), lstm(3, 4)._replace(gates=None)):
        params = cell.init(jax.random.key(0))
        with pytest.raises(ValueError, match="Expected a cell that has gates and a carry"):
            decomposition(cell, params, inputs)


def test_gates_of_other_names_are_an_error():
    cell = lstm(3, 4)
    params, inputs, _ = setup(cell)
    renamed = cell._replace(gates=lambda *args: {"o": cell.gates(*args)["o"]})
    with pytest.raises(ValueError, match=r"Expected gates g and o, .*, got \['o'\]"):
        decomposition_norms(renamed, params, inputs)


def other_equation() -> Cell:
    cell = lstm(3, 4)

    def step(params, carry, x):
        new, h = cell.step(params, carry, x)
        return new._replace(c=new.c + 0.1), h

    return cell._replace(step=step)


@pytest.mark.parametrize("measure", [decomposition, decomposition_norms])
def test_other_equations_are_an_error_and_nan_where_no_value_is_known(measure):
    cell = other_equation() if measure is decomposition else normalised_lstm()[0]
    params, inputs, carry = setup(cell)
    with pytest.raises(ValueError, match=r"got one that is off by 0\.\d+\. Give"):
        measure(cell, params, inputs, carry=carry)
    for leaf in jax.jit(lambda x: measure(cell, params, x, carry=carry))(inputs):
        assert np.isnan(leaf).all()
