"""Long expressive memory (LEM): two states, each with its own gated time step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, Params
from gradflow.cells.parts import RecurrentInit, affine, init_gates
from gradflow.checks import check_number
from gradflow.initializers import InitSpec


class LEMCarry(NamedTuple):
    """The two states of an LEM: the hidden state y, and z, which drives y."""

    y: Float[Array, " hidden"]
    z: Float[Array, " hidden"]


def lem(
    input_size: int,
    hidden_size: int,
    *,
    dt: float = 1.0,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """An LEM: a discretised system of two ODEs with a gated time step for each unit; h is y.

    With σ the logistic function and a_t^q = W_x^q x_t + W_h^q y_{t-1} + b^q for each q::

        d_t = dt σ(a_t^d)    e_t = dt σ(a_t^e)
        z_t = (1 - d_t) ∘ z_{t-1} + d_t ∘ tanh(a_t^z)
        y_t = (1 - e_t) ∘ y_{t-1} + e_t ∘ tanh(W_x^y x_t + W_h^y z_t + b^y)

    (In the paper d and e are Δt and Δt with a bar.) z_t enters y_t in the same step. The block
    ∂z_t/∂z_{t-1} is diag(1 - d_t). With dt ≤ 1 no unit leaves the interval ±max(1, |s_0|).

    Biases are initialised at zero. The authors' code initialises all parameters from
    U(±1/√hidden). The reported gates are σ(a^d) and σ(a^e), between 0 and 1.

    Args:
      dt: The largest time step, dimensionless.
      recurrent_init: Initialiser of each W_h; the names are d, e, z and y.
      input_init: Initialiser of each W_x.

    Raises:
      ValueError: If dt is not positive.

    Source: Rusch, Mishra, Erichson, Mahoney 2022, arXiv:2110.04744.
    """
    check_number("dt", dt, "positive", example=1.0)

    def gates(params: Params, carry: LEMCarry, x: Array) -> dict[str, Array]:
        return {gate: jax.nn.sigmoid(affine(params[gate], carry.y, x)) for gate in "de"}

    def step(params: Params, carry: LEMCarry, x: Array) -> tuple[LEMCarry, Array]:
        d, e = (dt * gate for gate in gates(params, carry, x).values())
        z = (1 - d) * carry.z + d * jnp.tanh(affine(params["z"], carry.y, x))
        y = (1 - e) * carry.y + e * jnp.tanh(affine(params["y"], z, x))
        return LEMCarry(y, z), y

    return Cell(
        init=init_gates(
            "dezy", input_size, hidden_size, recurrent_init=recurrent_init, input_init=input_init
        ),
        step=step,
        initial_carry=lambda: LEMCarry(jnp.zeros(hidden_size), jnp.zeros(hidden_size)),
        hidden=lambda carry: carry.y,
        gates=gates,
    )
