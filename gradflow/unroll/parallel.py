"""A cell whose step is affine in the carry, run over all steps of a chunk at once.

With the affine step z_t = A_t z_{t-1} + b_t, the states of a chunk solve one linear system, which
an associative scan over the maps (A_t, b_t) does in log T rounds (`gradflow.unroll.affine`). A_t
falls into the blocks that the program of the step shows, so that a diagonal one costs a few
elementwise operations a round.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from gradflow.cell import Carry, Cell, Params, StepFn
from gradflow.numerics.dependence import AFFINE, dependences
from gradflow.numerics.sparsity import components, jacobian_pattern
from gradflow.unroll.affine import affine_scan, by_entries

States = Float[Array, "steps state"]
"""The states z_1 ... z_T: of each carry the leaves that the next step reads, as one vector."""

MOST_BY_ENTRIES = 4
"""Blocks of at most so many entries are multiplied entry by entry, larger ones as matrices."""


class Recurrence(NamedTuple):
    """What the program of a step says about the parallel run.

    Attributes:
      reads: Whether the step reads each leaf of the carry. The others are only read out.
      groups: The blocks of the state by size: the places of their entries.
      obstacle: The operation that is not affine in the state; empty without one.
    """

    reads: tuple[bool, ...]
    groups: tuple[Int[np.ndarray, "blocks size"], ...]
    obstacle: str

    def split(self, carry: Carry) -> tuple[Array, Callable[[Array], Carry]]:
        """Returns the state of a carry, and the inverse, which fills in zeros for the others."""
        leaves, tree = jax.tree.flatten(carry)
        kept = [leaf for leaf, read in zip(leaves, self.reads, strict=True) if read]
        z, unravel = ravel_pytree(kept)

        def restore(z: Array) -> Carry:
            parts = iter(unravel(z))
            pairs = zip(leaves, self.reads, strict=True)
            return jax.tree.unflatten(
                tree, [next(parts) if read else jnp.zeros_like(leaf) for leaf, read in pairs]
            )

        return z, restore

    def advance(self, step: StepFn, params: Params, z: Array, x: Any, like: Carry) -> Array:
        """Computes z_t from z_{t-1}; ``like`` is any carry."""
        return self.split(step(params, self.split(like)[1](z), x)[0])[0]


def recurrence_of(step: StepFn, params: Params, carry: Carry, x: Any) -> Recurrence:
    """Finds whether a step of one example is affine; cached for its shapes."""
    leaves, tree = jax.tree.flatten((params, carry, x))
    return _recurrence(step, tree, tuple((leaf.shape, leaf.dtype) for leaf in leaves))


@lru_cache(maxsize=256)
def _recurrence(step: StepFn, tree: Any, shapes: tuple) -> Recurrence:
    params, carry, x = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(*one) for one in shapes])
    closed = jax.make_jaxpr(step)(params, carry, x)
    first, count = len(jax.tree.leaves(params)), len(jax.tree.leaves(carry))
    places = range(first, first + count)
    reads = tuple(any(r is not None for r in dependences(closed, [i])) for i in places)
    state = [i for i, read in zip(places, reads, strict=True) if read]
    found = dependences(closed, state)[:count]
    obstacle = next((r for r, read in zip(found, reads, strict=True) if read and r), AFFINE)
    if closed.effects:
        obstacle = "a side effect"
    unblocked = Recurrence(reads, (), obstacle)
    return unblocked if obstacle or not state else _blocked(unblocked, step, params, carry, x)


def _blocked(found: Recurrence, step: StepFn, params: Params, carry: Carry, x: Any) -> Recurrence:
    """The same with the blocks of its state: one of all entries where no pattern is found."""
    params, like, x = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype), (params, carry, x)
    )
    with jax.ensure_compile_time_eval():
        z = found.split(like)[0]
    pattern = jacobian_pattern(
        lambda z, params, x: found.advance(step, params, z, x, like), z, params, x
    )
    parts = [np.arange(z.size)]
    if pattern is not None:
        parts = components(pattern, np.ones(z.size, bool))
    sizes = sorted({len(part) for part in parts})
    groups = [np.stack([part for part in parts if len(part) == size]) for size in sizes]
    return found._replace(groups=tuple(groups))


def run_in_parallel(
    cell: Cell, found: Recurrence, params: Params, carry: Carry, xs: Any
) -> tuple[Carry, Array]:
    """Computes s_1 ... s_T and h_1 ... h_T of one chunk of one sequence.

    Args:
      cell: The cell, without padding.
      found: What its program says.
      params: Its parameters.
      carry: s_0.
      xs: x_1 ... x_T, or the pair of them and whether each step is real.
    """
    is_padded = isinstance(xs, tuple)
    inputs, valid = xs if is_padded else (xs, None)
    z_0, restore = found.split(carry)

    def advance(z: Array, x: Any) -> Array:
        if not is_padded:
            return found.advance(cell.step, params, z, x, carry)
        return jnp.where(x[1], found.advance(cell.step, params, z, x[0], carry), z)

    before = _before(z_0, _solve(advance, found.groups, z_0, xs))
    # One more step from each state, all at once, also gives what is only read out.
    carries, outputs = jax.vmap(cell.step, (None, 0, 0))(params, jax.vmap(restore)(before), inputs)
    if valid is None:
        return carries, outputs
    latest = jax.lax.cummax(jnp.where(valid, jnp.arange(1, len(valid) + 1), 0))
    carries = jax.tree.map(lambda s, new: jnp.concatenate([s[None], new])[latest], carry, carries)
    return carries, jax.vmap(cell.hidden)(carries)


def _solve(
    advance: Callable[[Array, Any], Array], groups: Sequence[np.ndarray], z_0: Array, xs: Any
) -> States:
    """The states z_1 ... z_T.

    Derivatives of any order are those of the solution of a linear system: they take one more scan
    each, and never differentiate the tree of products in which a scan is computed.
    """
    still = jnp.zeros_like(z_0)

    def linear(z: Array, x: Any) -> Array:
        return jax.jvp(lambda s: advance(s, x), (still,), (z,))[1]

    def apart(z: States) -> States:
        return z - jax.vmap(linear)(_before(still, z), xs)

    def scan(r: States, *, transposed: bool) -> States:
        return _scan(_jacobians(linear, groups, still, xs), groups, r, transposed)

    num_steps = len(jax.tree.leaves(xs)[0])
    starts = jnp.zeros((num_steps, z_0.size), z_0.dtype).at[0].set(z_0)
    return jax.lax.custom_linear_solve(
        apart,
        jax.vmap(advance)(starts, xs),
        lambda _, r: scan(r, transposed=False),
        lambda _, r: scan(r, transposed=True),
    )


def _before(first: Array, states: States) -> States:
    """z_0 ... z_{T-1}."""
    return jnp.concatenate([first[None], states[:-1]])


def _jacobians(
    linear: Callable[[Array, Any], Array], groups: Sequence[np.ndarray], still: Array, xs: Any
) -> list[Float[Array, "steps size size blocks"]]:
    """The blocks of A_1 ... A_T. One direction gives a column of all blocks: they do not mix."""
    seeds = np.zeros((max((entries.shape[1] for entries in groups), default=0), still.size))
    for entries in groups:
        for column, places in enumerate(entries.T):
            seeds[column, places] = 1
    pushed = jax.vmap(lambda x: jax.vmap(linear, (0, None))(jnp.asarray(seeds, still.dtype), x))(xs)
    return [jnp.moveaxis(pushed[:, : entries.shape[1], entries.T], 1, 2) for entries in groups]


def _scan(
    jacobians: Sequence[Array], groups: Sequence[np.ndarray], r: States, transposed: bool
) -> States:
    """Solves z_t = A_t z_{t-1} + r_t, or its transpose z_t = Aᵀ_{t+1} z_{t+1} + r_t."""
    states = jnp.zeros_like(r)
    for matrices, entries in zip(jacobians, groups, strict=True):
        if transposed:
            matrices = jnp.roll(matrices, -1, axis=0).swapaxes(1, 2)
        product = by_entries if entries.shape[1] <= MOST_BY_ENTRIES else _by_matrices
        sides = r[:, entries.T][:, :, None]
        found = affine_scan(matrices, sides, product=product, reverse=transposed)
        states = states.at[:, entries.T].set(found[:, :, 0])
    return states


def _by_matrices(a: Array, b: Array) -> Array:
    return jnp.einsum("tijb,tjkb->tikb", a, b, precision="highest")
