"""Carries that fall into blocks: the same numbers as from the whole Jacobian, for any cell."""

import logging
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from products import step_jacobians
from truths import generator

from gradflow import Cell, flow
from gradflow.cells import CELLS, resolve
from gradflow.flow.blocks import Blocks
from gradflow.flow.step_pattern import default_block
from gradflow.flow.structure import structure_of
from gradflow.flow.trace import trace_of

T, WHOLE = 7, {"source": "carry", "target": "carry"}


def problem(cell, input_size=3, num_steps=T, seed=0):
    keys = jax.random.split(jax.random.key(seed), 2)
    return cell.init(keys[0]), jax.random.normal(keys[1], (num_steps, input_size))


def structure(cell, params, inputs, source="carry", target="carry"):
    return structure_of(trace_of(cell, params, inputs), Blocks(source, target))


def products(jacobians):
    """∂s_T/∂s_k for every lag."""
    found = [np.eye(jacobians.shape[1])]
    for jacobian in jacobians[::-1]:
        found.append(found[-1] @ jacobian)
    return np.stack(found)


def assert_close(measured, truth, tolerance=1e-9):
    measured, truth = np.asarray(measured), np.asarray(truth)
    same = (measured == truth) | (np.isnan(measured) & np.isnan(truth))
    with np.errstate(invalid="ignore"):
        assert np.all(same | (np.abs(measured - truth) <= tolerance))


DECOUPLED = {
    "indrnn": (1, 5),
    "lru": (2, 4),
    "mingru": (1, 4),
    "minlstm": (1, 4),
    "unicornn": (2, 5),
}
"""Cells whose carry falls into blocks: the size of a block, and their number."""


@pytest.mark.parametrize("name", sorted(DECOUPLED))
def test_the_norms_of_blocks_are_those_of_the_whole(name):
    size, count = DECOUPLED[name]
    cell = resolve(name)(3, count)
    params, inputs = problem(cell)
    (group,) = structure(cell, params, inputs).groups
    assert group.entries.shape == (count, 1, size)
    truth = products(step_jacobians(cell, params, inputs))
    with np.errstate(divide="ignore"):
        norms = np.log(np.linalg.norm(truth, ord=2, axis=(1, 2)))
    assert_close(flow.log_norms(cell, params, inputs, **WHOLE), norms)


@pytest.mark.parametrize("name", ["indrnn", "lru"])
def test_other_measurements_of_blocks_are_those_of_the_whole(name):
    cell = resolve(name)(3, DECOUPLED[name][1])
    params, inputs = problem(cell)
    jacobians = step_jacobians(cell, params, inputs)
    truth = products(jacobians)
    with np.errstate(divide="ignore"):
        values = np.log(np.linalg.svd(truth, compute_uv=False))
        frobenius = np.log(np.linalg.norm(truth, axis=(1, 2)))
    assert_close(flow.log_norms(cell, params, inputs, norm="frobenius", **WHOLE), frobenius)
    assert_close(flow.log_singular_values(cell, params, inputs, **WHOLE)[:4], values[:4])
    norm_map = flow.log_norm_map(cell, params, inputs, **WHOLE)
    for t in (3, T):
        with np.errstate(divide="ignore"):
            truth_t = np.log(np.linalg.norm(products(jacobians[:t]), ord=2, axis=(1, 2)))
        assert_close(norm_map[t, : t + 1][::-1], truth_t)
    exponents = flow.lyapunov_exponents(cell, params, inputs).exponents
    assert_close(jnp.sum(exponents), np.linalg.slogdet(jacobians)[1].mean())


def test_cells_without_blocks_are_measured_as_a_whole():
    """A stack couples its layers, although the units of each are independent."""
    for name in ("rnn", "lstm", "gru", "clockwork", "stack(cells='indrnn,indrnn')"):
        cell = resolve(name)(3, 4)
        assert structure(cell, *problem(cell)) is None


def blocks_in_random_order(sizes, random):
    """A linear cell whose units, in any order, fall into blocks of these sizes."""
    total = sum(sizes)
    parts = np.split(random.permutation(total), np.cumsum(sizes)[:-1])

    def init(key):
        keys = jax.random.split(key, len(sizes))
        return [jax.random.normal(k, (n, n)) for k, n in zip(keys, sizes, strict=True)]

    def step(params, h, x):
        new = jnp.zeros_like(h)
        for matrix, part in zip(params, parts, strict=True):
            new = new.at[part].set(matrix @ h[part] * (1 + x[0]))
        return new, new

    return Cell(init, step, lambda: jnp.ones(total))


