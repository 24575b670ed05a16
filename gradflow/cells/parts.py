"""Parameters of each gate: their initialisation, and the affine map of a gate."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Key, Params, split_key
from gradflow.checks import check_sizes
from gradflow.initializers import BiasSpec, Initializer, InitSpec, per_gate, resolve_bias

RecurrentInit = InitSpec | Mapping[str, InitSpec]
"""An initialiser for every gate's W_h, or an initialiser for each gate by name."""


def affine(gate: Mapping[str, Array], h: Array, x: Array) -> Float[Array, " hidden"]:
    """Computes the pre-activation W_x x + W_h h + b of one gate."""
    return gate["W_x"] @ x + gate["W_h"] @ h + gate["b"]


def init_gates(
    gates: Sequence[str],
    input_size: int,
    hidden_size: int,
    *,
    recurrent_init: RecurrentInit,
    input_init: InitSpec,
    biases: Mapping[str, BiasSpec] | None = None,
    recurrent_size: int | None = None,
) -> Callable[[Key], Params]:
    """Makes the init function of a gated cell: ``params[gate] = {"W_x", "W_h", "b"}``.

    Every matrix is initialised separately, from its own key, and the biases by `init_biases`. The
    size of the h that W_h multiplies is recurrent_size, where it is not hidden_size.
    """
    check_sizes(input_size, hidden_size)
    recurrent = per_gate(recurrent_init, gates)
    inputs = per_gate(input_init, gates)
    init_b = init_biases(gates, biases or {})

    def init(key: Key) -> Params:
        keys = split_key(key, len(gates))
        keys_x, keys_h = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        dtype = jnp.zeros(()).dtype  # the default float: 64 bits if x64 is on
        W_x = _init_each(inputs, keys_x, (hidden_size, input_size), dtype)
        W_h = _init_each(recurrent, keys_h, (hidden_size, recurrent_size or hidden_size), dtype)
        b = init_b(keys, (hidden_size,), dtype)
        return {gate: {"W_x": W_x[gate], "W_h": W_h[gate], "b": b[gate]} for gate in gates}

    return init


def init_biases(
    gates: Sequence[str], biases: Mapping[str, BiasSpec]
) -> Callable[[Array, tuple[int], Any], dict[str, Array]]:
    """Makes the function (a key for each gate, shape, dtype) -> the bias of each gate.

    A bias is initialised as given, else at zero. If the initialiser of the forget gate f has
    `BiasInitializer.opposite_input`, and none is given for the input gate i, then b_i = -b_f.
    """
    inits = {gate: resolve_bias(biases.get(gate, 0.0)) for gate in gates}
    is_opposite = "f" in inits and inits["f"].opposite_input and "i" in inits and "i" not in biases

    def init(keys: Array, shape: tuple[int], dtype: Any) -> dict[str, Array]:
        # The matrices of a gate use the keys 0 and 1 of a split; fold_in(key, 2) is independent of
        # both, so that a random bias does not change the matrices.
        b = {
            gate: inits[gate](jax.random.fold_in(key, 2), shape, dtype)
            for gate, key in zip(gates, keys, strict=True)
        }
        return b | {"i": -b["f"]} if is_opposite else b

    return init


def _init_each(
    initializers: Mapping[str, Initializer], keys: Array, shape: tuple[int, int], dtype
) -> dict[str, Array]:
    """Initialises a matrix for each gate."""
    first, *others = initializers.values()
    if all(other is first for other in others):
        # One vmapped call compiles the initialiser once, not once a gate.
        matrices = jax.vmap(lambda key: _init_matrix(first, key, shape, dtype))(keys)
    else:
        pairs = zip(initializers.values(), keys, strict=True)
        matrices = [_init_matrix(init, key, shape, dtype) for init, key in pairs]
    return dict(zip(initializers, matrices, strict=True))


def init_matrices(
    key: Key, matrices: Mapping[str, tuple[Initializer, tuple[int, int]]]
) -> dict[str, Array]:
    """Initialises matrices by name, each with its initialiser and from its own key.

    This is for cells whose parameters are not those of `init_gates`. The input matrix of an
    autonomous cell has no columns and is empty.
    """
    dtype = jnp.zeros(()).dtype
    keys = split_key(key, len(matrices))
    return {
        name: _init_matrix(init, k, shape, dtype)
        for k, (name, (init, shape)) in zip(keys, matrices.items(), strict=True)
    }


def _init_matrix(init: Initializer, key: Key, shape: tuple[int, int], dtype) -> Array:
    # A scaled initialiser divides by the number of columns, which is 0 in an autonomous cell.
    return init(key, shape, dtype) if shape[1] else jnp.zeros(shape, dtype)
