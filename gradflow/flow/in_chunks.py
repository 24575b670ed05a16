"""The measurements of very long sequences: the same numbers, with one chunk's carries in memory."""

import inspect
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.adjoint import adjoints, log_adjoint_norms, log_sizes, numbers, scaled_adjoints
from gradflow.flow.chunks import Cutter, Progress, Through, join, run_in_chunks
from gradflow.flow.components import components, log_components
from gradflow.flow.gates import activations, check_gates, gates
from gradflow.flow.growths import Plan, growths_through
from gradflow.flow.lyapunov import (
    LyapunovExponents,
    frame_at_start,
    lyapunov_exponents,
    real_first,
    statistics,
)
from gradflow.flow.norms import check_norm, log_norms, norms_through
from gradflow.flow.reverse import Loss, Recorded, Scaled, by_outputs, check_loss, forward
from gradflow.flow.spectrum import log_singular_values, spectrum_through
from gradflow.flow.steps import block
from gradflow.flow.sweep import Products
from gradflow.unroll import Lengths, Mask, check_inputs, valid_steps


def in_chunks(
    measure: Callable[..., Any], *, chunk_steps: int = 10_000, progress: Progress = iter
) -> Callable[..., Any]:
    """A measurement of one very long sequence, that goes through it chunk by chunk.

    ::

        exponents = flow.in_chunks(flow.lyapunov_exponents, progress=tqdm)(cell, params, inputs)

    The cell is run to the end once, and the carries at the borders between chunks are kept. Then
    the measurement goes from chunk to chunk, on or back, as it does through the whole. The carries
    within a chunk are computed again from its border. What is in memory is one chunk, the inputs,
    the result, and for a loss the outputs. (A loop of Python's, which an interrupt ends: not for
    `jax.jit` or `jax.vmap`.)

    Args:
      measure: `log_norms`, `log_singular_values`, `lyapunov_exponents`, `adjoints`,
        `log_adjoint_norms`, `components` or `gates`.
      chunk_steps: Steps of a chunk; the last has what is left over.
      progress: Goes through the chunks, first to run and then to measure: tqdm, for instance.

    Returns:
      A function of the arguments of the measurement, with its result in NumPy arrays: the same
      numbers to rounding. In `lyapunov_exponents` a stretch between two QRs ends with a chunk.

    Raises:
      ValueError: If the measurement is another, or chunk_steps is below 1.
    """
    if measure not in _WAYS:
        known = ", ".join(function.__name__ for function in _WAYS)
        raise ValueError(
            f"one of the measurements {known} is expected, got {measure}: call another by itself, "
            "or for a part of the sequence"
        )
    if chunk_steps < 1:
        raise ValueError(
            f"chunk_steps is expected to be at least 1, got {chunk_steps}: the default is 10000"
        )

    @wraps(measure)
    def measured(*args: Any, **options: Any) -> Any:
        given = inspect.signature(measure).bind(*args, **options)
        given.apply_defaults()
        return _WAYS[measure](Cutter(chunk_steps, progress), **given.arguments)

    return measured


def _arguments(
    params: Params, inputs: Array, carry: Carry | None, lengths: Lengths | None, mask: Mask | None
) -> tuple:
    inputs = check_inputs(inputs)
    return params, inputs, carry, valid_steps(inputs, lengths, mask)


def _log_norms(
    cutter: Cutter, cell: Cell, *, norm: str, source: str, target: str, **given: Any
) -> np.ndarray:
    check_norm(norm)
    kind = norm, source, target

    def through(arguments: tuple, products: Products | None) -> tuple[Products, Array]:
        swept, certificate = norms_through(cell, kind, arguments, products)
        return swept, certificate.lower

    return _by_lag(cutter, cell, through, kind[1:], given)


def _log_singular_values(
    cutter: Cutter, cell: Cell, *, source: str, target: str, **given: Any
) -> np.ndarray:
    blocks = source, target
    return _by_lag(cutter, cell, partial(spectrum_through, cell, blocks), blocks, given)


def _by_lag(
    cutter: Cutter, cell: Cell, through: Through, blocks: tuple[str, str], given: dict
) -> np.ndarray:
    for name in blocks:
        block(cell, name)
    chunks = run_in_chunks(cutter, cell, _arguments(**given))
    return join(chunks.sweep(through, None, back=True)[1])


def _adjoints(cutter: Cutter, loss: Loss, cell: Cell, **given: Any) -> Carry:
    first, rest = _pull_back(cutter, scaled_adjoints, numbers, loss, cell, given)
    return join([numbers(_alone(first)), rest])


def _log_adjoint_norms(
    cutter: Cutter, loss: Loss, cell: Cell, *, source: str, **given: Any
) -> np.ndarray:
    sizes = partial(log_sizes, block(cell, source))
    first, rest = _pull_back(cutter, scaled_adjoints, sizes, loss, cell, given)
    return join([sizes(_alone(first)), rest])


def _components(cutter: Cutter, loss: Loss, cell: Cell, **given: Any) -> Params:
    return _pull_back(cutter, log_components, lambda shares: shares, loss, cell, given)[1]


def _pull_back(
    cutter: Cutter, of_chunk: Callable, finish: Callable, loss: Loss, cell: Cell, given: dict
) -> tuple[Scaled, Any]:
    """∂L/∂s_0, and what is found of every step, as of_chunk(cell, recorded, later) gives them."""
    arguments = _arguments(**given)
    check_loss(loss, cell, arguments)
    chunks = run_in_chunks(cutter, cell, arguments, keep_outputs=True)
    cotangents = np.asarray(by_outputs(loss, jnp.asarray(chunks.outputs)))

    def through(arguments: tuple, later: Scaled | None) -> tuple[Scaled, Any]:
        *of_cell, cotangents = arguments
        params, inputs, _, mask = of_cell
        before, last, _ = forward(cell, tuple(of_cell))
        recorded = Recorded(params, inputs, mask, before, last, cotangents)
        first, rest = of_chunk(cell, recorded, later)
        return first, finish(rest)

    first, found = chunks.sweep(through, None, back=True, beside=chunks.cut(cotangents))
    return first, join(found[::-1])


def _alone(scaled: Scaled) -> Scaled:
    return jax.tree.map(lambda leaf: leaf[None], scaled)


def _gates(cutter: Cutter, cell: Cell, **given: Any) -> dict[str, np.ndarray]:
    check_gates(cell)
    chunks = run_in_chunks(cutter, cell, _arguments(**given))
    return chunks.each(partial(activations, cell))


def _lyapunov_exponents(cutter: Cutter, cell: Cell, **options: Any) -> LyapunovExponents:
    plan = Plan(**{name: options.pop(name) for name in Plan._fields})
    arguments, num_real = real_first(plan, _arguments(**options))
    swept = frame_at_start(cell, plan, arguments, num_real)
    chunks = run_in_chunks(cutter, cell, arguments)
    through = partial(growths_through, cell, plan)
    _, growths = chunks.sweep(through, swept, back=plan.time_reversed)
    return jax.device_get(statistics(plan, join(growths), num_real))


_WAYS: dict[Callable[..., Any], Callable[..., Any]] = {
    log_norms: _log_norms,
    log_singular_values: _log_singular_values,
    lyapunov_exponents: _lyapunov_exponents,
    adjoints: _adjoints,
    log_adjoint_norms: _log_adjoint_norms,
    components: _components,
    gates: _gates,
}