def test_blocks_of_different_sizes_in_any_order():
    cell = blocks_in_random_order([1, 1, 2, 2, 3], generator("sizes"))
    params, inputs = problem(cell, 1)
    found = structure(cell, params, inputs)
    assert sorted(group.entries.shape for group in found.groups) == [
        (1, 1, 3),
        (2, 1, 1),
        (2, 1, 2),
    ]
    truth = products(step_jacobians(cell, params, inputs))
    values = np.log(np.linalg.svd(truth, compute_uv=False))
    assert_close(flow.log_norms(cell, params, inputs), values[:, 0])
    assert_close(flow.log_singular_values(cell, params, inputs)[:3], values[:3])
    assert_close(flow.leading_singular_values(cell, params, inputs, [1, 3]), values[[1, 3]])


def test_too_many_kinds_of_blocks_are_measured_as_a_whole():
    cell = blocks_in_random_order([1, 2, 3, 4, 5], generator("kinds"))
    assert structure(cell, *problem(cell, 1)) is None


class Pair(NamedTuple):
    S: jax.Array
    h: jax.Array


def delta(rows=4, columns=3, gate=lambda row, x: 1.0):
    """The delta rule: each row of S is multiplied by one matrix, and h is read out."""

    def init(key):
        return {"k": jax.random.normal(key, (columns, 2)), "v": jnp.ones((rows, 2))}

    def step(params, carry, x):
        k = params["k"] @ x / jnp.linalg.norm(params["k"] @ x)
        gates = jnp.stack([gate(row, x) * jnp.ones(()) for row in range(rows)])
        kept = gates[:, None] * (carry.S - jnp.outer(carry.S @ k, k) * 0.9)
        S = kept + jnp.outer(params["v"] @ x, k)
        return Pair(S, S @ k), S @ k

    carry = lambda: Pair(jnp.ones((rows, columns)), jnp.zeros(rows))  # noqa: E731
    return Cell(init, step, carry, hidden=lambda carry: carry.h)


def test_rows_with_one_matrix_in_common_are_measured_once():
    cell = delta()
    params, inputs = problem(cell, 2)
    state = {"source": "S", "target": "S"}
    (group,) = structure(cell, params, inputs, "S", "S").groups
    assert group.entries.shape == (1, 4, 3) and group.rounds == 1
    truth = products(step_jacobians(cell, params, inputs)[:, :12, :12])
    values = np.log(np.linalg.svd(truth, compute_uv=False))
    assert_close(flow.log_norms(cell, params, inputs, **state), values[:, 0])
    frobenius = flow.log_norms(cell, params, inputs, norm="frobenius", **state)
    assert_close(frobenius, np.log(np.linalg.norm(truth, axis=(1, 2))))
    assert_close(flow.log_singular_values(cell, params, inputs, **state)[:4], values[:4])
    exponents = flow.lyapunov_exponents(cell, params, inputs).exponents
    assert exponents.shape == (16,) and np.all(np.isneginf(exponents[12:]))
    jacobians = step_jacobians(cell, params, inputs)[:, :12, :12]
    assert_close(jnp.sum(exponents[:12]), np.linalg.slogdet(jacobians)[1].mean())


def test_rows_that_differ_only_for_rare_inputs_are_measured_apart():
    """At random points one matrix serves all rows; the inputs of this sequence tell them apart."""
    cell = delta(gate=lambda row, x: jnp.where(x[0] > 50, 0.5**row, 1.0))
    params, inputs = problem(cell, 2)
    inputs, state = inputs.at[3, 0].set(60.0), {"source": "S", "target": "S"}
    assert structure(cell, params, inputs, "S", "S").groups[0].entries.shape == (1, 4, 3)
    truth = products(step_jacobians(cell, params, inputs)[:, :12, :12])
    values = np.log(np.linalg.svd(truth, compute_uv=False))
    assert_close(flow.log_norms(cell, params, inputs, **state), values[:, 0])
    assert_close(flow.log_singular_values(cell, params, inputs, **state)[:5], values[:5])
    in_chunks = flow.in_chunks(flow.log_singular_values, chunk_steps=2)
    assert_close(in_chunks(cell, params, inputs, **state)[:5], values[:5])
    # Within a compiled function nothing can be decided by values: NaN, and no wrong number.
    compiled = jax.jit(lambda x: flow.log_norms(cell, params, x, **state))(inputs)
    assert np.all(np.isnan(compiled))


