"""Which outputs of a function depend on which of its inputs, found from its program."""

import logging
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Bool, Int

Pattern: TypeAlias = Any
"""A `scipy.sparse.csr_array` of booleans. (SciPy is imported in functions, because importing it
changes the global warning filters.)"""


def jacobian_pattern(function: Callable[..., Any], *args: Any) -> Pattern | None:
    """Finds the entries of ∂function/∂args[0] that are not zero for every value of all arguments.

    The pattern is read off the program of the function and is conservative: an entry outside of it
    is zero whatever the values, one inside may be zero. (A rule of its own for the derivative,
    `jax.custom_jvp`, is not seen.)

    Args:
      function: A function of a vector and of more arguments, with a vector as its result.
      *args: Arguments of the right shapes and types; their values do not matter.

    Returns:
      True at those entries, sparse; None where the program has an operation without a rule. The
      logger ``gradflow`` then says which at level debug.

    Source: Hill & Dalle 2025, arXiv:2501.17737 (sparsity detection by abstract interpretation).
    """
    import asdex  # takes half a second, which only a measurement needs
    from scipy import sparse

    with jax.ensure_compile_time_eval():
        try:
            found = asdex.jacobian_sparsity(function, *args)
        except Exception as error:  # of whatever type a program causes that it cannot interpret
            log = logging.getLogger("gradflow")
            log.debug("The Jacobian is taken as dense: %s: %s", type(error).__name__, error)
            return None
    ones = np.ones(len(found.rows), bool)
    return sparse.csr_array((ones, (found.rows, found.cols)), shape=found.shape)


def components(pattern: Pattern, kept: Bool[np.ndarray, " n"]) -> list[Int[np.ndarray, " entries"]]:
    """Finds the sets of entries that a square matrix and its powers do not mix.

    They are the connected components of the graph that has an edge for each entry of the pattern.

    Args:
      pattern: That of the matrix.
      kept: Which entries are looked at; rows and columns of others are left out.

    Returns:
      The indices of each component, ascending.
    """
    from scipy.sparse import csgraph

    places = np.flatnonzero(kept)
    part = pattern[places][:, places]
    count, labels = csgraph.connected_components(part, directed=False)
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=count))[:-1]
    return [places[one] for one in np.split(order, ends)]
