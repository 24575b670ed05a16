"""The memory that compiled programs plan does not grow with T where it is said not to."""

import logging

import jax
import jax.numpy as jnp
import pytest

from gradflow import flow
from gradflow.cells import lstm
from gradflow.train.truncation import truncated_gradient
from gradflow.unroll import unroll

HIDDEN, BATCH, CHUNK = 16, 4, 25
CELL = lstm(2, HIDDEN)
PARAMS = jax.eval_shape(CELL.init, jax.random.key(0))


def temporary(function, *shapes):
    """Bytes of temporary memory of the compiled program."""
    arrays = [jax.ShapeDtypeStruct(shape, float) for shape in shapes]
    compiled = jax.jit(function).lower(PARAMS, *arrays).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def loss(params, outputs, extra):
    del params, extra
    return jnp.sum(outputs**2, axis=(1, 2))


def truncated(window):
    def gradient(params, inputs):
        extra = jnp.zeros(len(inputs))
        given = loss, CELL, {"cell": params}, inputs, extra
        return truncated_gradient(*given, k1=window, k2=window)

    return gradient


def full(params, inputs):
    return jax.grad(lambda params: jnp.sum(unroll(CELL, params, inputs).outputs ** 2))(params)


def test_truncated_backpropagation_stores_one_window():
    short, long = (64, BATCH, 2), (512, BATCH, 2)
    at_8, at_8_long = (temporary(truncated(8), shape) for shape in (short, long))
    at_32, at_32_long = (temporary(truncated(32), shape) for shape in (short, long))
    assert at_8_long < 1.1 * at_8 and at_32_long < 1.1 * at_32
    assert 2 < at_32 / at_8 < 4  # of which a part belongs to the parameters
    assert temporary(full, long) > 4 * temporary(full, short)


@pytest.mark.parametrize("measure", [flow.log_norms, flow.lyapunov_exponents])
def test_a_measurement_in_chunks_needs_the_memory_of_one_chunk(measure, caplog):
    """More chunks run the same programs, and between them only borders and results are kept."""
    params, kept = CELL.init(jax.random.key(0)), []

    def progress(chunks):
        for chunk in chunks:
            kept.append(sum(array.nbytes for array in jax.live_arrays()))
            yield chunk

    def largest(num_chunks):
        kept.clear()
        inputs = jax.random.normal(jax.random.key(1), (num_chunks * CHUNK, 2))
        before = sum(array.nbytes for array in jax.live_arrays())
        in_chunks = flow.in_chunks(measure, chunk_steps=CHUNK, progress=progress)
        in_chunks(CELL, params, inputs)
        return max(kept) - before

    few = largest(3)
    with caplog.at_level(logging.DEBUG, logger="jax"), jax.log_compiles():
        many = largest(12)
    programs = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Compiling")]
    assert not [
        text for text in programs if "_run" in text or "_through" in text or "growths" in text
    ]
    border = 2 * HIDDEN * 8
    assert many - few <= (12 - 3) * border + 1024

    def whole(params, inputs):
        return measure(CELL, params, inputs)

    assert temporary(whole, (12 * CHUNK, 2)) > temporary(whole, (CHUNK, 2)) + 11 * CHUNK * border