def test_derivatives_of_a_cells_own_that_mix_blocks_are_seen():
    @jax.custom_jvp
    def straight(h):
        return 0.5 * h

    straight.defjvp(lambda h, dh: (0.5 * h[0], 0.5 * dh[0] + 0.1 * jnp.roll(dh[0], 1)))

    def step(params, h, x):
        h = jnp.tanh(straight(h) + params * x[0])
        return h, h

    cell = Cell(lambda key: jnp.ones(4), step, lambda: jnp.zeros(4))
    params, inputs = problem(cell, 1)
    assert structure(cell, params, inputs) is None
    truth = products(step_jacobians(cell, params, inputs))
    assert_close(flow.log_norms(cell, params, inputs), np.log(np.linalg.norm(truth, 2, (1, 2))))


def test_a_program_without_a_rule_is_taken_as_dense(caplog):
    def step(params, h, x):
        h = jnp.fft.ifft(jnp.fft.fft(h) * params).real + x[0]
        return h, h

    cell = Cell(lambda key: jax.random.normal(key, (4,)), step, lambda: jnp.zeros(4))
    with caplog.at_level(logging.DEBUG, logger="gradflow"):
        assert structure(cell, *problem(cell, 1)) is None


def test_h_that_no_step_reads_is_not_the_default():
    cell = delta()
    params, inputs = problem(cell, 2)
    assert default_block(cell, params, inputs) == "S"
    lstm = CELLS["lstm"](3, 4)
    assert default_block(lstm, *problem(lstm)) == "h"
    nameless = cell._replace(
        step=lambda p, s, x: (tuple(cell.step(p, Pair(*s), x)[0]), cell.step(p, Pair(*s), x)[1]),
        initial_carry=lambda: tuple(cell.initial_carry()),
        hidden=lambda carry: carry[1],
    )
    assert default_block(nameless, params, inputs) == "0"


def test_blocks_are_counted_by_size():
    cell = delta()
    assert flow.block_sizes(cell, *problem(cell, 2), block="S") == {3: 4}
    assert flow.block_sizes(cell, *problem(cell, 2)) == {16: 1}
    cell = CELLS["lstm"](3, 4)
    assert flow.block_sizes(cell, *problem(cell)) == {8: 1}
    with pytest.raises(ValueError, match="Expected the name of a block"):
        flow.block_sizes(cell, *problem(cell), block="q")


def test_several_fields_are_one_block():
    cell = CELLS["lstm"](3, 4)
    params, inputs = problem(cell)
    both = flow.log_norms(cell, params, inputs, source="h,c", target="h,c")
    assert_close(both, flow.log_norms(cell, params, inputs, **WHOLE), 1e-12)
    with pytest.raises(ValueError, match="Expected the name of a block of the carry"):
        flow.log_norms(cell, params, inputs, source="h,q")


def diagonal():
    def step(params, h, x):
        h = params * h * (1 + 0 * x[0])
        return h, h

    return Cell(lambda key: jnp.array([0.5, 1e-200]), step, lambda: jnp.ones(2))


def test_a_weak_block_is_not_lost_beside_a_strong_one():
    cell = diagonal()
    params, inputs = problem(cell, 1)
    values = flow.log_singular_values(cell, params, inputs)
    assert_close(values, np.arange(T + 1)[:, None] * np.log([0.5, 1e-200]), 1e-9)
    expected = np.log([0.5, 1e-200])
    assert_close(flow.lyapunov_exponents(cell, params, inputs).exponents, expected)


def test_padding_and_states_that_are_not_finite():
    cell = diagonal()
    params, inputs = problem(cell, 1)
    padded = flow.log_norms(cell, params, inputs, lengths=4)
    assert_close(padded, np.log(0.5) * np.maximum(np.arange(T + 1) - 3, 0))
    growing = jnp.array([1e100, 2.0])
    norms = flow.log_norms(cell, growing, inputs)
    assert np.all(np.isnan(norms[1:])) and norms[0] == 0
    assert np.isnan(flow.log_norm_map(cell, growing, inputs)[T, 0])


def test_derivatives_of_norms_and_runs_side_by_side():
    cell = resolve("unicornn")(3, 3)
    params, inputs = problem(cell)
    dense = cell._replace(step=lambda p, s, x: jax.tree.map(lambda a: a, cell.step(p, s, x)))

    def last(cell, gain):
        return flow.log_norms(cell, jax.tree.map(lambda w: gain * w, params), inputs, **WHOLE)[-1]

    slope = jax.grad(lambda gain: last(cell, gain))(1.0)
    change = (last(dense, 1.0 + 1e-6) - last(dense, 1.0 - 1e-6)) / 2e-6
    assert_close(slope, change, 1e-6)
    batch = jnp.stack([inputs, 2 * inputs])
    both = jax.vmap(lambda x: flow.log_norms(cell, params, x, **WHOLE))(batch)
    each = [flow.log_norms(cell, params, x, **WHOLE) for x in batch]
    assert_close(both, jnp.stack(each), 1e-12)
