"""A sweep in chunks gives the numbers of the sweep in one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from products import weighted

from gradflow import flow
from gradflow.cells import lstm, rnn

CELL = lstm(2, 3)
T = 23
LENGTH = 17
CHUNK = 5  # neither T nor the length is a multiple of it


@pytest.fixture(scope="module")
def run():
    params = jax.tree.map(lambda leaf: leaf + 0.1, CELL.init(jax.random.key(0)))
    return CELL, params, jax.random.normal(jax.random.key(1), (T, 2))


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert isinstance(a, np.ndarray)
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


MEASURES = {
    "log_norms": (flow.log_norms, {"source": "c", "target": "carry"}),
    "log_singular_values": (flow.log_singular_values, {"source": "c"}),
    "lyapunov_exponents": (flow.lyapunov_exponents, {"burn_in": 4, "qr_every": 1}),
    "back in time": (
        flow.lyapunov_exponents,
        {"burn_in": 4, "qr_every": 1, "time_reversed": True, "num_exponents": 2},
    ),
    "adjoints": (flow.adjoints, {}),
    "log_adjoint_norms": (flow.log_adjoint_norms, {"source": "c"}),
    "components": (flow.components, {}),
    "gates": (flow.gates, {}),
}
OF_A_LOSS = (flow.adjoints, flow.log_adjoint_norms, flow.components)


@pytest.mark.parametrize("name", MEASURES)
def test_chunks_give_the_same_numbers(run, name):
    seen = []

    def progress(chunks):
        for chunk in chunks:
            seen.append(chunk)
            yield chunk

    measure, options = MEASURES[name]
    options = options | ({"loss": weighted} if measure in OF_A_LOSS else {})
    carry = jax.tree.map(lambda leaf: leaf + 0.5, CELL.initial_carry())
    options = options | {"carry": carry, "mask": jnp.arange(T) % 4 != 1}
    expected = measure(*run, **options)
    in_chunks = flow.in_chunks(measure, chunk_steps=CHUNK, progress=progress)
    assert_same(in_chunks(*run, **options), expected)
    assert len(seen) == 2 * 5


def test_lengths_and_no_padding_at_all(run):
    in_chunks = flow.in_chunks(flow.adjoints, chunk_steps=CHUNK)
    for options in ({"lengths": LENGTH}, {}):
        expected = flow.adjoints(*run, loss=weighted, **options)
        assert_same(in_chunks(*run, loss=weighted, **options), expected)


def test_one_chunk_is_the_whole(run):
    expected = flow.log_norms(*run, norm="frobenius")
    assert_same(flow.in_chunks(flow.log_norms)(*run, norm="frobenius"), expected)


def test_the_search_for_a_norm_goes_on_from_chunk_to_chunk():
    cell = rnn(2, 20)  # more than 16 units: the norm is searched for, from where it was before
    params = cell.init(jax.random.key(0))
    inputs = jax.random.normal(jax.random.key(1), (T, 2))
    expected = flow.log_norms(cell, params, inputs)
    found = flow.in_chunks(flow.log_norms, chunk_steps=10)(cell, params, inputs)
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_stretches_between_qrs_end_with_a_chunk():
    cell = rnn(2, 5, recurrent_init="normal(gain=1.5)")
    params = cell.init(jax.random.key(0))
    inputs = jax.random.normal(jax.random.key(1), (60, 2))
    expected = flow.lyapunov_exponents(cell, params, inputs, burn_in=18, qr_every=2)
    measure = flow.in_chunks(flow.lyapunov_exponents, chunk_steps=11)
    found = measure(cell, params, inputs, burn_in=18, qr_every=2)
    np.testing.assert_allclose(found.exponents, expected.exponents, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["log_norms", "components", "lyapunov_exponents", "gates"])
def test_nan_in_one_chunk_reaches_the_chunks_after_it(name):
    # A dead unit of relu has no derivative, so that nothing would bring the NaN on by itself.
    cell = rnn(2, 3, activation="relu")._replace(gates=lambda params, h, x: {"r": h})
    params = cell.init(jax.random.key(0))
    inputs = jnp.ones((T, 2)).at[8].set(jnp.nan)
    measure, _ = MEASURES[name]
    arguments = cell, params, inputs
    options = {"lyapunov_exponents": {"qr_every": 1}, "components": {"loss": weighted}}.get(
        name, {}
    )
    found = flow.in_chunks(measure, chunk_steps=CHUNK)(*arguments, **options)
    expected = measure(*arguments, **options)
    assert_same(found, expected)
    assert any(np.isnan(leaf).any() for leaf in jax.tree.leaves(found))


def test_bad_input_is_refused(run):
    with pytest.raises(ValueError, match="Expected chunk_steps of at least 1, got 0"):
        flow.in_chunks(flow.log_norms, chunk_steps=0)
    with pytest.raises(ValueError, match=r"Expected one of .* log_norms, .* gates, got .*_map"):
        flow.in_chunks(flow.log_norm_map)
    with pytest.raises(ValueError, match="got 'z'"):
        flow.in_chunks(flow.log_norms)(*run, source="z")
    with pytest.raises(ValueError, match=r"Expected at most 30000 steps, got 1000000: .* GiB"):
        flow.log_norm_map(CELL, run[1], jnp.zeros((1_000_000, 2)))
