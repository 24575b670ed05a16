"""What most cells share: parameters drawn per gate, and the affine map of a gate."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Key, Params
from gradflow.initializers import InitSpec, per_gate

RecurrentInit = InitSpec | Mapping[str, InitSpec]
"""One initialiser for every gate's W_h, or one for each gate by name."""


def check_sizes(input_size: int, hidden_size: int) -> None:
    """Raises the error for sizes that no cell can have.

    Raises:
      TypeError: If a size is not an integer.
      ValueError: If the input size is negative (0 is an autonomous cell) or the hidden size
        not positive.
    """
    for name, size, least in (("input_size", input_size, 0), ("hidden_size", hidden_size, 1)):
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"{name} is expected to be an integer, got {size!r}")
        if size < least:
            raise ValueError(f"{name} is expected to be at least {least}, got {size}")


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
    biases: Mapping[str, float] | None = None,
) -> Callable[[Key], Params]:
    """Makes the init function of a gated cell: ``params[gate] = {"W_x", "W_h", "b"}``.

    Every matrix is drawn by itself, from a key of its own. A bias is the constant given for its
    gate, else zero.
    """
    check_sizes(input_size, hidden_size)
    recurrent = per_gate(recurrent_init, gates)
    inputs = per_gate(input_init, gates)
    values = {gate: 0.0 for gate in gates} | dict(biases or {})

    def init_gate(gate: str, key: Key) -> dict[str, Array]:
        key_x, key_h = jax.random.split(key)
        dtype = jnp.zeros(()).dtype  # the default float: 64 bits if x64 is on
        return {
            "W_x": _draw(inputs[gate], key_x, (hidden_size, input_size), dtype),
            "W_h": recurrent[gate](key_h, (hidden_size, hidden_size), dtype),
            "b": jnp.full(hidden_size, values[gate], dtype),
        }

    def init(key: Key) -> Params:
        keys = jax.random.split(key, len(gates))
        return {gate: init_gate(gate, k) for gate, k in zip(gates, keys, strict=True)}

    return init


def _draw(init, key: Key, shape: tuple[int, int], dtype) -> Array:
    # A scaled initialiser divides by the number of inputs, which an autonomous cell has none of.
    return init(key, shape, dtype) if shape[1] else jnp.zeros(shape, dtype)
