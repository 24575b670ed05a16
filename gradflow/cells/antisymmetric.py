"""The antisymmetric RNN: a forward Euler step of a recurrence with an imaginary spectrum."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params
from gradflow.cells.parts import init_gates
from gradflow.checks import check_number
from gradflow.initializers import InitSpec


def antisymmetric(
    input_size: int,
    hidden_size: int,
    *,
    eps: float = 0.1,
    gamma: float = 0.01,
    recurrent_init: InitSpec = "normal",
    input_init: InitSpec = "normal",
) -> Cell:
    """An AntisymmetricRNN: a forward Euler step of an ODE with an antisymmetric weight matrix.

    ::

        h_t = h_{t-1} + eps tanh((W_h - W_hᵀ - gamma I) h_{t-1} + W_x x_t + b)

    The parameter is the full matrix W_h, but only W_h - W_hᵀ enters the step. Its eigenvalues
    are imaginary, ±iω. Where tanh is linear, those of the step Jacobian are
    1 - eps gamma ± i eps ω: their modulus is at least 1 - eps gamma. Without gamma, forward
    Euler lets h grow slowly; gamma compensates for that growth.

    Parameters are W_x (hidden, input), W_h (hidden, hidden) and b (hidden,), which is initialised
    at zero. No library among Flax, PyTorch and Keras has this cell.

    Args:
      eps: Step size, dimensionless. The paper tunes it for each task.
      gamma: Diffusion, dimensionless. The paper tunes it as well.
      recurrent_init: Initialiser of W_h, by default N(0, 1/hidden). The paper tunes the standard
        deviation.
      input_init: Initialiser of W_x, by default N(0, 1/input).

    Raises:
      ValueError: If eps is not positive or gamma is negative.

    Source: Chang, Chen, Haber, Chi 2019, arXiv:1902.09689.
    """
    _check_step(eps, gamma)
    init_gate = init_gates(
        ["h"], input_size, hidden_size, recurrent_init=recurrent_init, input_init=input_init
    )

    def init(key: Key) -> Params:
        return init_gate(key)["h"]

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        field = _antisymmetric_product(params["W_h"], h, gamma)
        h = h + eps * jnp.tanh(field + params["W_x"] @ x + params["b"])
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size))


def gated_antisymmetric(
    input_size: int,
    hidden_size: int,
    *,
    eps: float = 0.1,
    gamma: float = 0.01,
    recurrent_init: InitSpec = "normal",
    input_init: InitSpec = "normal",
) -> Cell:
    """An AntisymmetricRNN with an input gate; gate and candidate use the same recurrent matrix.

    With a_t = (W_h - W_hᵀ - gamma I) h_{t-1}::

        z_t = σ(a_t + W_x^z x_t + b^z)
        h_t = h_{t-1} + eps z_t ∘ tanh(a_t + W_x^h x_t + b^h)

    Parameters are W_h (hidden, hidden) at the top level, because gate and candidate use it, and
    W_x (hidden, input) and b (hidden,) under ``h`` and ``z``. Biases are initialised at zero.

    Args:
      eps: Step size, dimensionless. The paper tunes it for each task.
      gamma: Diffusion, dimensionless. The paper tunes it as well.
      recurrent_init: Initialiser of W_h, by default N(0, 1/hidden). The paper tunes the standard
        deviation.
      input_init: Initialiser of each W_x, by default N(0, 1/input).

    Raises:
      ValueError: If eps is not positive or gamma is negative.

    Source: Chang, Chen, Haber, Chi 2019, arXiv:1902.09689.
    """
    _check_step(eps, gamma)
    init_gate = init_gates(
        "hz", input_size, hidden_size, recurrent_init=recurrent_init, input_init=input_init
    )

    def init(key: Key) -> Params:
        params = init_gate(key)
        del params["z"]["W_h"]
        return {"W_h": params["h"].pop("W_h"), **params}

    def preactivations(params: Params, h: Array, x: Array) -> dict[str, Array]:
        a = _antisymmetric_product(params["W_h"], h, gamma)
        return {q: a + params[q]["W_x"] @ x + params[q]["b"] for q in "hz"}

    def gates(params: Params, h: Array, x: Array) -> dict[str, Array]:
        return {"z": jax.nn.sigmoid(preactivations(params, h, x)["z"])}

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        a = preactivations(params, h, x)
        h = h + eps * jax.nn.sigmoid(a["z"]) * jnp.tanh(a["h"])
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size), gates=gates)


def _antisymmetric_product(
    W_h: Float[Array, "hidden hidden"], h: Float[Array, " hidden"], gamma: float
) -> Float[Array, " hidden"]:
    return (W_h - W_h.T) @ h - gamma * h


def _check_step(eps: float, gamma: float) -> None:
    check_number("eps", eps, "positive", example=0.1)
    check_number("gamma", gamma, "non-negative", example=0.01)
