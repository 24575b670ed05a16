"""The planned unroll against the scan: values and all derivatives of every cell."""

import logging
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow import Cell, unroll
from gradflow.cells import CELLS, gru, lstm, resolve
from gradflow.unroll.planner import plan_of, run_plan
from gradflow.unroll.planner.plan import weights_of
from gradflow.unroll.rules import rules

T, B, INPUT, HIDDEN = 6, 2, 3, 4
LENGTHS = jnp.array([6, 3])
# Programs this small run at once, but take long to optimise.
FAST_TO_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def normal(shape, seed):
    return jax.random.normal(jax.random.key(seed), shape)


def params_of(cell):
    """Initial parameters, moved a little so that nothing is zero."""
    params = cell.init(jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf + 0.1 * normal(leaf.shape, 3), params)


def start_of(cell, batch=(B,)):
    return jax.tree.map(lambda s: 0.3 * normal((*batch, *s.shape), 4), cell.initial_carry())


def evaluate(function, *arguments):
    return jax.jit(function).lower(*arguments).compile(FAST_TO_COMPILE)(*arguments)


def loss(cell, params, inputs, carry, **options):
    """A loss of every entry of the trajectory, and the trajectory."""
    trajectory = unroll(cell, params, inputs, carry=carry, **options)
    waves = [jnp.sin(leaf + jnp.arange(leaf.size).reshape(leaf.shape)).sum()
             for leaf in jax.tree.leaves(trajectory)]  # fmt: skip
    return sum(waves, jnp.zeros(())), trajectory


def gradients(cell, params, inputs, carry, **options):
    """Gradients by parameters, inputs and s_0, and the trajectory."""
    argnums = (1, 2, 3)
    return jax.grad(loss, argnums, has_aux=True)(cell, params, inputs, carry, **options)


def assert_same(results, rtol=1e-12):
    """Asserts that trees are equal to rounding, relative to each leaf's largest entry."""
    first, *others = results

    def check(a, b):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(1, np.abs(a).max(initial=0)))

    for other in others:
        jax.tree.map(check, first, other)


def assert_ways_agree(cell, derive, ways, *, batch=(B,)):
    """Asserts that several ways of running an unroll agree, all compiled in one program."""
    arguments = params_of(cell), normal((T, *batch, INPUT), 1), start_of(cell, batch)
    assert_same(evaluate(lambda *a: [derive(cell, *a, **way) for way in ways], *arguments))


SCANNED, JOINED, PLANNED = ({"method": name} for name in ("scan", "joined", "planned"))


@pytest.mark.parametrize("name", CELLS)
def test_planned_gradients_equal_the_scan(name):
    assert_ways_agree(CELLS[name](INPUT, HIDDEN), gradients, [SCANNED, JOINED, PLANNED])


@pytest.mark.parametrize("name", ["lstm", "gru_reset_before", "minlstm"])
def test_planned_gradients_with_padding_equal_the_scan(name):
    derive = partial(gradients, lengths=LENGTHS)
    assert_ways_agree(CELLS[name](INPUT, HIDDEN), derive, [SCANNED, PLANNED])


@pytest.mark.parametrize("name", ["lstm", "stack(cells='gru_reset_before,rnn')"])
def test_rematerialised_gradients_equal_the_scan(name):
    kept = [SCANNED, PLANNED]
    again = [way | {"remat": remat} for way in kept for remat in ("step", "sqrt")]
    assert_ways_agree(resolve(name)(INPUT, HIDDEN), gradients, [SCANNED, *again])


def test_planned_gradients_of_a_single_sequence_equal_the_scan():
    assert_ways_agree(gru(INPUT, HIDDEN), gradients, [SCANNED, PLANNED], batch=())


def pushed(cell, params, inputs, carry, **options):
    """The tangent of the trajectory along fixed tangents of all arguments."""
    tangents = jax.tree.map(jnp.cos, (params, inputs, carry))
    run = partial(unroll, cell, **options)
    return jax.jvp(lambda p, x, s: run(p, x, carry=s), (params, inputs, carry), tangents)


def curved(cell, params, inputs, carry, **options):
    """Second derivatives of the loss: forward over reverse, and reverse over reverse."""
    move = partial(jax.tree.map, jnp.cos)

    def slope(params, inputs):
        gradient = gradients(cell, params, inputs, carry, **options)[0]
        return sum(jnp.vdot(g, jnp.sin(g)) for g in jax.tree.leaves(gradient))

    tangents = move(params), move(inputs)
    return jax.jvp(slope, (params, inputs), tangents)[1], jax.grad(slope)(params, inputs)


