"""Measurements of a carry that falls into blocks: each block by itself, and all of them joined."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gradflow.flow.blocks import Blocks
from gradflow.flow.closed_over import is_traced
from gradflow.flow.nonfinite import set_nan
from gradflow.flow.structure import Group, Structure, structure_of
from gradflow.flow.trace import Rows, Trace, as_matrix, compiled
from gradflow.numerics.scaling import Scaled, rescale, with_room

MOST_NUMBERS = 2**18
"""Numbers that are pulled back together, of as many steps as make them up: 2 MiB, which a cache
holds. One step of a small carry alone costs more to start than to compute."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LinearTrace(Trace):
    """The linearised steps of one block, whose Jacobians are known: ``xs`` holds J_1 ... J_T."""

    @property
    def mask(self) -> None:
        """No step is padded: the Jacobian of a padded one is the identity."""

    def pull(self, index: Int[Array, ""], rows: Scaled) -> Scaled:
        """Computes rows · J_t with t = index + 1, between factors with entries near 1."""
        return rescale(rows.value @ self.xs.value[index], rows.exponent + self.xs.exponent[index])

    def pull_rows(self, index: Int[Array, ""], rows: Rows) -> Rows:
        """Computes the same without any rescaling."""
        return jnp.ldexp(rows @ self.xs.value[index], self.xs.exponent[index])

    def push_columns(self, index: Int[Array, ""], columns: Rows) -> Rows:
        """Computes J_t · columns with t = index + 1, without rescaling."""
        return jnp.ldexp(columns @ self.xs.value[index].T, self.xs.exponent[index])


class BlockStates(NamedTuple):
    """The states of a sweep, for each group with a leading axis of classes."""

    groups: tuple[Any, ...]


class Part(NamedTuple):
    """What is measured in one group.

    Attributes:
      found: The measurement, with a leading axis of classes.
      members: Blocks of a class: each entry stands for so many.
    """

    found: Any
    members: int


Run = Callable[[Any, Scaled], tuple[Any, Any]]
"""Measures one block: (state, Jacobians) -> (the state after it, what is measured)."""


def side_by_side(
    options: Any, run: Run, state: Any, jacobians: Scaled, group: Group
) -> tuple[Any, Part]:
    """Measures the blocks of all classes at once, each from a state of its own or from one for all.

    Args:
      options: Those of the measurement.
      run: The measurement of one block.
      state: A state, or the `BlockStates` of this group alone.
      jacobians: The Jacobians, with a leading axis of classes.
      group: The blocks.
    """
    del options
    own = isinstance(state, BlockStates)
    start = state.groups[0] if own else state
    after, found = jax.vmap(run, in_axes=(0 if own else None, 0))(start, jacobians)
    return after, Part(found, group.entries.shape[1])


class Method(NamedTuple):
    """How something is measured of a whole trajectory, and of one that falls into blocks.

    Attributes:
      measure: (options, source and target, state, trace) -> (the state after it, what is measured),
        of the whole or of one block; compiled.
      join: (options, structure, parts, trace) -> what is measured, from that of each group.
      each: Measures all blocks of a group, as `side_by_side` does.
    """

    measure: Callable[..., tuple[Any, Any]]
    join: Callable[[Any, Structure, Sequence[Part], Trace], Any]
    each: Callable[..., tuple[Any, Part]] = side_by_side


def by_blocks(
    method: Method, options: Any, blocks: Blocks | None
) -> Callable[[Any, Trace], tuple[Any, Any]]:
    """Returns a measurement that runs on each block of a carry, where it falls into blocks.

    Args:
      method: How it is measured.
      options: Its options, hashable.
      blocks: The source and the target; None for all of the carry.

    Returns:
      (state, trace) -> (the state after it, what is measured), as `Trace.sweep` takes it.
    """
    unshared: list[Structure] = []  # that of a trajectory whose blocks turned out to differ

    def through(state: Any, trace: Trace) -> tuple[Any, Any]:
        structure = unshared[0] if unshared else structure_of(trace, blocks)
        if structure is None:
            return method.measure(options, blocks, state, trace)
        after, found, is_shared = _through(method, options, structure, state, trace)
        if is_traced(is_shared) or is_shared:
            return after, found
        unshared.append(structure.unshared())
        if isinstance(state, BlockStates):
            state = BlockStates(tuple(map(_repeated, state.groups, structure.groups)))
        return _through(method, options, unshared[0], state, trace)[:2]

    return through


