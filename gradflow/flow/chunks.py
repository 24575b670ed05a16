"""A trajectory in chunks, of which only one chunk's carries are in memory."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.nonfinite import nonfinite_steps, set_nan
from gradflow.flow.real_carry import as_real, real_parts
from gradflow.flow.trace import Trace, compiled, trace_of
from gradflow.padding import fill_padding
from gradflow.unroll import Lengths, Mask, check_inputs, start, valid_steps

Progress = Callable[[Sequence[Any]], Iterable[Any]]
"""Iterates over the chunks and shows its progress, as tqdm does."""


def _always() -> Bool[Array, ""]:
    return jnp.ones((), bool)


class Cutter(NamedTuple):
    """How a sequence is cut.

    Attributes:
      chunk_steps: Steps of a chunk; the last has what is left over.
      progress: Iterates over the chunks.
    """

    chunk_steps: int
    progress: Progress


class Chunks:
    """The trajectory of a long sequence, of which the carries at the borders of chunks are kept.

    It is run once, and each chunk again from its border whenever it is needed. All chunks share
    one program, but the last if it is shorter. The arguments are those of `trace_of`.
    """

    def __init__(
        self,
        cutter: Cutter,
        cell: Cell,
        params: Params,
        inputs: Float[Array, "steps input"],
        *,
        carry: Carry | None = None,
        lengths: Lengths | None = None,
        mask: Mask | None = None,
    ) -> None:
        inputs = check_inputs(inputs)
        mask = valid_steps(inputs, lengths, mask)
        # Errors of shape and type come before anything is compiled.
        jax.eval_shape(
            lambda x, s: trace_of(cell, params, x, carry=s, mask=mask).last, inputs, carry
        )
        self.cell, self.params, self._cutter = as_real(cell), params, cutter
        self._borders = [start(self.cell, params, inputs, real_parts(carry))]
        self._nonfinite: list[bool] = []
        if mask is not None:  # a chunk may have no real step of its own
            inputs = fill_padding(inputs, mask)
        self._inputs, self._mask = np.asarray(inputs), None if mask is None else np.asarray(mask)

    def outputs(self) -> Float[np.ndarray, " steps *hidden"]:
        """Runs the cell and returns h_1 ... h_T."""
        return np.concatenate(self._run(lambda trace: trace.outputs()))

    def sweep(
        self,
        through: Callable[..., tuple[Any, Any]],
        state: Any,
        *beside: Any,
        backward: bool = False,
    ) -> tuple[Any, Any]:
        """Goes from chunk to chunk and hands a state on.

        Args:
          through: (state, trace of a chunk, *beside) -> (the state after it, what is measured of
            its steps in the order of time).
          state: The state before the first chunk; None starts afresh.
          *beside: Arrays with an entry for each step, cut in the same chunks.
          backward: Whether to go from the last chunk to the first.

        Returns:
          The state at the end, and what is measured, joined in the order of time. Both are NaN
          from the first chunk on that has a carry that is not finite.
        """
        if not self._nonfinite:
            self._run(lambda trace: None)
        bad, found = False, []
        order = range(len(self._nonfinite))
        for i in self._cutter.progress(order[::-1] if backward else order):
            state, part = through(state, self._trace(i), *(leaf[self._slice(i)] for leaf in beside))
            before, bad = bad, bad or self._nonfinite[i]
            carried = state is not None
            found.append(jax.device_get(set_nan(_always(), part) if before and carried else part))
            state = set_nan(_always(), state) if bad and carried else state
        parts = found[::-1] if backward else found
        return state, jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)), *parts)

    def _run(self, keep: Callable[[Trace], Any]) -> list[Any]:
        """Runs the cell through all chunks, keeps the borders, and something of each chunk."""
        kept, self._nonfinite, self._borders = [], [], self._borders[:1]
        num_chunks = -(-len(self._inputs) // self._cutter.chunk_steps)
        for i in self._cutter.progress(range(num_chunks)):
            trace = self._trace(i)
            self._nonfinite.append(bool(_any_nonfinite(trace)))
            self._borders.append(trace.last)
            kept.append(jax.device_get(keep(trace)))
        return kept

    def _slice(self, i: int) -> slice:
        return slice(i * self._cutter.chunk_steps, (i + 1) * self._cutter.chunk_steps)

    def _trace(self, i: int) -> Trace:
        part = self._slice(i)
        mask = None if self._mask is None else jnp.asarray(self._mask[part])
        inputs = jnp.asarray(self._inputs[part])
        return trace_of(self.cell, self.params, inputs, carry=self._borders[i], mask=mask)


Path: TypeAlias = Trace | Chunks
"""A trajectory to measure along: as a whole, or in chunks."""

Runner: TypeAlias = Callable[..., Path]
"""Runs a cell, as `trace_of` does: (cell, params, inputs, carry=, lengths=, mask=) -> a path."""


@compiled()
def _any_nonfinite(trace: Trace) -> Bool[Array, ""]:
    return jnp.any(nonfinite_steps(trace))
