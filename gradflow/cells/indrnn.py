"""The independently recurrent network (IndRNN): each unit is recurrent on itself only."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Key, Params, split_key
from gradflow.cells.activations import resolve_activation
from gradflow.cells.parts import init_matrices
from gradflow.checks import check_number, check_sizes
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
    """An IndRNN: a vanilla RNN with a vector u of recurrent weights in place of a matrix.

    With φ the activation::

        h_t = φ(W_x x_t + u ∘ h_{t-1} + b)

    The step Jacobian is diag(φ'(a_t) ∘ u). The gradient of a unit through T steps of an active
    ReLU is therefore exactly u^T. Units interact only through the input weights of the next layer.

    Parameters are W_x (hidden, input), u (hidden,), initialised from
    U(recurrent_low, recurrent_high), and b (hidden,), initialised at zero. No library among Flax,
    PyTorch and Keras has this cell.

    Args:
      activation: ``relu``, ``tanh``, ``identity`` or another elementwise function of `jax.nn`.
      recurrent_low: The smallest initial u, dimensionless. For memory over T steps the paper uses
        weights near 1 in the last layer.
      recurrent_high: The largest initial u, dimensionless. For a ReLU the paper bounds |u| by
        2^(1/T), at initialisation and after every update; the latter is a part of training, not
        of the cell. Equal bounds give every unit the same weight.
      input_init: Initialiser of W_x. The authors' code uses a narrow uniform distribution that
        depends on the task.

    Raises:
      ValueError: For an unknown activation, or if the bounds are not finite or not in order.

    Source: Li, Li, Cook, Zhu, Gao 2018, arXiv:1803.04831.
    """
    check_sizes(input_size, hidden_size)
    check_number("recurrent_low", recurrent_low, "finite", example=0.0)
    check_number("recurrent_high", recurrent_high, "finite", example=1.0)
    if recurrent_low > recurrent_high:
        raise ValueError(
            f"Expected recurrent_low <= recurrent_high, got {recurrent_low!r} and "
            f"{recurrent_high!r}. Swap them."
        )
    phi = resolve_activation(activation)
    init_input = resolve_initializer(input_init)

    def init(key: Key) -> Params:
        key_x, key_u = split_key(key)
        return {
            **init_matrices(key_x, {"W_x": (init_input, (hidden_size, input_size))}),
            "u": jax.random.uniform(
                key_u, (hidden_size,), minval=recurrent_low, maxval=recurrent_high
            ),
            "b": jnp.zeros(hidden_size),
        }

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        h = phi(params["W_x"] @ x + params["u"] * h + params["b"])
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size))
