"""The recurrent layers of Equinox modules in memory."""

from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradflow.interop.gates import torch_params
from gradflow.interop.loading import Options
from gradflow.interop.net import Layer, Net, layer_of
from gradflow.interop.verification import Run, compared


def from_equinox(module: Any, options: Options) -> Net:
    """Returns the recurrent cells of an Equinox module: each ``LSTMCell`` and ``GRUCell`` in it.

    Equinox has no layers: how often and in which direction a cell is run is the user's code.
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
        spec, params, _ = torch_params(_arrays(cell))
        layer = layer_of(name, spec, params, "Equinox")
        layers.append(compared(layer, _original(cell, spec)) if options.verify else layer)
    if not layers and not unsupported:
        raise ValueError(
            f"Expected an Equinox module with an LSTMCell or a GRUCell, got none in "
            f"{type(module).__name__}. Pass the module that has them, without layer."
        )
    return Net("Equinox", tuple(layers), unsupported)


def _arrays(cell: Any) -> dict[str, np.ndarray]:
    """The arrays of a cell by PyTorch's roles, whose order they have; a GRU has a b_h for n."""
    found = {"W_x": cell.weight_ih, "W_h": cell.weight_hh, "b_x": cell.bias}
    if getattr(cell, "bias_n", None) is not None:
        found["b_h"] = np.concatenate([np.zeros(2 * cell.hidden_size), cell.bias_n])
    return {role: np.asarray(a, np.float64) for role, a in found.items() if a is not None}


def _original(cell: Any, spec: str) -> Run:
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
