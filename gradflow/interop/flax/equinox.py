"""The recurrent layers of Equinox modules in memory."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradflow.cell import Params
from gradflow.interop.flax.nets import layer_of
from gradflow.interop.gates import split_gates
from gradflow.interop.loading import Options
from gradflow.interop.net import Layer, Net, compared


def from_equinox(module: Any, options: Options) -> Net:
    """Returns the recurrent cells of an Equinox module: each ``LSTMCell`` and ``GRUCell`` in it.

    Equinox has no layers: how often and in which direction a cell is run is the user's code.

    Raises:
      ValueError: If there is none.
    """
    eqx = import_module("equinox")

    kinds = (eqx.nn.LSTMCell, eqx.nn.GRUCell)
    leaves = jax.tree_util.tree_leaves_with_path(module, is_leaf=lambda n: isinstance(n, kinds))
    layers: list[Layer] = []
    unsupported: dict[str, str] = {}
    for path, cell in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "cell"
        if not isinstance(cell, kinds) or not name.startswith(options.layer or ""):
            continue
        if np.ndim(cell.weight_hh) != 2:
            unsupported[name] = (
                f"its matrices have {np.ndim(cell.weight_hh)} axes, so that it is several cells; "
                "pass each by itself"
            )
            continue
        spec, params = _converted(cell, is_lstm=isinstance(cell, eqx.nn.LSTMCell))
        layer = layer_of(name, spec, params, "Equinox", is_reverse=False)
        layers.append(compared(layer, _original(cell, spec)) if options.verify else layer)
    if not layers and not unsupported:
        raise ValueError(
            f"Expected an Equinox module with an LSTMCell or a GRUCell, got none in "
            f"{type(module).__name__}. Pass the module that has them, without layer."
        )
    return Net("Equinox", tuple(layers), unsupported)


def _converted(cell: Any, *, is_lstm: bool) -> tuple[str, Params]:
    """The cell's name and parameters: rows of gates, i f g o, or r z n with a bias for n's h."""
    W_x, W_h = np.asarray(cell.weight_ih, np.float64), np.asarray(cell.weight_hh, np.float64)
    b = None if cell.bias is None else np.asarray(cell.bias, np.float64)
    if is_lstm:
        return "lstm", split_gates("lstm", "ifgo", W_x, W_h, b)
    b_h = None
    if cell.bias_n is not None:
        b_h = np.concatenate([np.zeros(2 * W_h.shape[1]), np.asarray(cell.bias_n, np.float64)])
    return "gru", split_gates("gru", "rzn", W_x, W_h, b, b_h)


def _original(cell: Any, spec: str) -> Callable[[np.ndarray], np.ndarray]:
    """Runs a copy of the cell in float64."""

    def run(inputs: np.ndarray) -> np.ndarray:
        with jax.enable_x64(True):
            exact = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), cell)
            zero = jnp.zeros(cell.hidden_size)
            start = (zero, zero) if spec == "lstm" else zero

            def step(carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
                carry = exact(x, carry)
                return carry, carry[0] if spec == "lstm" else carry

            return np.asarray(jax.vmap(lambda xs: jax.lax.scan(step, start, xs)[1])(inputs))

    return run
