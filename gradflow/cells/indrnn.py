"""The independently recurrent net: every unit sees its own past alone."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Key, Params
from gradflow.cells.checks import check_number, check_sizes
from gradflow.cells.parts import draw_matrices
from gradflow.cells.rnn import resolve_activation
from gradflow.initializers import InitSpec, resolve_initializer


def indrnn(
    input_size: int,
    hidden_size: int,
    *,
    activation: str = "relu",
    recurrent_low: float = 0.0,
    recurrent_high: float = 1.0,
    input_init: InitSpec = "lecun",
) -> Cell:
    """The IndRNN: a recurrent weight for each unit in place of a matrix.

    With φ the activation::

        h_t = φ(W_x x_t + u ∘ h_{t-1} + b)

    Its step Jacobian is diag(φ'(a_t) ∘ u), so that the gradient of a unit through T steps of an
    active ReLU is u^T exactly. Units meet only in the input weights of a next layer.

    Parameters are W_x (hidden, input), u (hidden,), from U(recurrent_low, recurrent_high), and b
    (hidden,), which starts at zero.

    Args:
      activation: ``relu``, ``tanh``, ``identity`` or another elementwise function of `jax.nn`.
      recurrent_low: The least initial u, dimensionless. For memory over T steps the
        paper takes weights near 1 in the last layer.
      recurrent_high: The greatest initial u, dimensionless. The paper bounds |u| by 2^(1/T) for
        a ReLU, after every update as well, which belongs to the training. Equal bounds give
        every unit the same weight.
      input_init: Of W_x; the authors' code draws it from a narrow uniform law set by task.

    Raises:
      ValueError: For an unknown activation, or bounds that are not finite or not in order.

    Source: Li, Li, Cook, Zhu, Gao 2018, arXiv:1803.04831.
    """
    check_sizes(input_size, hidden_size)
    check_number("recurrent_low", recurrent_low, "finite", mend="it is a weight, such as 0.0")
    check_number("recurrent_high", recurrent_high, "finite", mend="it is a weight, such as 1.0")
    if recurrent_low > recurrent_high:
        raise ValueError(
            f"recurrent_low <= recurrent_high is expected, got {recurrent_low!r} and "
            f"{recurrent_high!r}; exchange them"
        )
    phi = resolve_activation(activation)
    draw_input = resolve_initializer(input_init)

    def init(key: Key) -> Params:
        key_x, key_u = jax.random.split(key)
        return {
            **draw_matrices(key_x, {"W_x": (draw_input, (hidden_size, input_size))}),
            "u": jax.random.uniform(
                key_u, (hidden_size,), minval=recurrent_low, maxval=recurrent_high
            ),
            "b": jnp.zeros(hidden_size),
        }

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        h = phi(params["W_x"] @ x + params["u"] * h + params["b"])
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size))