@pytest.mark.parametrize("name", ["lstm", "gru_reset_before"])
def test_forward_mode_and_second_derivatives_equal_the_scan(name):
    cell = CELLS[name](INPUT, HIDDEN)
    for derive in (pushed, curved):
        assert_ways_agree(cell, derive, [SCANNED, PLANNED])


def test_planned_gradients_under_vmap_equal_the_scan():
    cell = lstm(INPUT, HIDDEN)
    params = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf, -leaf]), params_of(cell))
    inputs, carry = normal((T, B, INPUT), 1), start_of(cell)

    def each(params, **options):
        return jax.vmap(lambda p: gradients(cell, p, inputs, carry, **options))(params)

    assert_same(evaluate(lambda p: [each(p, **SCANNED), each(p, **PLANNED)], params))


def odd_cell() -> Cell:
    """A cell with products of both orders, a product used twice, other uses of a matrix, a jit."""
    scale = jnp.linspace(0.5, 1.5, HIDDEN)

    def init(key):
        return {"kernel": normal((INPUT, HIDDEN), 5), "W": 0.5 * normal((HIDDEN, HIDDEN), 6)}

    @jax.jit
    def step(params, h, x):
        W = params["W"] * scale
        twice = W @ h
        a = x @ params["kernel"] + h @ W + params["kernel"][0]
        through = W.T @ jnp.tanh(a + twice)
        h = jnp.tanh(through + twice * h + jnp.trace(params["W"]) * h + W @ jnp.sin(W @ x_like(x)))
        return h, h

    def x_like(x):
        return jnp.concatenate([x, x[:1]])

    return Cell(init, step, lambda: jnp.zeros(HIDDEN))


def test_planned_gradients_of_an_unusual_user_cell_equal_the_scan():
    assert_ways_agree(odd_cell(), gradients, [SCANNED, PLANNED])
    assert_ways_agree(odd_cell(), pushed, [SCANNED, PLANNED])


def test_closed_over_parameters_have_gradients():
    cell = gru(INPUT, HIDDEN)
    inputs = normal((T, B, INPUT), 1)

    def total(params, method):
        closed = cell._replace(step=lambda _, s, x: cell.step(params, s, x))
        return jnp.sin(unroll(closed, (), inputs, method=method).outputs).sum()

    both = jax.jit(lambda p: [jax.grad(total)(p, method) for method in ("scan", "planned")])
    assert_same(both(params_of(cell)))


def plain_cell(step) -> Cell:
    return Cell(lambda key: {"w": jnp.ones(INPUT)}, step, lambda: jnp.zeros(INPUT))


def test_step_without_products_is_scanned_with_a_logged_reason(caplog):
    cell = plain_cell(lambda params, h, x: (params["w"] * h + x,) * 2)
    inputs = normal((T, B, INPUT), 1)
    with caplog.at_level(logging.DEBUG, logger="gradflow"):
        planned = unroll(cell, {"w": jnp.ones(INPUT)}, inputs, method="planned").outputs
    assert "no product of a matrix of parameters with a vector" in caplog.text
    np.testing.assert_allclose(planned, jnp.cumsum(inputs, 0), rtol=1e-12)


def test_step_with_side_effects_is_scanned(caplog, capsys):
    def step(params, h, x):
        jax.debug.print("here", ordered=True)
        return (jnp.diag(params["w"]) @ h + x,) * 2

    with caplog.at_level(logging.DEBUG, logger="gradflow"):
        unroll(plain_cell(step), {"w": jnp.ones(INPUT)}, normal((T, INPUT), 1), method="planned")
        jax.effects_barrier()
    assert "side effects" in caplog.text and capsys.readouterr().out.count("here") >= T


def test_cell_with_an_empty_carry_is_scanned(caplog):
    cell = Cell(lambda key: {}, lambda p, s, x: (s, p["W"] @ x), lambda: (), lambda s: jnp.ones(1))
    inputs = normal((T, B, INPUT), 1)
    with caplog.at_level(logging.DEBUG, logger="gradflow"):
        outputs = unroll(cell, {"W": jnp.eye(INPUT)}, inputs, method="planned").outputs
    assert "its carry is empty" in caplog.text
    np.testing.assert_allclose(outputs, inputs, rtol=1e-12)


@pytest.mark.parametrize("remat", ["step", "sqrt"])
def test_joined_gradients_with_recomputed_steps_equal_the_scan(remat):
    assert_ways_agree(lstm(INPUT, HIDDEN), gradients, [SCANNED, JOINED | {"remat": remat}])


def test_a_single_sequence_with_joined_products_equals_the_scan():
    assert_ways_agree(gru(INPUT, HIDDEN), gradients, [SCANNED, JOINED], batch=())