def _repeated(state: Any, group: Group) -> Any:
    """The states of classes as those of all their members."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, group.entries.shape[1], axis=0), state)


@compiled("method", "options", "structure")
def _through(
    method: Method, options: Any, structure: Structure, state: Any, trace: Trace
) -> tuple[BlockStates, Any, Bool[Array, ""]]:
    """The states of all groups, what is measured, and whether the members of classes are equal.

    Where they are not, what is measured is NaN.
    """
    jacobians, is_shared = step_jacobians(structure, trace)
    states, parts = [], []
    for place, (group, xs) in enumerate(zip(structure.groups, jacobians, strict=True)):
        still = jnp.zeros((trace.num_steps, group.entries.shape[2]), xs.value.dtype)

        def run(own: Any, xs: Scaled, group: Group = group, still: Array = still) -> tuple:
            linear = LinearTrace(trace.cell, None, still, still[0], xs)
            return method.measure(options, group.places, own, linear)

        own = BlockStates((state.groups[place],)) if isinstance(state, BlockStates) else state
        after, part = method.each(options, run, own, xs, group)
        states.append(after)
        parts.append(part)
    joined = method.join(options, structure, parts, trace)
    return BlockStates(tuple(states)), set_nan(~is_shared, joined), is_shared


def step_jacobians(structure: Structure, trace: Trace) -> tuple[list[Scaled], Bool[Array, ""]]:
    """Computes J_1 ... J_T of one block of each class, (classes, T, size, size) for each group.

    One row over the carry is pulled back for all blocks at once, since they do not mix, and the
    members of a class have different rows of their Jacobian in it. A last row is the same in all of
    them: what it becomes has to be the same, too.
    """
    seeds = jnp.asarray(_seeds(structure), jnp.result_type(*jax.tree.leaves(trace.last)))
    enlarged, shift = with_room(seeds)

    def at(index: Array) -> tuple[list[Scaled], Array]:
        pulled = as_matrix(trace.pull_rows(index, trace.as_rows(enlarged)))
        found = [_gathered(group, pulled) for group in structure.groups]
        scaled = [jax.vmap(partial(rescale, exponent=-shift))(one) for one in found]
        same = [_is_shared(pulled[-1][group.entries]) for group in structure.groups]
        return scaled, jnp.all(jnp.stack(same))

    together = max(1, MOST_NUMBERS // seeds.size)
    scaled, same = jax.lax.map(at, jnp.arange(trace.num_steps), batch_size=together)
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), scaled), jnp.all(same)


def _seeds(structure: Structure) -> Float[np.ndarray, "rounds_and_one carry"]:
    rounds = max(group.rounds for group in structure.groups)
    seeds = np.zeros((rounds + 1, structure.size))
    random = np.random.default_rng(1)
    for group in structure.groups:
        _, members, size = group.entries.shape
        for row in range(size):
            seeds[row // members, group.entries[:, row % members, row]] = 1
        if members > 1:
            seeds[-1, group.entries] = random.uniform(0.5, 1, size)
    return seeds


def _gathered(group: Group, pulled: Float[Array, "rounds carry"]) -> Float[Array, "classes n n"]:
    classes, members, size = group.entries.shape
    rows = pulled[: group.rounds][:, group.entries]
    return jnp.moveaxis(rows, 0, 1).reshape(classes, group.rounds * members, size)[:, :size]


def _is_shared(rows: Float[Array, "classes members size"]) -> Bool[Array, ""]:
    """Whether members agree to rounding. (What is not finite is NaN in the end anyway.)"""
    spread = jnp.max(rows, axis=1) - jnp.min(rows, axis=1)
    largest = jnp.max(jnp.abs(rows), axis=(1, 2))
    rounding = 64 * jnp.finfo(rows.dtype).eps * largest
    return ~jnp.any(jnp.max(spread, axis=1) > rounding)
