"""What most cells share: parameters drawn per gate, and the affine map of a gate."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Key, Params
from gradflow.cells.checks import check_sizes
from gradflow.initializers import BiasSpec, Initializer, InitSpec, per_gate, resolve_bias

RecurrentInit = InitSpec | Mapping[str, InitSpec]
"""One initialiser for every gate's W_h, or one for each gate by name."""


def affine(gate: Mapping[str, Array], h: Array, x: Array) -> Float[Array, " hidden"]:
    """W_x x + W_h h + b for the parameters of one gate."""
    return gate["W_x"] @ x + gate["W_h"] @ h + gate["b"]


def init_gates(
    gates: Sequence[str],
    input_size: int,
    hidden_size: int,
    *,
    recurrent_init: RecurrentInit,
    input_init: InitSpec,
    biases: Mapping[str, BiasSpec | None] | None = None,
) -> Callable[[Key], Params]:
    """Makes the init function of a gated cell: ``params[gate] = {"W_x", "W_h", "b"}``.

    Every matrix is drawn by itself, from a key of its own. The biases are those of `init_biases`.
    """
    check_sizes(input_size, hidden_size)
    recurrent = per_gate(recurrent_init, gates)
    inputs = per_gate(input_init, gates)
    init_b = init_biases(gates, biases or {})

    def init(key: Key) -> Params:
        keys = jax.random.split(key, len(gates))
        keys_x, keys_h = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        dtype = jnp.zeros(()).dtype  # the default float: 64 bits if x64 is on
        W_x = _draw_each(inputs, keys_x, (hidden_size, input_size), dtype)
        W_h = _draw_each(recurrent, keys_h, (hidden_size, hidden_size), dtype)
        b = init_b(keys, (hidden_size,), dtype)
        return {gate: {"W_x": W_x[gate], "W_h": W_h[gate], "b": b[gate]} for gate in gates}

    return init


def init_biases(
    gates: Sequence[str], biases: Mapping[str, BiasSpec | None]
) -> Callable[[Array, tuple[int], Any], dict[str, Array]]:
    """Makes the function (a key for each gate, shape, dtype) -> the bias of each gate.

    A gate starts at the bias given for it, else at zero. A law of the forget gate f that declares
    it (`BiasLaw.opposite_input`) sets b_i = -b_f where there is an input gate i without a bias
    given.
    """
    given = {gate: spec for gate, spec in biases.items() if spec is not None}
    laws = {gate: resolve_bias(given.get(gate, 0.0)) for gate in gates}
    is_opposite = "f" in laws and laws["f"].opposite_input and "i" in laws and "i" not in given

    def init(keys: Array, shape: tuple[int], dtype: Any) -> dict[str, Array]:
        # A key beyond those of the split, so that the matrices do not depend on the bias.
        b = {
            gate: laws[gate](jax.random.fold_in(key, 2), shape, dtype)
            for gate, key in zip(gates, keys, strict=True)
        }
        return b | {"i": -b["f"]} if is_opposite else b

    return init


def _draw_each(
    initializers: Mapping[str, Initializer], keys: Array, shape: tuple[int, int], dtype
) -> dict[str, Array]:
    """A matrix for each gate, all at once where one initialiser serves all: compiled once."""
    first, *others = initializers.values()
    if all(other is first for other in others):
        drawn = jax.vmap(lambda key: _draw(first, key, shape, dtype))(keys)
    else:
        pairs = zip(initializers.values(), keys, strict=True)
        drawn = [_draw(init, key, shape, dtype) for init, key in pairs]
    return dict(zip(initializers, drawn, strict=True))


def draw_matrices(
    key: Key, matrices: Mapping[str, tuple[Initializer, tuple[int, int]]]
) -> dict[str, Array]:
    """Draws matrices by name, each by its initialiser and from a key of its own.

    For cells whose parameters are not those of `init_gates`. A matrix without columns, as an
    autonomous cell has for its input, is empty.
    """
    dtype = jnp.zeros(()).dtype
    keys = jax.random.split(key, len(matrices))
    return {
        name: _draw(init, k, shape, dtype)
        for k, (name, (init, shape)) in zip(keys, matrices.items(), strict=True)
    }


def _draw(init, key: Key, shape: tuple[int, int], dtype) -> Array:
    # A scaled initialiser divides by the number of inputs, which an autonomous cell has none of.
    return init(key, shape, dtype) if shape[1] else jnp.zeros(shape, dtype)