def test_joined_products_are_fewer_than_those_of_the_scan():
    cell, x = lstm(INPUT, HIDDEN), jnp.zeros((T, B, INPUT))
    count = lambda way: sum(  # noqa: E731
        str(body).count("dot_general")
        for body in inner_loops(
            jax.make_jaxpr(lambda p: unroll(cell, p, x, **way))(params_of(cell))
        )
    )
    assert (count(SCANNED), count(JOINED)) == (8, 2)


def test_several_segments_and_a_remainder_equal_the_scan():
    cell, steps = CELLS["gru"](INPUT, HIDDEN), 2 * rules().segment + 3
    arguments = params_of(cell), normal((steps, B, INPUT), 1), start_of(cell)
    ways = SCANNED, PLANNED
    assert_same(evaluate(lambda *a: [gradients(cell, *a, **way) for way in ways], *arguments))


def test_autonomous_batch_equals_the_scan():
    cell = CELLS["gru"](0, HIDDEN)
    arguments = params_of(cell), jnp.zeros((T, B, 0)), start_of(cell)
    ways = SCANNED, PLANNED
    assert_same(evaluate(lambda *a: [gradients(cell, *a, **way) for way in ways], *arguments))


def test_zero_steps_return_the_initial_carry():
    cell = lstm(INPUT, HIDDEN)
    trajectory = unroll(cell, params_of(cell), jnp.zeros((0, B, INPUT)), method="planned")
    assert trajectory.outputs.shape == (0, B, HIDDEN) and trajectory.carries.c.shape[0] == 1


def test_auto_scans_a_single_sequence():
    cell = lstm(INPUT, HIDDEN)
    params, inputs = params_of(cell), normal((T, INPUT), 1)
    run = lambda method: jax.make_jaxpr(lambda p: unroll(cell, p, inputs, method=method))  # noqa: E731
    assert str(run("auto")(params)) == str(run("scan")(params)) != str(run("planned")(params))


@pytest.mark.parametrize(
    ("backend", "small", "large"),
    [
        ("cpu", "planned", "scan"),
        ("gpu", "joined", "joined"),
        ("tpu", "joined", "joined"),
        ("another", "joined", "joined"),
    ],
)
def test_auto_follows_the_table_of_the_backend(monkeypatch, backend, small, large):
    """On CPU a batch is planned up to a limit; elsewhere its products are joined, and no more."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    limit = rules().most_planned
    for batch, way in ((max(limit, 1), small), (limit + 1, large)):
        x = jax.ShapeDtypeStruct((T, batch, INPUT), float)
        cell = lstm(INPUT, HIDDEN)
        params = jax.eval_shape(cell.init, jax.random.key(0))
        run = lambda m, c=cell: jax.make_jaxpr(lambda p, xs: unroll(c, p, xs, method=m))  # noqa: E731
        assert str(run("auto")(params, x)) == str(run(way)(params, x))


def inner_loops(jaxpr):
    """The bodies of the innermost loops."""
    found = []
    for eqn in jaxpr.eqns:
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                below = inner_loops(inner)
                found += below or ([inner] if eqn.primitive.name == "scan" else [])
    return found


@pytest.mark.parametrize(
    "name, products", [("lstm", [2, 1]), ("gru", [3, 1]), ("gru_reset_before", [4, 2])]
)
def test_products_are_joined_in_the_forward_and_the_backward_loop(name, products):
    cell = CELLS[name](INPUT, HIDDEN)
    params = params_of(cell)
    carry, x = cell.initial_carry(), jnp.zeros(INPUT)
    plan = plan_of(cell.step, params, carry, x)
    batch = jax.tree.map(lambda s: jnp.zeros((B, *s.shape)), carry)

    def total(params):
        return run_plan(plan, True, params, batch, normal((T, B, INPUT), 1))[1].sum()

    loops = inner_loops(jax.make_jaxpr(jax.grad(total))(params).jaxpr)
    assert [str(loop).count("dot_general") for loop in loops] == products


def test_products_of_an_lstm_are_joined():
    cell = lstm(INPUT, HIDDEN)
    params = params_of(cell)
    plan = plan_of(cell.step, params, cell.initial_carry(), jnp.zeros(INPUT))
    weights = weights_of(plan, params)
    order = [gate for row in weights.by_carry[0][::HIDDEN] for gate in "ifgo"
             if (params[gate]["W_h"][0] == row).all()]  # fmt: skip
    assert sorted(order) == sorted("ifgo") and len(plan.blocks) == 1
    for name, stack in (("W_h", weights.by_carry[0]), ("W_x", weights.by_input[0][0]),
                        ("b", weights.biases[0])):  # fmt: skip
        expected = jnp.concatenate([params[gate][name] for gate in order])
        np.testing.assert_array_equal(stack, expected)
