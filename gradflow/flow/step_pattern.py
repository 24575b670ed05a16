"""Which entries of a carry influence which others in a step, found from the program of the step."""

import logging
import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gradflow.cell import Carry, Cell, Params, whole_carry
from gradflow.flow.blocks import field_names, selected_entries
from gradflow.flow.real_carry import as_real, real_parts
from gradflow.numerics.sparsity import Pattern, components, jacobian_pattern

NUM_POINTS = 48
"""Random parameters, states and inputs at which a structure that was found is verified."""

LEAST_POINTS = 8
"""Of these, so many have to be finite."""


def default_block(cell: Cell, params: Params, inputs: Array) -> str:
    """Returns the name of the block whose gradient tells how far a cell remembers.

    That is ``"h"``, unless no step reads h, so that ∂h_T/∂h_k is zero by construction. Then it is
    the fields of the carry that the next step reads, as ``"S"`` or ``"C,n,m"``; ``"carry"`` where
    they have no names.
    """
    cell = as_real(cell)
    step = Step.of(cell, params, real_parts(cell.initial_carry()), inputs[0])
    return _default_block(step)


class Step(NamedTuple):
    """The step of a cell as a function of the flat carry, for arguments of some shapes."""

    cell: Cell
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    tree: Any
    """How the leaves make up the arguments."""

    @classmethod
    def of(cls, cell: Cell, params: Params, carry: Carry, x: Any) -> "Step":
        """Returns the step for arguments of these shapes."""
        leaves, tree = jax.tree.flatten((carry, params, x))
        shapes = [jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]
        return cls(cell, tuple(shapes), tree)

    def __call__(self, s: Array, params: Params, x: Any) -> Array:
        # What `ravel_pytree` returns would run a program of its own for each set of shapes.
        like, tree = jax.tree.flatten(self.arguments(jax.ShapeDtypeStruct)[0])
        ends = np.cumsum([math.prod(leaf.shape) for leaf in like])
        parts = jnp.split(s, ends[:-1])
        leaves = [
            p.reshape(leaf.shape).astype(leaf.dtype) for p, leaf in zip(parts, like, strict=True)
        ]
        return whole_carry(self.cell.step(params, jax.tree.unflatten(tree, leaves), x)[0])

    def arguments(self, make: Callable[..., Any]) -> Any:
        """Returns the carry, the parameters and the input, with leaves made by shape and type."""
        return jax.tree.unflatten(self.tree, [make(one.shape, one.dtype) for one in self.leaves])

    def flat_zeros(self) -> tuple[np.ndarray, Params, Any]:
        """Returns arguments to be called with."""
        carry, params, x = self.arguments(np.zeros)
        flat = jax.eval_shape(whole_carry, carry)
        return np.zeros(flat.shape, flat.dtype), params, x

    def at_random(self, function: Callable[..., Array], num_points: int) -> np.ndarray:
        """Evaluates a function of the step's arguments at points in general position.

        Each leaf is a sine of its index with a random frequency, because sampling millions of
        normal numbers for a large network takes longer than all the rest.
        """

        def one(frequencies: Array) -> Array:
            frequency = iter(frequencies)

            def make(shape: tuple[int, ...], dtype: Any) -> Array:
                index = jnp.arange(1, 1 + math.prod(shape), dtype=frequencies.dtype)
                wave = 1.5 * jnp.sin(next(frequency) * index).reshape(shape)
                if len(shape) > 1:  # products of about 1, where no unit is saturated
                    wave = wave / math.sqrt(max(1, shape[-1]))
                return wave.astype(dtype if jnp.issubdtype(dtype, jnp.floating) else bool)

            carry, params, x = self.arguments(make)
            return function(whole_carry(carry), params, x)

        with jax.ensure_compile_time_eval():
            random = np.random.default_rng(0)
            frequencies = random.uniform(1, 100, (num_points, len(self.leaves)))
            return np.asarray(jax.jit(partial(jax.lax.map, one))(frequencies))


