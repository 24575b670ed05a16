"""Masks on the recurrent matrices of a cell, which remove connections between units."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gradflow.cell import Cell, Params, param_shapes
from gradflow.checks import check_integer, check_text
from gradflow.spec import check_name


def map_matrices(params: Params, **functions: Callable[[Any], Any]) -> Params:
    """Applies a function to every parameter of a given name, in all gates and layers.

    Args:
      params: The parameters of a cell.
      functions: The function for each parameter name, such as ``W_h``.

    Raises:
      ValueError: If a name is not among the parameters.
    """
    found = set()

    def apply(path: tuple, leaf: Any) -> Any:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        found.add(name)
        return functions[name](leaf) if name in functions else leaf

    mapped = jax.tree_util.tree_map_with_path(apply, params)
    for name in functions:
        if name not in found:
            raise ValueError(
                f"Expected a cell with a parameter {name}, got a cell with {sorted(found)}. Use a "
                "cell that has it, for example rnn or lstm."
            )
    return mapped


def with_recurrent_mask(cell: Cell, mask: Float[np.ndarray, "hidden hidden"]) -> Cell:
    """Replaces every gate's W_h in the step by mask ∘ W_h.

    ``mask[i, j]`` is 1 if unit i receives input from unit j, else 0; a value in between scales
    the connection. The step applies the mask, so that a removed connection has no gradient.
    init still initialises full matrices. `recurrent_mask` makes masks by name.

    Raises:
      ValueError: If the cell has no W_h, or if a W_h does not have the shape of the mask.
    """
    mask = np.asarray(mask)

    def check(W_h: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        if W_h.shape != mask.shape:
            raise ValueError(
                f"Expected a mask of the shape of W_h, {W_h.shape}, got {mask.shape}. Make a row "
                "for each unit and a column for each unit that it receives input from."
            )
        return W_h

    map_matrices(param_shapes(cell), W_h=check)

    def masked(params: Params) -> Params:
        return map_matrices(params, W_h=lambda W_h: W_h * jnp.asarray(mask, W_h.dtype))

    gates = cell.gates
    return cell._replace(
        step=lambda params, carry, x: cell.step(masked(params), carry, x),
        gates=gates and (lambda params, carry, x: gates(masked(params), carry, x)),
    )


def _same_layer(layer: np.ndarray) -> np.ndarray:
    return layer[:, None] == layer[None]


CONNECTIONS = {
    "direct": lambda layer: np.eye(len(layer), dtype=bool),
    "forward": lambda layer: layer[:, None] == layer[None] + 1,
    "full": lambda layer: np.ones((len(layer), len(layer)), bool),
    "indirect": lambda layer: layer[:, None] < layer[None],
    "lateral": lambda layer: _same_layer(layer) & ~np.eye(len(layer), dtype=bool),
}
"""Masks by name, from the layer of each unit: row i, column j is 1 if i receives from j."""


def recurrent_mask(
    pattern: str, hidden_size: int, *, num_layers: int = 1
) -> Float[np.ndarray, "hidden hidden"]:
    """Makes the mask of a kind of connection, or of several joined by +: ``"direct+lateral"``.

    The units are divided into num_layers layers of (nearly) equal size. A unit receives input
    from::

        direct     itself: W_h is diagonal
        lateral    the other units of its layer
        indirect   the units of the layers above its own
        forward    the units of the layer directly below its own
        full       every unit

    Raises:
      TypeError: If the pattern is not a text or num_layers is not an integer.
      ValueError: For an unknown kind, more layers than units, or a pattern without connections.
    """
    check_text("pattern", pattern)
    check_integer("num_layers", num_layers, 1, hidden_size)
    layer = np.arange(hidden_size) * num_layers // hidden_size
    mask = np.zeros((hidden_size, hidden_size), bool)
    for kind in pattern.replace(" ", "").split("+"):
        check_name("kind of connection", kind, CONNECTIONS)
        mask |= CONNECTIONS[kind](layer)
    if not mask.any():
        raise ValueError(
            f"Expected a pattern with at least one connection, got {pattern!r} for {hidden_size} "
            f"units in {num_layers} layers. Add a kind, for example {pattern}+direct."
        )
    return mask.astype(float)
