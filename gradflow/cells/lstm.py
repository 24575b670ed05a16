"""The long short-term memory of Hochreiter & Schmidhuber, with the forget gate of Gers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, Params
from gradflow.cells.parts import RecurrentInit, affine, init_gates
from gradflow.initializers import InitSpec


class LSTMCarry(NamedTuple):
    """The two states of an LSTM: the hidden state h and the cell state c."""

    h: Float[Array, " hidden"]
    c: Float[Array, " hidden"]


def lstm(
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: float = 1.0,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """The LSTM with a forget gate and without peepholes.

    With σ the logistic function and a_t^q = W_x^q x_t + W_h^q h_{t-1} + b^q for each gate q::

        i_t = σ(a_t^i)    f_t = σ(a_t^f)    o_t = σ(a_t^o)    g_t = tanh(a_t^g)
        c_t = f_t ∘ c_{t-1} + i_t ∘ g_t
        h_t = o_t ∘ tanh(c_t)

    Args:
      forget_bias: Initial value of b^f; nothing is added inside the step. 1 as in Keras; Flax
        starts at 0, PyTorch at random. The other biases start at zero.
      recurrent_init: Of each gate's W_h by itself, as Flax Linen draws it; Keras draws one
        orthogonal matrix for all four gates at once.
      input_init: Of each gate's W_x.

    Source: Hochreiter & Schmidhuber 1997; Gers, Schmidhuber, Cummins 2000 (forget gate);
    Jozefowicz, Zaremba, Sutskever 2015 (forget bias 1).
    """

    def gates(params: Params, carry: LSTMCarry, x: Array) -> dict[str, Array]:
        a = {gate: affine(params[gate], carry.h, x) for gate in "ifgo"}
        return {gate: jnp.tanh(a[gate]) if gate == "g" else jax.nn.sigmoid(a[gate]) for gate in a}

    def step(params: Params, carry: LSTMCarry, x: Array) -> tuple[LSTMCarry, Array]:
        i, f, g, o = gates(params, carry, x).values()
        c = f * carry.c + i * g
        h = o * jnp.tanh(c)
        return LSTMCarry(h, c), h

    return Cell(
        init=init_gates(
            "ifgo",
            input_size,
            hidden_size,
            recurrent_init=recurrent_init,
            input_init=input_init,
            biases={"f": forget_bias},
        ),
        step=step,
        initial_carry=lambda: LSTMCarry(jnp.zeros(hidden_size), jnp.zeros(hidden_size)),
        hidden=lambda carry: carry.h,
        gates=gates,
    )
