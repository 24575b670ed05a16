"""The sweep in chunks gives the numbers of the sweep in one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow.cells import lstm
from gradflow.flow.chunks import log_norms_in_chunks
from gradflow.flow.norm_map import log_norm_map
from gradflow.flow.norms import log_norms

CELL = lstm(2, 20)  # more than 16 units: the norm is searched for, from where it was before
T = 25


@pytest.fixture(scope="module")
def run():
    params = CELL.init(jax.random.key(0))
    return params, jax.random.normal(jax.random.key(1), (T, 2))


@pytest.mark.parametrize("given", [{}, {"source": "c", "target": "carry", "lengths": 17}])
def test_chunks_give_the_same_numbers(run, given):
    seen = []

    def progress(chunks):
        seen.append(len(chunks))
        return chunks

    expected = log_norms(CELL, *run, **given)
    found = log_norms_in_chunks(CELL, *run, chunk_steps=10, progress=progress, **given)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert seen == [3, 3]


def test_one_chunk_is_the_whole(run):
    carry = jax.tree.map(lambda leaf: leaf + 0.5, CELL.initial_carry())
    expected = log_norms(CELL, *run, carry=carry, norm="frobenius")
    found = log_norms_in_chunks(CELL, *run, carry=carry, norm="frobenius")
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_bad_input_is_refused(run):
    with pytest.raises(ValueError, match="chunk_steps is expected to be at least 1, got 0"):
        log_norms_in_chunks(CELL, *run, chunk_steps=0)
    with pytest.raises(ValueError, match=r"at most 30000 steps are expected, got 1000000: .* GiB"):
        log_norm_map(CELL, run[0], jnp.zeros((1_000_000, 2)))
