"""The share of each path in an LSTM's gradient against a derivation by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import random_state

from gradflow.cells import gru, lstm
from gradflow.flow.lstm import StepsByPath, decomposition_norms, steps_by_path

T = 6


def setup(**options):
    cell = lstm(3, 4, **options)
    params, carry, _ = random_state(cell, 3, 0)
    return cell, params, jax.random.normal(jax.random.key(1), (T, 3)), carry


def log_norms_by_hand(params, inputs, carry, factors):
    """log ‖dc_T/dc_k‖ for every lag, of the plain LSTM, with matrices for the whole carry."""
    p = jax.tree.map(np.asarray, params)
    (h, c), o_before = (np.asarray(leaf) for leaf in carry), np.zeros(4)
    jacobians, starts = [], []
    for x in np.asarray(inputs):
        a = {q: p[q]["W_x"] @ x + p[q]["W_h"] @ h + p[q]["b"] for q in "ifgo"}
        i, f, o = (1 / (1 + np.exp(-a[q])) for q in "ifo")
        g = np.tanh(a["g"])
        slope = {"i": i * (1 - i), "f": f * (1 - f), "o": o * (1 - o), "g": 1 - g**2}
        by_h = {q: slope[q][:, None] * p[q]["W_h"] for q in "ifgo"}
        new = f * c + i * g
        c_by_h = (
            factors.through_f * c[:, None] * by_h["f"]
            + factors.through_i * g[:, None] * by_h["i"]
            + factors.through_g * i[:, None] * by_h["g"]
        )
        c_by_c = factors.forget * np.diag(f)
        reads = np.diag(o * (1 - np.tanh(new) ** 2))
        h_by_h = reads @ c_by_h + factors.through_o * np.tanh(new)[:, None] * by_h["o"]
        jacobians.append(np.block([[h_by_h, reads @ c_by_c], [c_by_h, c_by_c]]))
        starts.append(np.concatenate([np.diag(o_before * (1 - np.tanh(c) ** 2)), np.eye(4)]))
        h, c, o_before = o * np.tanh(new), new, o
    product, log_norms = np.eye(8)[4:], [0.0]
    for jacobian, start in zip(jacobians[::-1], starts[::-1], strict=True):
        product = product @ jacobian
        log_norms.append(np.log(np.linalg.norm(product @ start, ord=2)))
    return np.array(log_norms)


def answers_by_hand(params, inputs, carry, path):
    ones = StepsByPath(*np.ones(5))
    up, down = (
        log_norms_by_hand(params, inputs, carry, ones._replace(**{path: 1 + d}))
        for d in (1e-5, -1e-5)
    )
    return (up - down) / 2e-5


def test_they_are_the_sensitivities_of_the_norm_to_a_factor_on_each_path():
    cell, params, inputs, carry = setup()
    exact = decomposition_norms(cell, params, inputs, carry=carry).exact_total
    ones = StepsByPath(*np.ones(5))
    np.testing.assert_allclose(log_norms_by_hand(params, inputs, carry, ones), exact, atol=1e-12)
    found = steps_by_path(cell, params, inputs, carry=carry)
    for path, steps in found._asdict().items():
        expected = answers_by_hand(params, inputs, carry, path)
        np.testing.assert_allclose(steps, expected, atol=1e-7, err_msg=path)


def test_they_sum_to_the_lag_with_peepholes_too():
    cell, params, inputs, carry = setup(peephole=True)
    paths = steps_by_path(cell, params, inputs, carry=carry)
    np.testing.assert_allclose(sum(paths), np.arange(T + 1), atol=1e-11)
    for name, steps in paths._asdict().items():
        assert (jnp.abs(steps[2:]) > 0).all(), name


def test_with_gates_of_the_inputs_alone_every_step_is_the_forget_path():
    cell, params, inputs, carry = setup()
    blind = {q: gate | {"W_h": jnp.zeros((4, 4))} for q, gate in params.items()}
    paths = steps_by_path(cell, blind, inputs, carry=carry)
    np.testing.assert_allclose(paths.forget, np.arange(T + 1), atol=1e-12)
    for name in ("through_f", "through_i", "through_g", "through_o"):
        np.testing.assert_array_equal(getattr(paths, name), 0)


def test_padded_steps_do_not_count():
    cell, params, inputs, carry = setup()
    mask = np.array([True, False, True, True, False, False])
    real_steps = np.array([0, 0, 0, 1, 2, 2, 3])  # within the lags 0 ... T
    paths = steps_by_path(cell, params, inputs, carry=carry, mask=jnp.asarray(mask))
    np.testing.assert_allclose(sum(paths), real_steps, atol=1e-12)
    expected = answers_by_hand(params, inputs[mask], carry, "through_g")[real_steps]
    np.testing.assert_allclose(paths.through_g, expected, atol=1e-7)
    padded = decomposition_norms(cell, params, inputs, carry=carry, mask=jnp.asarray(mask))
    short = decomposition_norms(cell, params, inputs[mask], carry=carry)
    for name, found in padded._asdict().items():
        by_lag = len(found) == T + 1
        value = np.asarray(getattr(short, name))
        np.testing.assert_allclose(
            found if by_lag else found[mask],
            value[real_steps] if by_lag else value,
            atol=1e-11,
            err_msg=name,
        )


def test_a_cell_that_is_no_lstm_is_refused():
    cell = gru(3, 4)
    with pytest.raises(ValueError, match="a carry with fields h and c"):
        steps_by_path(cell, cell.init(jax.random.key(0)), jnp.zeros((T, 3)))
