"""The light GRU: a GRU without a reset gate, whose candidate is a ReLU."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Params
from gradflow.cells.activations import resolve_activation
from gradflow.cells.parts import RecurrentInit, affine, init_gates
from gradflow.initializers import BiasSpec, InitSpec


def ligru(
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: BiasSpec = 0.0,
    activation: str = "relu",
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A light GRU (Li-GRU): a GRU without a reset gate, whose candidate is a ReLU.

    With a_t^q = W_x^q x_t + W_h^q h_{t-1} + b^q for q = z, n::

        z_t = σ(a_t^z)    n_t = relu(a_t^n)
        h_t = z_t ∘ h_{t-1} + (1 - z_t) ∘ n_t

    Where z is 1 the old state is kept. The paper normalises W_x^z x_t and W_x^n x_t over the batch
    in place of the biases. This is not part of the cell: after training it is an affine map of each
    unit, which W_x and b can contain. No library among Flax, PyTorch and Keras has this cell.

    Args:
      forget_bias: Initial value of b^z; b^n is initialised at zero.
      activation: The function in place of relu. With ``tanh`` it is an `ugrnn`.
      recurrent_init: Initialiser of each gate's W_h separately: orthogonal, as in the paper.
      input_init: Initialiser of each gate's W_x: LeCun's; the paper uses Glorot's.

    Source: Ravanelli, Brakel, Omologo, Bengio 2018, arXiv:1803.10225.
    """
    phi = resolve_activation(activation)
    init = init_gates(
        "zn",
        input_size,
        hidden_size,
        recurrent_init=recurrent_init,
        input_init=input_init,
        biases={"z": forget_bias},
    )

    def gates(params: Params, h: Array, x: Array) -> dict[str, Array]:
        return {"z": jax.nn.sigmoid(affine(params["z"], h, x))}  # n is not bounded

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        z = gates(params, h, x)["z"]
        h = z * h + (1 - z) * phi(affine(params["n"], h, x))
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size), gates=gates)
