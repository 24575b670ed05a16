"""The parallel unroll of affine steps against the scan, and what it refuses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from gradflow import Cell, unroll
from gradflow.cells import CELLS, lru, mingru, resolve
from gradflow.unroll.affine import affine_scan, by_entries
from gradflow.unroll.parallel import recurrence_of
from gradflow.unroll.rules import RULES

T, B, INPUT, HIDDEN = 6, 2, 3, 4
FAST_TO_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

BLOCKS = {
    "deltanet": [(4, 4)],
    "gated_deltanet": [(4, 4)],
    "gla": [(16, 1)],
    "hgrn2": [(16, 1)],
    "lru": [(4, 2)],
    "mamba": [(64, 1)],
    "mamba2": [(64, 1)],
    "mingru": [(4, 1)],
    "minlstm": [(4, 1)],
    "mlstm(stabilised=False)": [(20, 1)],
    "retnet": [(8, 2)],
    "rg_lru": [(4, 1)],
    "rnn(activation='identity')": [(1, 4)],
    "rwkv7": [(4, 4)],
    "s4d": [(64, 2)],
    "s5": [(4, 2)],
}
"""The blocks of every cell whose step is affine: how many, and of how many entries."""


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    monkeypatch.setitem(RULES, "cpu", RULES["cpu"]._replace(chunk=3))


def normal(shape, seed):
    return jax.random.normal(jax.random.key(seed), shape)


def arguments_of(cell, batch=()):
    """Parameters, inputs and s_0, moved a little so that nothing is zero."""
    params = cell.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.1 * normal(leaf.shape, 3), params)
    start = jax.tree.map(lambda s: 0.3 * normal((*batch, *s.shape), 4), cell.initial_carry())
    return params, normal((T, *batch, INPUT), 1), start


def slopes(cell, method, params, inputs, carry, **options):
    """The gradients of a loss of every entry by all arguments, and the trajectory."""

    def loss(params, inputs, carry):
        found = unroll(cell, params, inputs, carry=carry, method=method, **options)
        flat = ravel_pytree(found)[0]
        return jnp.sum(jnp.sin(flat + jnp.arange(flat.size))), found

    return jax.grad(loss, (0, 1, 2), has_aux=True)(params, inputs, carry)


def both(derive, cell, arguments, **options):
    """What is derived of the scan and of the parallel run, in one program."""
    run = jax.jit(lambda *a: [derive(cell, m, *a, **options) for m in ("scan", "parallel")])
    return run.lower(*arguments).compile(FAST_TO_COMPILE)(*arguments)


def assert_same(pair, rtol=1e-12):
    def check(a, b):
        np.testing.assert_allclose(b, a, rtol=rtol, atol=rtol * max(1, np.abs(a).max(initial=0)))

    jax.tree.map(check, *pair)


def recurrence(cell):
    params, inputs, carry = arguments_of(cell)
    return recurrence_of(cell.step, params, carry, inputs[0])


@pytest.mark.parametrize("spec", BLOCKS)
def test_padded_batch_and_its_gradients_equal_the_scan(spec):
    cell = resolve(spec)(INPUT, HIDDEN)
    assert [group.shape for group in recurrence(cell).groups] == BLOCKS[spec]
    mask = jnp.ones((T, B), bool).at[jnp.array([0, 1, 4]), 1].set(False)
    assert_same(both(slopes, cell, arguments_of(cell, (B,)), mask=mask))


def test_every_other_cell_is_refused_before_it_is_run():
    affine = {spec.partition("(")[0] for spec in BLOCKS} - {"rnn", "mlstm"}
    found = {name: recurrence(CELLS[name](INPUT, HIDDEN)).obstacle for name in CELLS}
    assert {name for name, obstacle in found.items() if not obstacle} == affine
    cell = resolve("lstm")(INPUT, HIDDEN)
    params, inputs, _ = arguments_of(cell)
    with pytest.raises(ValueError, match=r"got one that applies logistic to it. Use method='auto'"):
        unroll(cell, params, inputs, method="parallel")


@pytest.mark.parametrize("remat", ["none", "step", "sqrt"])
def test_one_sequence_and_its_gradients_equal_the_scan(remat):
    cell = resolve("mamba")(INPUT, HIDDEN)
    assert_same(both(slopes, cell, arguments_of(cell), remat=remat))


def test_forward_and_second_derivatives_equal_the_scan():
    cell = lru(INPUT, HIDDEN)

    def derive(cell, method, *arguments):
        def total(params, inputs, carry):
            gradients = slopes(cell, method, params, inputs, carry)[0]
            return jnp.sum(jnp.sin(ravel_pytree(gradients)[0]))

        moves = jax.tree.map(jnp.cos, arguments)
        return jax.jvp(total, arguments, moves), jax.grad(total)(*arguments)

    assert_same(both(derive, cell, arguments_of(cell)), rtol=1e-10)


def test_mapped_runs_equal_the_batch():
    cell = mingru(INPUT, HIDDEN)
    params, inputs, carry = arguments_of(cell, (B,))
    one = lambda x, s: unroll(cell, params, x, carry=s, method="parallel")  # noqa: E731
    found = jax.vmap(one, in_axes=(1, 0), out_axes=1)(inputs, carry)
    assert_same([unroll(cell, params, inputs, carry=carry, method="parallel"), found])


def test_parameters_that_the_step_closes_over_have_gradients():
    cell = mingru(INPUT, HIDDEN)
    params, inputs, _ = arguments_of(cell)

    def loss(params, method):
        closed = cell._replace(step=lambda _, s, x: cell.step(params, s, x))
        return jnp.sum(jnp.sin(unroll(closed, (), inputs, method=method).outputs))

    assert_same([jax.grad(loss)(params, method) for method in ("scan", "parallel")])


def test_float32_stays_float32():
    cell = lru(INPUT, HIDDEN)
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), arguments_of(cell)[:2])
    found = unroll(cell, *narrow, method="parallel")
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    assert_same([unroll(cell, *narrow, method="scan"), found], rtol=1e-5)


def test_no_step_gives_the_initial_carry():
    cell = mingru(INPUT, HIDDEN)
    params, inputs, carry = arguments_of(cell)
    found = unroll(cell, params, inputs[:0], carry=carry, method="parallel")
    np.testing.assert_array_equal(found.carries, carry[None])


def scalar(step, size=1):
    """A cell without parameters whose carry has one leaf."""
    return Cell(lambda key: {}, step, lambda: jnp.full(size, 0.3))


def test_decays_whose_products_underflow_are_exact():
    cell = scalar(lambda _, s, x: (x[0] * s + x[1], s))
    inputs = jnp.stack([jnp.array([1e-200, 0, 1e-200, 1e150, 1, -1]), jnp.ones(6)], axis=1)
    found = unroll(cell, {}, inputs, method="parallel")
    np.testing.assert_allclose(found.carries, unroll(cell, {}, inputs, method="scan").carries)


def test_step_that_reads_no_carry_is_run():
    cell = scalar(lambda _, s, x: (jnp.tanh(x), jnp.tanh(x)))
    inputs = normal((T, 1), 1)
    found = unroll(cell, {}, inputs, method="parallel")
    np.testing.assert_allclose(found.outputs, np.tanh(inputs))


@jax.custom_jvp
def halved(s):
    return s / 2


@halved.defjvp
def _halved_slope(primals, tangents):
    return halved(*primals), 3 * tangents[0]


@jax.custom_vjp
def doubled(s):
    return 2 * s


doubled.defvjp(lambda s: (2 * s, None), lambda _, g: (5 * g,))

NOT_AFFINE = {
    "affine for small carries": (lambda s: jnp.where(s > 9, s, 2 * s), "gt"),
    "clipped": (lambda s: jnp.clip(s, -9, 9), "max"),
    "rounded": (lambda s: s + jnp.floor(1e-9 * s), "floor"),
    "truncated": (lambda s: s + s.astype(int), "convert_element_type"),
    "a comparison as a number": (lambda s: s + (s > 9), "gt"),
    "chosen by an index": (lambda s: s[jnp.argmax(s)] + 0 * s, "argmax"),
    "without a derivative": (lambda s: s / 2 + jax.lax.stop_gradient(s), "stop_gradient"),
    "in a jit": (jax.jit(lambda s: s * s), "mul"),
    "in a loop": (lambda s: jax.lax.fori_loop(0, 2, lambda _, s: s / 2, s), "scan"),
    "with a derivative of its own": (halved, "custom_jvp_call"),
    "with a reverse rule of its own": (doubled, "custom_vjp_call"),
    "divided by": (lambda s: 1 / s, "div"),
    "printed": (lambda s: (jax.debug.print("{}", s), s)[1], "debug_print|debug_callback|effect"),
}


@pytest.mark.parametrize("name", NOT_AFFINE)
def test_step_that_is_not_affine_whatever_the_values_is_refused(name):
    function, operation = NOT_AFFINE[name]
    cell = scalar(lambda _, s, x: (function(s) + x, s), size=2)
    with pytest.raises(ValueError, match=f"one that applies .*({operation})"):
        unroll(cell, {}, jnp.ones((T, 2)), method="parallel")


def test_derivative_rule_on_the_input_alone_is_kept():
    cell = scalar(lambda _, s, x: (s / 2 + halved(x), s))

    def loss(inputs, method):
        return jnp.sum(unroll(cell, {}, inputs, method=method).carries ** 2)

    inputs = normal((T, 1), 1)
    assert_same([jax.grad(loss)(inputs, method) for method in ("scan", "parallel")])


def test_blocks_multiplied_by_entries_equal_matrix_products():
    jacobians, sides = normal((T, 2, 2), 1), normal((T, 2, 3), 2)
    for reverse in (False, True):
        solve = partial(affine_scan, jacobians, sides, reverse=reverse)
        np.testing.assert_allclose(solve(product=by_entries), solve(), atol=1e-13)
