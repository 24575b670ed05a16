"""The study of state tracking: accuracies and eigenvalues by hand, and its verdicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from studies import load, verdicts

from gradflow import Cell, study
from gradflow.cells import deltanet
from gradflow.tasks import resolve_task

MODULE = load("state_tracking")
EXPERIMENT = MODULE.EXPERIMENT


def counter(modulus: int) -> Cell:
    """A cell that counts the second symbol of its one-hot inputs, mod m."""

    def step(params, carry, x):
        carry = (carry + x[1]) % modulus
        return carry, jax.nn.one_hot(carry.astype(int), modulus)

    return Cell(
        init=lambda key: (),
        step=step,
        initial_carry=lambda: jnp.zeros(()),
        hidden=lambda carry: jax.nn.one_hot(carry.astype(int), modulus),
    )


@pytest.mark.parametrize(("read_out", "expected"), [(1.0, 1.0), (-1.0, -1.0), (0.0, 0.0)])
def test_accuracies_are_scaled_between_guessing_and_perfect(read_out, expected, key):
    params = {"cell": (), "readout": {"W": read_out * jnp.eye(2), "b": jnp.zeros(2)}}
    task = resolve_task("parity(num_steps=9)")
    found = MODULE._accuracies(counter(2), task, 2000, params, key)
    np.testing.assert_allclose(found, expected, atol=0.08)
    assert expected == 0 or (found == expected).all()


def test_steps_without_a_target_are_left_out(key):
    params = {"cell": (), "readout": {"W": jnp.eye(3), "b": jnp.zeros(3)}}
    task = resolve_task("modular_arithmetic(num_steps=6, modulus=3)")
    found = np.asarray(MODULE._accuracies(counter(3), task, 10, params, key))
    np.testing.assert_array_equal(np.isnan(found), [False, True] * 3)


def test_the_smallest_eigenvalue_is_that_of_the_delta_rule(key):
    cell = deltanet(2, 4, num_heads=1, negative_eigenvalues=True)
    params = cell.init(key)
    task = resolve_task("parity(num_steps=9)")
    jacobians = MODULE._step_jacobians(cell, task, {"cell": params}, key)
    found = np.linalg.eigvals(np.asarray(jacobians)).real.min(axis=-1)
    inputs = task.sample(key, 1).inputs[: MODULE.NUM_JACOBIANS, 0]
    beta = 2 / (1 + np.exp(-np.asarray(inputs @ params["beta"]["W_x"].T)))[:, 0]
    assert (beta > 1).any() and (beta < 1).any()
    np.testing.assert_allclose(found, np.minimum(0, 1 - beta), atol=1e-12)


def with_numbers(dataset, accuracy, eigenvalue):
    """The record with these accuracies and smallest eigenvalues of the three cells."""
    noise = 0.01 * (dataset.run.values if "run" in dataset.coords else np.arange(2))
    values = (np.array(accuracy)[:, None] + noise)[None, :, :, None] + 0 * dataset.accuracy
    smallest = np.array(eigenvalue)[:, None] + 0 * dataset.smallest_eigenvalue
    return dataset.assign(accuracy=values, smallest_eigenvalue=smallest)


def test_the_claims_are_decided_by_the_numbers(dataset):
    assert list(dataset.cell.values) == ["slstm", "deltanet [0, 1]", "deltanet [-1, 1]"]

    def of(accuracy, eigenvalue):
        claims = EXPERIMENT.claims(with_numbers(dataset, accuracy, eigenvalue))
        return list(verdicts(claims).values())

    assert of([1, 0, 1], [-0.5, 0, -0.9]) == ["supported"] * 3
    assert of([1, 0, 1], [-0.5, 0, 0]) == ["supported", "supported", "not supported"]
    assert of([1, 1, 0], [-0.5, -0.5, 0]) == ["not supported", "not supported", "supported"]
    assert of([0.5, 0.5, 0.5], [-1, -1, -1]) == ["inconclusive"] * 3


def test_the_table_has_the_published_accuracies(dataset):
    rows = EXPERIMENT.summary(dataset).splitlines()
    assert "0.017" in next(row for row in rows if "deltanet [0, 1]" in row)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tasks": ("xor",)}, "Unknown task 'xor'. Known: arithmetic"),
        ({"test_steps": 3}, "Expected --test_steps of at least num_steps=6, got 3. Set it to 6"),
        ({"cell": "lstm,lstm(peephole=True)"}, "Expected cells of different names, got lstm, lstm"),
    ],
)
def test_what_cannot_be_trained_is_reported(given, message):
    with pytest.raises(ValueError, match=message):
        EXPERIMENT.run(EXPERIMENT.resolve(given, quick=True), study.call)
