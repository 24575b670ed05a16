"""A very long sequence, chunk by chunk: the carries of one chunk in memory, and a sign of life."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gradflow.cell import Carry, Cell
from gradflow.flow.broken import broken_steps, void
from gradflow.flow.reverse import carries_after
from gradflow.flow.steps import trajectory
from gradflow.padding import fill_padding
from gradflow.unroll import check_inputs, start

Progress = Callable[[Sequence[Any]], Iterable[Any]]
"""Goes through the chunks one by one and shows it, as tqdm does."""

Through = Callable[[tuple, Any], tuple[Any, Any]]
"""(a chunk's arguments, the state of a sweep or None) -> (its state behind it, what was found)."""


class Cutter(NamedTuple):
    """How a sequence is cut.

    Attributes:
      chunk_steps: Steps of a chunk; the last has what is left over.
      progress: Goes through the chunks.
    """

    chunk_steps: int
    progress: Progress


class Chunks(NamedTuple):
    """A sequence in chunks, after the cell has run through it once.

    Attributes:
      arguments: For each chunk the parameters, its inputs, the carry before it, and its mask.
      broken: Whether the trajectory within it is anywhere not finite.
      outputs: h_1 ... h_T, if they were to be kept.
      progress: Goes through the chunks.
    """

    arguments: list[tuple]
    broken: list[bool]
    outputs: Float[np.ndarray, "steps hidden"] | None
    progress: Progress

    def cut(self, along: np.ndarray) -> list[np.ndarray]:
        """Something else that has one entry a step, in the same chunks."""
        ends = np.cumsum([len(inputs) for _, inputs, _, _ in self.arguments])
        return np.split(along, ends[:-1])

    def each(self, measure: Callable[[tuple], Any]) -> Any:
        """What is measured of each chunk by itself, joined."""
        return join([jax.device_get(measure(one)) for one in self.progress(self.arguments)])

    def sweep(
        self, through: Through, state: Any, *, back: bool, beside: Sequence | None = None
    ) -> tuple[Any, list[Any]]:
        """Goes from chunk to chunk and hands a state on.

        Args:
          through: What is done with a chunk. Its carries are to be computed again.
          state: The state before the first chunk.
          back: Whether to go from the last chunk to the first.
          beside: What else there is of each chunk, for an entry more at the end of its arguments.

        Returns:
          The state at the end, and what was found in each chunk, in the order gone through. Both
          are NaN from the chunk on in which the trajectory is not finite.
        """
        broken, found = False, []
        order = range(len(self.arguments))
        for i in self.progress(order[::-1] if back else order):
            arguments = self.arguments[i] + (() if beside is None else (beside[i],))
            state, part = through(arguments, state)
            broken_before, broken = broken, broken or self.broken[i]
            found.append(jax.device_get(_void_floats(part) if broken_before else part))
            state = _void_floats(state) if broken else state
        return state, found


def run_in_chunks(
    cutter: Cutter, cell: Cell, arguments: tuple, *, keep_outputs: bool = False
) -> Chunks:
    """Runs the cell through all chunks and keeps the carries at the borders between them.

    All chunks share one program, but the last if it is shorter.

    Args:
      cutter: How to cut.
      cell: The cell.
      arguments: The parameters, the inputs, s_0 or None, and the mask of real steps or None.
      keep_outputs: Whether to keep h_1 ... h_T.
    """
    params, inputs, carry, mask = arguments
    inputs = check_inputs(inputs)
    jax.eval_shape(partial(_run_on, cell), (params, inputs, carry, mask))  # says what does not fit
    carry = start(cell, params, inputs, carry)
    if mask is not None:  # a chunk may have no real step of its own
        inputs, mask = fill_padding(inputs, mask), np.asarray(mask)
    inputs = np.asarray(inputs)
    chunks = Chunks([], [], None, cutter.progress)
    outputs = []
    for first in cutter.progress(range(0, len(inputs), cutter.chunk_steps)):
        chunk = slice(first, first + cutter.chunk_steps)
        chunks.arguments.append(
            (params, inputs[chunk], carry, mask if mask is None else mask[chunk])
        )
        carry, broken, h = _run_on(cell, chunks.arguments[-1])
        chunks.broken.append(bool(broken))
        outputs += [np.asarray(h)] if keep_outputs else []
    return chunks._replace(outputs=np.concatenate(outputs)) if keep_outputs else chunks


@partial(jax.jit, static_argnums=0)
def _run_on(cell: Cell, arguments: tuple) -> tuple[Carry, Bool[Array, ""], Array]:
    """The last carry, whether one is not finite, and the outputs."""
    params, inputs, carry, mask = arguments
    with jax.default_matmul_precision("highest"):
        steps = trajectory(cell, params, inputs, carry=carry, mask=mask)
        return steps.last, jnp.any(broken_steps(steps)), jax.vmap(cell.hidden)(carries_after(steps))


def join(found: Sequence[Any]) -> Any:
    """What was found in each chunk, along one axis."""
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


def _void_floats(tree: Any) -> Any:
    """NaN for every number that is not an integer."""

    def one(leaf: Array) -> Array:
        return void(jnp.ones((), bool), leaf) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(one, tree)
