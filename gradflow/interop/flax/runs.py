"""Runs of the recurrent cells of Flax and Haiku on given parameters, to verify an import."""

from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from gradflow.cells.activations import resolve_activation
from gradflow.interop.flax.nested import Tree
from gradflow.interop.flax.trees import CellTree
from gradflow.interop.verification import Run


def original_cell(cell: CellTree, hidden_size: int, activation: str) -> Run:
    """Returns a function that runs the framework's own cell, forwards and in float64.

    Args:
      cell: Its parameters.
      hidden_size: Size of its state.
      activation: The activation of a simple cell, by gradflow's name.

    Raises:
      ModuleNotFoundError: If it is a core of Haiku, which is not installed.
    """
    framework, _, kind = cell.kind.partition(".")
    if framework == "haiku":
        return _haiku_run(kind, cell.tree, hidden_size)

    def run(inputs: np.ndarray) -> np.ndarray:
        with jax.enable_x64(True):
            x = jnp.asarray(inputs, jnp.float64)
            settings: dict[str, Any] = {"param_dtype": jnp.float64}
            if kind == "SimpleCell":
                settings["activation_fn"] = resolve_activation(activation)
            if framework == "linen":
                module = linen.RNN(getattr(linen, kind)(hidden_size, **settings))
                like = jax.eval_shape(module.init, jax.random.key(0), x)["params"]["cell"]
                return np.asarray(module.apply({"params": {"cell": _like(like, cell.tree)}}, x))
            settings["dtype"] = jnp.float64  # Flax rounds to float32 in a SimpleCell otherwise
            made = getattr(nnx, kind)(x.shape[-1], hidden_size, rngs=nnx.Rngs(0), **settings)
            graph, state, rest = nnx.split(made, nnx.Param, ...)
            nnx.replace_by_pure_dict(state, _like(nnx.to_pure_dict(state), cell.tree))
            outputs: Any = nnx.RNN(nnx.merge(graph, state, rest))(x)
            return np.asarray(outputs)

    return run


def _like(like: Tree, tree: Tree) -> dict[str, Any]:
    """The arrays of a tree where another has some, and zeros where the tree has none."""
    return {
        name: _like(leaf, tree.get(name, {}))
        if isinstance(leaf, dict)
        else jnp.asarray(tree.get(name, np.zeros(leaf.shape)), jnp.float64)
        for name, leaf in like.items()
    }


def _haiku_run(kind: str, tree: Tree, hidden_size: int) -> Run:
    hk = import_module("haiku")

    options = {"double_bias": "b" in tree["linear_1"]} if kind == "VanillaRNN" else {}

    def forward(x: jax.Array) -> Any:
        core = getattr(hk, kind)(hidden_size, name="core", **options)
        return hk.dynamic_unroll(core, x, core.initial_state(x.shape[1]))[0]

    def run(inputs: np.ndarray) -> np.ndarray:
        named = {"core": tree} if kind == "GRU" else {f"core/{n}": leaf for n, leaf in tree.items()}
        with jax.enable_x64(True):
            params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), named)
            x = jnp.asarray(np.swapaxes(inputs, 0, 1), jnp.float64)
            outputs = hk.without_apply_rng(hk.transform(forward)).apply(params, x)
            return np.swapaxes(np.asarray(outputs), 0, 1)

    return run


def run_nnx_cell(cell: Any) -> Run:
    """Returns a function that runs an NNX cell in memory as it is, forwards."""

    def run(inputs: np.ndarray) -> np.ndarray:
        x = jnp.asarray(inputs, jnp.float32)
        carry = jax.tree.map(jnp.zeros_like, cell.initialize_carry(x[:, 0].shape, nnx.Rngs(0)))
        outputs = []
        for t in range(x.shape[1]):
            carry, h = cell(carry, x[:, t])
            outputs.append(h)
        return np.stack(outputs, axis=1)

    return run