@lru_cache(maxsize=256)
def _pattern(step: Step) -> Pattern | None:
    """The pattern of ∂s_t/∂s_{t-1}; None if it is dense, which a single derivative mostly tells."""
    size = step.flat_zeros()[0].size

    def first_column(s: Array, params: Params, x: Any) -> Array:
        first = jnp.zeros_like(s).at[0].set(1)
        return jax.jvp(lambda s: step(s, params, x), (s,), (first,))[1]

    if size < 2 or np.all(step.at_random(first_column, 1) != 0):
        return None
    return jacobian_pattern(step.__call__, *step.flat_zeros())


@lru_cache(maxsize=256)
def _default_block(step: Step) -> str:
    """`default_block` of a cell by the shapes of its arguments."""
    h = selected_entries(step.cell, "h")
    if h is None:
        return "h"

    def by_h(s: Array, params: Params, x: Any) -> Array:
        move = jnp.zeros_like(s).at[h].set(1)
        return jax.jvp(lambda s: step(s, params, x), (s,), (move,))[1]

    # One derivative that is not zero is proof that h is read; the program is asked otherwise.
    if step.at_random(by_h, 1).any():
        return "h"
    pattern = jacobian_pattern(step.__call__, *step.flat_zeros())
    if pattern is None or _read(pattern)[h].any():
        return "h"
    read = _read(pattern)
    entries = {name: selected_entries(step.cell, name) for name in field_names(step.cell)}
    names = [name for name, own in entries.items() if own is not None and read[own].any()]
    return ",".join(names) or "carry"


class Parts(NamedTuple):
    """The blocks of a carry.

    Attributes:
      read: Which entries of the carry the next step reads.
      parts: The entries of each block.
      pulled: At random points what a row that is the same in every block is pulled back to.
    """

    read: Bool[np.ndarray, " carry"]
    parts: list[Int[np.ndarray, " size"]]
    pulled: Float[np.ndarray, "points carry"]


@lru_cache(maxsize=256)
def parts_of(step: Step) -> Parts | None:
    """The blocks; None where there is one, or where derivatives do not keep to those found."""
    pattern = _pattern(step)
    if pattern is None:
        return None
    read = _read(pattern)
    parts = components(pattern, read)
    if len(parts) < 2:
        return None
    pulled = step.at_random(partial(_probe, step, parts), NUM_POINTS)
    pulled = pulled[np.isfinite(pulled).all(axis=(1, 2))]
    if len(pulled) < LEAST_POINTS or pulled[:, 0].any():
        log = logging.getLogger("gradflow")
        log.debug("The carry is measured as a whole: its derivatives do not keep to the blocks.")
        return None
    return Parts(read, parts, pulled[:, 1])


def _read(pattern: Pattern) -> Bool[np.ndarray, " carry"]:
    """Which entries of the carry the next step reads."""
    return np.asarray(pattern.sum(axis=0)) > 0


def _probe(step: Step, parts: list[np.ndarray], s: Array, params: Params, x: Any) -> Array:
    """Pulls two rows back: one over half of the blocks, whose leaks to others it returns, and one
    that is the same in every block."""
    seeds, first = np.zeros((2, s.size)), np.zeros(s.size, int)
    random = np.random.default_rng(0)
    seeds[0], same = random.normal(size=s.size), random.normal(size=s.size)
    inside = np.zeros(s.size, bool)
    for part in parts:
        seeds[1, part], first[part], inside[part] = same[: len(part)], part[0], True
    chosen = (s[first] > 0) & inside  # s is random: another half at every point
    rows = jnp.asarray(seeds, s.dtype).at[0].multiply(chosen)
    vjp = jax.vjp(lambda s: step(s, params, x), s)[1]
    pulled = jax.vmap(lambda row: vjp(row)[0])(rows)
    return pulled.at[0].multiply(~chosen)
