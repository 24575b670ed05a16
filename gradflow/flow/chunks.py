"""The log norms of a very long sequence, chunk by chunk: little memory, and a sign of life."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.norms import check_norm
from gradflow.flow.spectral import start_vectors
from gradflow.flow.steps import Rows, pull_rows, rescale, unit_rows
from gradflow.flow.sweep import Norm, Problem, measure, prepare
from gradflow.unroll import Lengths, Mask, check_inputs, start, unroll, valid_steps

Progress = Callable[[Sequence[slice]], Iterable[slice]]
"""Goes through the chunks one by one and shows it, as tqdm does."""

_Sweep = tuple[Rows, Array, Array]
"""The rows of the product so far, their exponent, and where its norm is looked for next."""


def log_norms_in_chunks(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "steps input"],
    *,
    chunk_steps: int = 10_000,
    progress: Progress = iter,
    norm: Norm = "spectral",
    source: str = "h",
    target: str = "h",
    carry: Carry | None = None,
    lengths: Lengths | None = None,
    mask: Mask | None = None,
) -> Float[np.ndarray, " lags"]:
    """The numbers of `log_norms`, with the carries of one chunk in memory at a time.

    The cell is run to the end once, and the carries at the borders between chunks are kept. Then
    the rows are pulled back through one chunk after the other, from the last to the first, whose
    carries are computed again from its border. (A loop of Python's: not for `jax.jit` or
    `jax.vmap`.)

    Args:
      cell: The cell.
      params: Its parameters.
      inputs: x_1 ... x_T of one sequence.
      chunk_steps: Steps of a chunk; the first takes what is left over.
      progress: Goes through the chunks, once on and once back; tqdm, for instance.
      norm: As in `log_norms`, and so are the arguments after it.

    Returns:
      Log norms in nats, index = lag.

    Raises:
      ValueError: If chunk_steps is below 1, or as in `log_norms`.
    """
    if chunk_steps < 1:
        raise ValueError(
            f"chunk_steps is expected to be at least 1, got {chunk_steps}: the default is 10000"
        )
    check_norm(norm)
    inputs = check_inputs(inputs)
    mask = valid_steps(inputs, lengths, mask)
    num_steps = len(inputs)
    ends = range(num_steps, 0, -chunk_steps)
    chunks = [slice(max(0, end - chunk_steps), end) for end in ends][::-1]

    def part(chunk: slice) -> tuple[Array, Array | None]:
        return inputs[chunk], None if mask is None else mask[chunk]

    borders = [start(cell, params, inputs, carry)]
    for chunk in progress(chunks):
        borders.append(_last_carry(cell, params, *part(chunk), borders[-1]))
    log_norms, sweep = [], None
    for chunk in progress(chunks[::-1]):
        x, real = part(chunk)
        arguments = params, x, borders[chunks.index(chunk)], real
        found, sweep = _through_chunk(cell, (norm, source, target), arguments, sweep)
        log_norms.append(np.asarray(found))
    return np.concatenate(log_norms)


@partial(jax.jit, static_argnums=0)
def _last_carry(
    cell: Cell, params: Params, inputs: Array, mask: Array | None, carry: Carry
) -> Carry:
    with jax.default_matmul_precision("highest"):
        carries = unroll(cell, params, inputs, carry=carry, mask=mask).carries
        return jax.tree.map(lambda leaf: leaf[-1], carries)


@partial(jax.jit, static_argnums=(0, 1))
def _through_chunk(
    cell: Cell, kind: tuple[Norm, str, str], arguments: tuple, sweep: _Sweep | None
) -> tuple[Float[Array, " lags"], _Sweep]:
    """The norms at the lags that end in the chunk; with none behind it, at lag 0 as well."""
    with jax.default_matmul_precision("highest"):
        problem = prepare(cell, kind, arguments)
        steps = jnp.arange(problem.steps.num_steps)[::-1]
        if sweep is not None:
            sweep, log_norms = jax.lax.scan(partial(_back, problem), sweep, steps)
            return log_norms, sweep
        sweep, first = _start(problem)
        sweep, log_norms = jax.lax.scan(partial(_back, problem), sweep, steps)
        return jnp.concatenate([first[None], log_norms]), sweep


def _start(problem: Problem) -> tuple[_Sweep, Array]:
    rows = unit_rows(problem.steps, problem.target)
    like = jax.tree.leaves(rows)[0]
    exponent = jnp.zeros((), jnp.int32)
    log_norm, vectors = measure(problem, rows, exponent, start_vectors(len(like), like.dtype))
    return (rows, exponent, vectors), log_norm


def _back(problem: Problem, sweep: _Sweep, index: Array) -> tuple[_Sweep, Array]:
    rows, exponent, vectors = sweep
    rows, exponent = rescale(pull_rows(problem.steps, index, rows), exponent)
    log_norm, vectors = measure(problem, rows, exponent, vectors)
    return (rows, exponent, vectors), log_norm
