"""∂L/∂s_k against autodiff of whole unrolls, closed forms far below any float, and padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from products import problem, weighted

from gradflow.cells import gru, lstm, rnn
from gradflow.flow.adjoint import adjoints, log_adjoint_norms

CELLS = {
    "rnn": rnn(3, 4),
    "gru": gru(3, 4),
    "lstm": lstm(3, 4, peephole=True),
}
T = 9


setup = functools.partial(problem, num_steps=T)


def gradient_by_changes(loss, cell, params, inputs, carry):
    """The gradient of the loss by what is added to each of s_0 ... s_T, at nothing added."""

    def add(s, change):
        return jax.tree.map(jnp.add, s, change)

    @jax.jit
    @jax.grad
    def by_changes(changes):
        first = jax.tree.map(lambda leaf: leaf[0], changes)
        rest = jax.tree.map(lambda leaf: leaf[1:], changes)

        def body(s, now):
            x, change = now
            s = add(cell.step(params, s, x)[0], change)
            return s, cell.hidden(s)

        return loss(jax.lax.scan(body, add(carry, first), (inputs, rest))[1])

    return by_changes(jax.tree.map(lambda leaf: jnp.zeros((len(inputs) + 1, *leaf.shape)), carry))


def linear(hidden_size, gain):
    """h_t = gain · Q h_{t-1} + x_t with Q orthogonal."""
    cell = rnn(hidden_size, hidden_size, activation="identity")
    params = cell.init(jax.random.key(3))
    return cell, params | {"W_h": gain * params["W_h"], "W_x": jnp.eye(hidden_size)}


@pytest.mark.parametrize("name", CELLS)
def test_adjoints_equal_autodiff_by_a_change_of_every_carry(name):
    cell = CELLS[name]
    params, inputs, carry = setup(cell)
    measured = adjoints(cell, params, inputs, loss=weighted, carry=carry)
    expected = gradient_by_changes(weighted, cell, params, inputs, carry)
    assert jax.tree.structure(measured) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(measured), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("source", ["h", "c", "carry"])
def test_log_norms_are_those_of_the_block_of_the_adjoints(source):
    cell = CELLS["lstm"]
    params, inputs, carry = setup(cell)
    a = adjoints(cell, params, inputs, loss=weighted, carry=carry)
    block = {"h": a.h, "c": a.c, "carry": jnp.concatenate([a.h, a.c], axis=1)}[source]
    measured = log_adjoint_norms(cell, params, inputs, loss=weighted, carry=carry, source=source)
    # With h_T held fixed nothing depends on c_T any more.
    assert np.isneginf(measured[-1]) == (source == "c")
    last = T if source == "c" else T + 1
    expected = np.log(np.linalg.norm(block[:last], axis=1))
    np.testing.assert_allclose(measured[:last], expected, rtol=1e-12)


def test_the_default_carry_is_that_of_the_cell():
    cell = CELLS["lstm"]
    params, inputs, carry = setup(cell)
    by_default = adjoints(cell, params, inputs, loss=weighted)
    given = adjoints(cell, params, inputs, loss=weighted, carry=cell.initial_carry())
    other = adjoints(cell, params, inputs, loss=weighted, carry=carry)
    np.testing.assert_array_equal(by_default.c, given.c)
    assert not np.allclose(by_default.c, other.c)


@pytest.mark.parametrize("gain", [0.3, 1.0, 30.0])
def test_linear_cell_has_its_closed_form_beyond_any_float(gain):
    cell, params = linear(4, gain)
    inputs = jnp.zeros((2000, 4))
    measured = log_adjoint_norms(cell, params, inputs, loss=lambda h: h[-1, 0])
    np.testing.assert_allclose(
        measured, np.arange(2000, -1, -1) * np.log(gain), rtol=1e-12, atol=1e-11
    )


def test_adjoints_below_the_smallest_float_are_zero_and_above_the_largest_infinite():
    inputs = jnp.zeros((1000, 4))
    for gain, extreme in ((0.3, 0.0), (30.0, np.inf)):
        cell, params = linear(4, gain)
        measured = adjoints(cell, params, inputs, loss=lambda h: jnp.sum(h[-1]))
        np.testing.assert_array_equal(np.abs(measured[0]), extreme)
        assert np.isfinite(measured[-1]).all()


def test_contributions_of_very_different_size_add_up():
    # 0.3^478 is 1e-250: at step 1000 what comes from the end is as large as what is added there.
    cell, params = linear(1, 1.0)
    params = params | {"W_h": jnp.full((1, 1), 0.3)}

    def loss(h):
        return h[1477, 0] + 1e-250 * h[999, 0]

    measured = log_adjoint_norms(cell, params, jnp.zeros((1478, 1)), loss=loss)
    at_1000 = np.log(0.3**478 + 1e-250)
    np.testing.assert_allclose(measured[1000], at_1000, rtol=1e-12)
    np.testing.assert_allclose(measured[0], at_1000 + 1000 * np.log(0.3), rtol=1e-12)
    np.testing.assert_allclose(measured[1001], 477 * np.log(0.3), rtol=1e-12)


def test_outputs_that_the_loss_ignores_contribute_nothing():
    cell = CELLS["gru"]
    params, inputs, carry = setup(cell)
    measured = log_adjoint_norms(cell, params, inputs, loss=lambda h: h[4, 0], carry=carry)
    assert np.isneginf(measured[6:]).all()
    assert np.isfinite(measured[:6]).all()
    assert measured[5] == 0  # h_5 itself: the norm of a unit vector


def test_padding_repeats_the_last_real_step():
    cell = CELLS["lstm"]
    params, inputs, carry = setup(cell)
    short = adjoints(cell, params, inputs[:5], loss=lambda h: jnp.sum(h[-1] ** 2), carry=carry)
    padded = adjoints(
        cell, params, inputs, loss=lambda h: jnp.sum(h[-1] ** 2), carry=carry, lengths=5
    )
    mask = jnp.arange(T) < 5
    masked = adjoints(
        cell, params, inputs, loss=lambda h: jnp.sum(h[-1] ** 2), carry=carry, mask=mask
    )
    np.testing.assert_allclose(padded.c[:6], short.c, rtol=1e-12)
    np.testing.assert_allclose(padded.h[5:], np.broadcast_to(short.h[5], (5, 4)), rtol=1e-12)
    np.testing.assert_array_equal(masked.c, padded.c)


def test_a_changed_loss_is_not_served_from_the_jit_cache():
    cell = CELLS["rnn"]
    params, inputs, _ = setup(cell)

    class Task:
        scale = 1.0

        def loss(self, outputs):
            return self.scale * jnp.sum(outputs)

    task = Task()
    before = adjoints(cell, params, inputs, loss=task.loss)
    task.scale = 3.0
    after = adjoints(cell, params, inputs, loss=task.loss)
    np.testing.assert_allclose(after, 3 * before, rtol=1e-12)


def test_a_block_far_smaller_than_the_rest_of_the_carry_is_exact():
    cell = lstm(3, 4)
    params, inputs, carry = setup(cell)

    def measure(size):
        scaled = {gate: p | {"W_h": size * p["W_h"]} for gate, p in params.items()}
        return log_adjoint_norms(cell, scaled, inputs, loss=lambda h: h[-1, 0], carry=carry)

    # Both are far too small for the trajectory; ∂h_T/∂h_{T-1} is linear in W_h.
    difference = measure(1e-100)[T - 1] - measure(1e-200)[T - 1]
    np.testing.assert_allclose(difference, 100 * np.log(10), rtol=1e-12)


def test_a_loss_may_close_over_what_is_mapped():
    cell = CELLS["rnn"]
    params, inputs, _ = setup(cell)
    targets = jnp.stack([jnp.zeros((T, 4)), jnp.ones((T, 4))])

    def measure(target):
        return adjoints(cell, params, inputs, loss=lambda h: jnp.mean((h - target) ** 2))

    together = jax.jit(jax.vmap(measure))(targets)
    np.testing.assert_allclose(together[1], measure(targets[1]), rtol=1e-12)


def test_float32_stays_float32_and_goes_below_it():
    cell, params = linear(4, 0.3)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    inputs = jnp.zeros((300, 4), jnp.float32)
    measured = log_adjoint_norms(cell, params, inputs, loss=lambda h: h[-1, 0])
    assert measured.dtype == jnp.float32
    np.testing.assert_allclose(measured, np.arange(300, -1, -1) * np.log(0.3), rtol=1e-5, atol=1e-5)
    assert adjoints(cell, params, inputs, loss=lambda h: h[-1, 0]).dtype == jnp.float32


def test_log_norms_are_differentiable():
    cell = CELLS["gru"]
    params, inputs, carry = setup(cell)

    def measure(bias):
        p = params | {"z": params["z"] | {"b": bias}}
        return jnp.sum(log_adjoint_norms(cell, p, inputs, loss=weighted, carry=carry))

    bias, eps = params["z"]["b"], 1e-5
    differences = [
        (measure(bias + eps * e) - measure(bias - eps * e)) / (2 * eps) for e in jnp.eye(4)
    ]
    np.testing.assert_allclose(jax.grad(measure)(bias), differences, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    ("loss", "error", "match"),
    [
        (lambda h: jnp.sum(h, axis=1), ValueError, r"a loss of shape \(\) .* got shape \(9,\)"),
        (lambda h: h[-1], ValueError, "Sum it"),
        (lambda h: jnp.argmax(h), TypeError, "a floating array, got .*int"),
        (lambda h: (jnp.sum(h), h), TypeError, "Return the loss alone"),
        (lambda h: None, TypeError, "got None"),
    ],
)
def test_a_loss_that_is_not_a_scalar_is_an_error(loss, error, match):
    cell = CELLS["rnn"]
    params, inputs, _ = setup(cell)
    with pytest.raises(error, match=match):
        adjoints(cell, params, inputs, loss=loss)


def test_a_block_that_is_not_there_is_an_error():
    cell = CELLS["lstm"]
    params, inputs, _ = setup(cell)
    with pytest.raises(ValueError, match="one of h, carry, c, got 'z'"):
        log_adjoint_norms(cell, params, inputs, loss=weighted, source="z")


def test_no_step_is_no_sequence():
    cell = CELLS["lstm"]
    params, _, carry = setup(cell)
    with pytest.raises(ValueError, match="Expected inputs of at least one step"):
        adjoints(cell, params, jnp.zeros((0, 3)), loss=jnp.sum, carry=carry)
