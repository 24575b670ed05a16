"""JANET: an LSTM with a forget gate only."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Params
from gradflow.cells.parts import RecurrentInit, affine, init_gates
from gradflow.checks import check_number
from gradflow.initializers import BiasSpec, InitSpec


def janet(
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: BiasSpec = 1.0,
    beta: float = 1.0,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A JANET cell: one gate forgets and, shifted by beta, also admits the candidate.

    With a_t^q = W_x^q x_t + W_h^q h_{t-1} + b^q for the gates q = f, g::

        f_t = σ(a_t^f)    i_t = 1 - σ(a_t^f - beta)    g_t = tanh(a_t^g)
        h_t = f_t ∘ h_{t-1} + i_t ∘ g_t

    The paper's c_t and h_t are equal. With beta = 0 this is a coupled LSTM without output gate,
    and |h_t| <= 1 from h_0 = 0. With beta > 0, f + i > 1, and |h_t| may exceed 1. No library
    among Flax, PyTorch and Keras has this cell.

    Args:
      forget_bias: Initial value of b^f. The value log(T) makes f = T/(T + 1), a memory of T steps.
        The paper samples it for every unit from log U(1, T_max - 1), the chrono initialisation,
        here ``"chrono(max_lag=100)"`` for T_max = 100. b^g is initialised at zero.
      beta: Shift of the input gate, dimensionless; a constant of the step, not a parameter.
      recurrent_init: Initialiser of each gate's W_h separately.
      input_init: Initialiser of each gate's W_x.

    Raises:
      TypeError: If beta is not a number.
      ValueError: If it is not finite.

    Source: van der Westhuizen & Lasenby 2018, arXiv:1804.04849.
    """
    check_number("beta", beta, "finite", example=1.0)

    def gates(params: Params, h: Array, x: Array) -> dict[str, Array]:
        a = affine(params["f"], h, x)
        g = jnp.tanh(affine(params["g"], h, x))
        # σ(beta - a) equals 1 - σ(a - beta), but does not cancel to 0 where σ(a - beta) is near 1.
        return {"f": jax.nn.sigmoid(a), "i": jax.nn.sigmoid(beta - a), "g": g}

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        f, i, g = gates(params, h, x).values()
        h = f * h + i * g
        return h, h

    init = init_gates(
        "fg",
        input_size,
        hidden_size,
        recurrent_init=recurrent_init,
        input_init=input_init,
        biases={"f": forget_bias},
    )
    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size), gates=gates)
