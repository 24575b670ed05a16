"""The study of modern cells: its norms by automatic differentiation, structures, and verdicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from studies import load, verdicts

from gradflow import study
from gradflow.cells import mingru
from gradflow.tasks import resolve_task

MODULE = load("modern")
EXPERIMENT = MODULE.EXPERIMENT
CONFIG = EXPERIMENT.resolve({}, quick=True)


def test_the_norms_are_those_of_automatic_differentiation(dataset):
    cell, run, lag = mingru(6, 4), 1, 5
    keys = jax.random.split(jax.random.key(CONFIG.seed), CONFIG.num_seeds)
    with study.precision(CONFIG):
        params = cell.init(jax.random.split(jax.random.fold_in(keys[run], 0))[0])
    params = jax.tree.map(lambda leaf: leaf.astype(float), params)
    task = resolve_task(f"copy(lag={12 - 4}, num_symbols=4, num_recalled=2)")
    inputs = task.sample(jax.random.fold_in(keys[run], 16), 1).inputs[:, 0]

    def run_from(carry, inputs):
        for x in inputs:
            carry = cell.step(params, carry, x)[0]
        return carry

    before = run_from(cell.initial_carry(), inputs[:-lag])
    jacobian = jax.jacobian(run_from)(before, inputs[-lag:])
    expected = jnp.log(jnp.linalg.norm(jax.tree.leaves(jacobian)[0], ord=2))
    found = dataset.log_norm.sel(task="copying", cell="mingru", stage="initialised", lag=lag)
    np.testing.assert_allclose(found[run], expected, atol=1e-9)
    trained = dataset.log_norm.sel(task="copying", cell="mingru", stage="trained", lag=lag)
    assert abs(trained[run] - expected) > 1e-4


def test_the_structure_is_that_of_the_cells(dataset):
    sizes = [
        tuple(int(dataset[name].sel(cell=cell)) for name in ("num_blocks", "block_size"))
        for cell in dataset.cell.values
    ]
    assert sizes == [(1, 4), (4, 1), (4, 2)]
    assert list(dataset.block.values) == ["h", "h", "S"]


def with_norms(dataset, change, largest=0.0):
    """The record with norms that the training changes by so much, and the GRU's loss largest."""
    order = np.arange(3.0)[None, :, None]
    trained = (np.array([0.0, change])[:, None] + 0.01 * np.arange(2))[None, None, :, :, None]
    norms = 0 * dataset.log_norm + trained + 0.1 * order[..., None, None]
    norms = norms.where(dataset.lag > 0, largest)
    return dataset.assign(log_norm=norms, loss=0 * dataset.loss - order)


def test_the_claims_are_decided_by_the_numbers(dataset):
    def of(*numbers):
        return list(verdicts(EXPERIMENT.claims(with_norms(dataset, *numbers))).values())

    assert of(1.0) == ["supported"] * 4
    assert of(-1.0, 3.0) == ["supported", "not supported", "not supported", "supported"]
    dense = dataset.assign(num_blocks=1 + 0 * dataset.num_blocks)
    assert verdicts(EXPERIMENT.claims(dense))["falls-into-blocks"] == "not supported"


def test_an_unknown_task_is_reported():
    with pytest.raises(ValueError, match="Unknown task 'adding'. Known: copying, parity"):
        EXPERIMENT.run(EXPERIMENT.resolve({"tasks": ("adding",)}, quick=True), study.call)
