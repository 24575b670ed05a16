"""The Lipschitz RNN: a linear term with a bounded spectrum and a Lipschitz nonlinearity."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params
from gradflow.cells.parts import RecurrentInit, init_gates
from gradflow.checks import check_number
from gradflow.initializers import InitSpec


def lipschitz(
    input_size: int,
    hidden_size: int,
    *,
    eps: float = 0.01,
    beta: float = 0.8,
    gamma: float = 0.01,
    recurrent_init: RecurrentInit = "normal",
    input_init: InitSpec = "glorot",
) -> Cell:
    """A Lipschitz RNN: a forward Euler step of an ODE with a linear and a nonlinear term.

    With S(M) = (1 - beta)(M + Mᵀ) + beta (M - Mᵀ) - gamma I, and A = S(M_A), W_h = S(M_W)::

        h_t = h_{t-1} + eps (A h_{t-1} + tanh(W_h h_{t-1} + W_x x_t + b))

    beta weights the antisymmetric part, which rotates h, against the symmetric part, which scales
    it. gamma shifts the spectrum to the left: the symmetric part of S is
    (1 - beta)(M + Mᵀ) - gamma I. With beta = 1 this is the AntisymmetricRNN with a linear term.

    Parameters are M_A, M_W (hidden, hidden), W_x (hidden, input) and b (hidden,), initialised at
    zero. In the paper beta and gamma may differ between A and W_h; the authors' code, like this
    cell, has one pair. Their code initialises M_A and M_W with standard deviation 1/hidden, not
    1/√hidden.

    Args:
      eps: Step size, in units of the ODE's time.
      beta: Weight of the antisymmetric part, between 0 and 1, dimensionless.
      gamma: Damping, dimensionless.
      recurrent_init: Initialiser of M_A and M_W; their names are ``A`` and ``W``.
      input_init: Initialiser of W_x.

    Raises:
      ValueError: If eps is not positive, beta is not between 0 and 1, or gamma is negative.

    Source: Erichson, Azencot, Queiruga, Hodgkinson, Mahoney 2021, arXiv:2006.12070.
    """
    check_number("eps", eps, "positive", example=0.01)
    check_number("beta", beta, "between 0 and 1", example=0.8)
    check_number("gamma", gamma, "non-negative", example=0.01)
    init_gate = init_gates(
        "AW", input_size, hidden_size, recurrent_init=recurrent_init, input_init=input_init
    )

    def init(key: Key) -> Params:
        p = init_gate(key)
        matrices = {"M_A": p["A"]["W_h"], "M_W": p["W"]["W_h"]}
        return {**matrices, "W_x": p["W"]["W_x"], "b": p["W"]["b"]}

    def shifted(M: Float[Array, "n n"]) -> Float[Array, "n n"]:
        parts = (1 - beta) * (M + M.T) + beta * (M - M.T)
        return parts - gamma * jnp.eye(hidden_size, dtype=M.dtype)

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        A, W_h = shifted(params["M_A"]), shifted(params["M_W"])
        h = h + eps * (A @ h + jnp.tanh(W_h @ h + params["W_x"] @ x + params["b"]))
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size))
