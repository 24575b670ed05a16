"""The vanilla recurrent net of Elman, with any activation, and the identity RNN of Le."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Key, Params
from gradflow.cells.parts import RecurrentInit, affine, init_gates
from gradflow.initializers import InitSpec, identity
from gradflow.spec import check_name

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
    check_name("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


def rnn(
    input_size: int,
    hidden_size: int,
    *,
    activation: str = "tanh",
    residual: bool = False,
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
      residual: Whether h_{t-1} is added inside the activation, φ(W_x x_t + W_h h_{t-1} + b +
        h_{t-1}), as Flax Linen's ``residual`` does; then J_t = diag(φ'(a_t)) (W_h + I).
      recurrent_init: Of W_h.
      input_init: Of W_x.

    Source: Elman 1990, doi:10.1207/s15516709cog1402_1; Hu et al. 2018, arXiv:1801.06105
    (residual).
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
        a = affine(params, h, x)
        h = phi(a + h if residual else a)
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size))


def irnn(
    input_size: int,
    hidden_size: int,
    *,
    scale: float = 1.0,
    input_init: InitSpec = "normal(std=0.001)",
) -> Cell:
    """The identity RNN: h_t = relu(W_x x_t + W_h h_{t-1} + b), where W_h starts at scale · I.

    While all units are active and W_h is as it was drawn, J_t = scale · I. It is an `rnn` that
    starts elsewhere, with its parameters W_x, W_h, b; b starts at zero.

    Args:
      scale: Of the identity; dimensionless.
      input_init: Of W_x. N(0, 0.001²) as in the paper; some reproductions draw Glorot's.

    Raises:
      ValueError: If the scale is not a positive number.

    Source: Le, Jaitly, Hinton 2015, arXiv:1504.00941.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(
            f"scale is expected to be a positive number, got {scale}: the paper takes 1"
        )
    return rnn(
        input_size,
        hidden_size,
        activation="relu",
        recurrent_init=identity(scale),
        input_init=input_init,
    )


def switched_rnn(activations: Sequence[str], input_size: int, hidden_size: int) -> Cell:
    """The vanilla RNN whose activation is a parameter: φ is the one whose index is ``phi``.

    Its parameters are ``{"phi": (), "net": those of the rnn}``, so that runs side by side may
    differ in their activation, by one program. φ by phi has no derivative: no optimiser moves it.

    Args:
      activations: Names, as `rnn` takes them.
      input_size: Of x.
      hidden_size: Of h.

    Raises:
      ValueError: For an unknown name.
    """
    phis = [resolve_activation(name) for name in activations]
    plain = rnn(input_size, hidden_size)

    def init(key: Key) -> Params:
        net = plain.init(key)
        return {"phi": jnp.zeros((), net["b"].dtype), "net": net}

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        index = jax.lax.stop_gradient(params["phi"]).astype(int)
        h = jax.lax.switch(index, phis, affine(params["net"], h, x))
        return h, h

    return plain._replace(init=init, step=step)


def with_each_activation(params: Params, count: int) -> Params:
    """Parameters of a `switched_rnn`, with axes of runs in front, once for each activation.

    All are along one axis, the first activation's first.
    """
    axes = params["phi"].ndim
    index = jnp.arange(count, dtype=params["phi"].dtype).reshape(-1, *(1 for _ in range(axes)))
    spread = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), params)
    spread = spread | {"phi": spread["phi"] + index}
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[1 + axes :]), spread)
