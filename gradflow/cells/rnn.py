"""The vanilla recurrent net of Elman, with any activation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Key, Params
from gradflow.cells.parts import RecurrentInit, affine, init_gates
from gradflow.initializers import InitSpec
from gradflow.spec import unknown_name

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    name: getattr(jax.nn, name)
    for name in (
        "celu elu gelu hard_sigmoid hard_silu hard_swish hard_tanh identity leaky_relu "
        "log_sigmoid mish relu relu6 selu sigmoid silu soft_sign softplus sparse_plus "
        "squareplus swish tanh"
    ).split()
    if hasattr(jax.nn, name)
} | {"identity": lambda x: x, "tanh": jnp.tanh}
"""Elementwise activations by name: those of `jax.nn`, and the identity of a linear net."""


def resolve_activation(name: str) -> Callable[[Array], Array]:
    """The elementwise activation of that name.

    Raises:
      ValueError: For an unknown name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(unknown_name("activation", name, ACTIVATIONS))
    return ACTIVATIONS[name]


def rnn(
    input_size: int,
    hidden_size: int,
    *,
    activation: str = "tanh",
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """The vanilla RNN: h_t = φ(W_x x_t + W_h h_{t-1} + b), with φ the activation.

    Its step Jacobian is J_t = diag(φ'(a_t)) W_h. Parameters are at the top level: W_x, W_h, b;
    b starts at zero. PyTorch's is the same function with two biases that are added (and draws
    everything from U(±1/√hidden)); Flax's ``SimpleCell`` is the same with one; Haiku's
    ``VanillaRNN`` has ReLU.

    Args:
      activation: ``tanh``, ``relu``, ``identity`` or another elementwise function of `jax.nn`.
      recurrent_init: Of W_h.
      input_init: Of W_x.

    Source: Elman 1990, doi:10.1207/s15516709cog1402_1.
    """
    phi = resolve_activation(activation)
    init_gate = init_gates(
        ["rnn"],
        input_size,
        hidden_size,
        recurrent_init=recurrent_init,
        input_init=input_init,
    )

    def init(key: Key) -> Params:
        return init_gate(key)["rnn"]

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        h = phi(affine(params, h, x))
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size))
