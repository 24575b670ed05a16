"""The FastRNN and the FastGRNN: a vanilla RNN with a weighted residual connection, and its gate."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Key, Params
from gradflow.cells.activations import resolve_activation
from gradflow.cells.parts import affine, init_gates
from gradflow.checks import check_number
from gradflow.initializers import BiasSpec, InitSpec, resolve_bias


def fastrnn(
    input_size: int,
    hidden_size: int,
    *,
    alpha: float = -3.0,
    beta: float = 3.0,
    activation: str = "tanh",
    recurrent_init: InitSpec = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A FastRNN: a vanilla RNN whose state is a trained weighted sum with the old state.

    ::

        n_t = tanh(W_x x_t + W_h h_{t-1} + b)
        h_t = σ(alpha) n_t + σ(beta) h_{t-1}

    so that the step Jacobian is J_t = σ(beta) I + σ(alpha) diag(1 - n_t²) W_h, whose singular
    values lie between σ(beta) - σ(alpha) ‖W_h‖ and σ(beta) + σ(alpha) ‖W_h‖. Parameters are W_x,
    W_h, b, initialised at zero, and the scalars alpha and beta. The paper's α and β are σ(alpha)
    and σ(beta), as in the authors' code, which also has low-rank matrices. No library among Flax,
    PyTorch and Keras has this cell.

    Args:
      alpha: Initial value of alpha, dimensionless; -3 in the authors' code, where σ(-3) = 0.047.
      beta: Initial value of beta, dimensionless; 3 in the authors' code, where σ(3) = 0.953.
      activation: The function in place of tanh.
      recurrent_init: Initialiser of W_h: orthogonal; the authors' code uses N(0, 0.1²).
      input_init: Initialiser of W_x: LeCun's; the authors' code uses N(0, 0.1²).

    Raises:
      TypeError: If alpha or beta is not a number.
      ValueError: If one of them is not finite, or for an unknown activation.

    Source: Kusupati et al. 2018, arXiv:1901.02358.
    """
    scalars = _scalars(alpha=alpha, beta=beta)
    phi = resolve_activation(activation)
    init_n = init_gates(
        "n", input_size, hidden_size, recurrent_init=recurrent_init, input_init=input_init
    )

    def init(key: Key) -> Params:
        return init_n(key)["n"] | {name: jnp.full((), value) for name, value in scalars.items()}

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        alpha, beta = (jax.nn.sigmoid(params[name]) for name in ("alpha", "beta"))
        h = alpha * phi(affine(params, h, x)) + beta * h
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size))


def fastgrnn(
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: BiasSpec = 1.0,
    zeta: float = 1.0,
    nu: float = -4.0,
    recurrent_init: InitSpec = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A FastGRNN: a FastRNN with a gate that shares the matrices of the candidate.

    With a_t = W_x x_t + W_h h_{t-1}::

        z_t = σ(a_t + b_z)    n_t = tanh(a_t + b_h)
        h_t = (σ(zeta) (1 - z_t) + σ(nu)) ∘ n_t + z_t ∘ h_{t-1}

    Where z is 1 the old state is kept, and σ(nu) n_t is added to it. Parameters are W_x, W_h, the
    biases b_z and b_h (hidden,), and the scalars zeta and nu. The paper's ζ and ν are σ(zeta) and
    σ(nu), as in the authors' code, which also has low-rank and sparse matrices. No library among
    Flax, PyTorch and Keras has this cell.

    Args:
      forget_bias: Initial value of b_z; 1 in the authors' code. b_h is initialised at zero; the
        authors' code initialises it at 1.
      zeta: Initial value of zeta, dimensionless; 1 in the authors' code, where σ(1) = 0.731.
      nu: Initial value of nu, dimensionless; -4 in the authors' code, where σ(-4) = 0.018.
      recurrent_init: Initialiser of W_h: orthogonal; the authors' code uses N(0, 0.1²).
      input_init: Initialiser of W_x: LeCun's; the authors' code uses N(0, 0.1²).

    Raises:
      TypeError: If zeta or nu is not a number.
      ValueError: If one of them is not finite.

    Source: Kusupati et al. 2018, arXiv:1901.02358.
    """
    scalars = _scalars(zeta=zeta, nu=nu)
    init_b = resolve_bias(forget_bias)
    init_n = init_gates(
        "n", input_size, hidden_size, recurrent_init=recurrent_init, input_init=input_init
    )

    def init(key: Key) -> Params:
        params = init_n(key)["n"]
        b_h = params.pop("b")
        # The matrices use the keys 0 and 1 of a split; fold_in(key, 2) is independent of both.
        b_z = init_b(jax.random.fold_in(key, 2), b_h.shape, b_h.dtype)
        numbers = {name: jnp.full((), value) for name, value in scalars.items()}
        return params | {"b_z": b_z, "b_h": b_h} | numbers

    def gates(params: Params, h: Array, x: Array) -> dict[str, Array]:
        a = params["W_x"] @ x + params["W_h"] @ h
        return {"z": jax.nn.sigmoid(a + params["b_z"]), "n": jnp.tanh(a + params["b_h"])}

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        z, n = gates(params, h, x).values()
        zeta, nu = (jax.nn.sigmoid(params[name]) for name in ("zeta", "nu"))
        h = (zeta * (1 - z) + nu) * n + z * h
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size), gates=gates)


def _scalars(**values: float) -> dict[str, float]:
    for name, value in values.items():
        check_number(name, value, "finite", example=1.0)
    return {name: float(value) for name, value in values.items()}
