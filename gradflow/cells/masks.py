"""Masks on the matrices of a cell: which unit hears which."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gradflow.cell import Cell, Params
from gradflow.spec import check_name


def map_matrices(params: Params, **functions: Callable[[Any], Any]) -> Params:
    """Applies functions to the parameters of their names, in every gate and layer.

    Raises:
      ValueError: If there is no parameter of one of the names.
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
                f"a cell with {name} among its parameters is expected, got {sorted(found)}: "
                "only a matrix of that name is masked"
            )
    return mapped


def with_recurrent_mask(cell: Cell, mask: Float[np.ndarray, "hidden hidden"]) -> Cell:
    """The cell in which every gate's W_h is mask ∘ W_h: which unit hears which.

    ``mask[i, j]`` is 1 where unit i hears unit j, else 0; what lies between weakens. The
    masking is in the step, so that a connection that is not there has no gradient either;
    init draws full matrices as before. See `recurrent_mask` for masks by name.

    Raises:
      ValueError: If the cell has no W_h, or one of another shape than the mask.
    """
    mask = np.asarray(mask)
    shapes = jax.eval_shape(cell.init, jax.eval_shape(jax.random.key, 0))

    def check(W_h: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        if W_h.shape != mask.shape:
            raise ValueError(
                f"a mask of the shape of W_h, {W_h.shape}, is expected, got {mask.shape}: "
                "a row for each unit that hears, a column for each that is heard"
            )
        return W_h

    map_matrices(shapes, W_h=check)

    def masked(params: Params) -> Params:
        return map_matrices(params, W_h=lambda W_h: W_h * jnp.asarray(mask, W_h.dtype))

    gates = cell.gates
    return cell._replace(
        step=lambda params, carry, x: cell.step(masked(params), carry, x),
        gates=gates and (lambda params, carry, x: gates(masked(params), carry, x)),
    )


def _same_layer(layer: np.ndarray) -> np.ndarray:
    return layer[:, None] == layer[None]


FEEDBACKS = {
    "direct": lambda layer: np.eye(len(layer), dtype=bool),
    "forward": lambda layer: layer[:, None] == layer[None] + 1,
    "full": lambda layer: np.ones((len(layer), len(layer)), bool),
    "indirect": lambda layer: layer[:, None] < layer[None],
    "lateral": lambda layer: _same_layer(layer) & ~np.eye(len(layer), dtype=bool),
}
"""Which units hear which, from the layer that each unit is in."""


def recurrent_mask(
    pattern: str, hidden_size: int, *, num_layers: int = 1
) -> Float[np.ndarray, "hidden hidden"]:
    """The mask of a kind of feedback, or of several joined by +: ``"direct+lateral"``.

    The units are thought of as num_layers layers of (nearly) equal size, one after the other::

        direct     a unit hears itself:                          W_h diagonal
        lateral    the other units of its layer
        indirect   the units of the layers above its own
        forward    the units of the layer just below its own
        full       every unit

    Raises:
      ValueError: For an unknown kind, a number of layers that the units do not fill, or a
        pattern in which no unit hears any.
    """
    if not 1 <= num_layers <= hidden_size:
        raise ValueError(
            f"1 ... {hidden_size} layers are expected for {hidden_size} units, got {num_layers}: "
            "give every layer a unit at least"
        )
    layer = np.arange(hidden_size) * num_layers // hidden_size
    mask = np.zeros((hidden_size, hidden_size), bool)
    for kind in pattern.replace(" ", "").split("+"):
        check_name("kind of feedback", kind, FEEDBACKS)
        mask |= FEEDBACKS[kind](layer)
    if not mask.any():
        raise ValueError(
            f"a pattern in which some unit hears another is expected, got {pattern!r} of "
            f"{hidden_size} units in {num_layers} layers: add a kind, or a layer"
        )
    return mask.astype(float)
