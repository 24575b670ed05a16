"""Test-time training: a state that is the weight matrix of a model, trained by the recurrence."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Key, Params, split_key
from gradflow.cells.heads import (
    Matrices,
    MatrixCarry,
    Vectors,
    head_size,
    init_projections,
    multiply,
    project,
    zero_matrices,
)
from gradflow.checks import check_flag, check_number
from gradflow.initializers import InitSpec


def ttt_linear(
    input_size: int,
    hidden_size: int,
    *,
    num_heads: int = 1,
    layer_norm: bool = True,
    learning_rate: float = 1.0,
    input_init: InitSpec = "lecun",
) -> Cell:
    """A TTT-Linear layer: each step is a step of gradient descent on the weights of a linear model.

    For each head, with the layer norm LN(a) = gain ∘ (a - mean a)/√(var a + 1e-6) + bias and
    d = hidden_size / num_heads::

        q_t = W_x^q x_t    k_t = W_x^k x_t    v_t = W_x^v x_t
        η_t = learning_rate σ(W_x^η x_t + b^η) / d
        f(k; W) = k + LN(W k)    ℓ(W) = ‖f(k_t; W) - v_t‖²/2
        W_t = W_{t-1} - η_t ∇ℓ(W_{t-1})
        h_t = f(q_t; W_t)

    The updates are made after each input, a mini-batch of 1; the paper's mini-batches have 16.
    Without the layer norm f(k; W) = W k, and the recurrence is the delta rule of `deltanet` with
    β = η and keys that are not normalised: the step matrix of each row of W is I - η_t k_t k_tᵀ,
    whose eigenvalue 1 - η_t ‖k_t‖² is below -1 for long keys, so that the state explodes. With the
    layer norm the step is not linear in the state.

    The carry is (S, h), with S_t = W_t - W_0 (heads, d, d), which is initially 0, because W_0 is a
    parameter. h concatenates the heads, and no step reads it. The rotary embedding of q and k,
    the norm of the output and the output matrix are not part of the cell. The parameters are
    W_x^q, W_x^k, W_x^v (hidden, input), W_x^η (heads, input), b^η (heads,), initialised at zero,
    W_0 (heads, d, d), initialised from N(0, 0.02²), and gain and bias (heads, d), initialised at 1
    and 0. The authors' code also has a bias in the inner model. No library among Flax, PyTorch and
    Keras has this cell.

    Args:
      num_heads: Number of heads.
      layer_norm: Whether f has the layer norm and the residual connection.
      learning_rate: The largest learning rate of the inner model, multiplied by d, dimensionless.
      input_init: Initialiser of each W_x, separately.

    Raises:
      TypeError: If layer_norm is not True or False.
      ValueError: If num_heads does not divide hidden_size, or learning_rate is not positive.

    Source: Sun et al. 2024, arXiv:2407.04620, sections 2.1, 2.7; 1/d of the authors' code.
    """
    size = head_size(input_size, hidden_size, num_heads)
    check_flag("layer_norm", layer_norm)
    check_number("learning_rate", learning_rate, "positive", example=1.0)
    init_x = init_projections(
        {**dict.fromkeys("qkv", hidden_size), "eta": num_heads},
        input_size,
        input_init=input_init,
        biases={"eta": 0.0},
    )

    def init(key: Key) -> Params:
        key_x, key_W = split_key(key)
        params = init_x(key_x) | {"W_0": 0.02 * jax.random.normal(key_W, (num_heads, size, size))}
        norm = {"gain": jnp.ones((num_heads, size)), "bias": jnp.zeros((num_heads, size))}
        return params | norm if layer_norm else params

    def model(params: Params, S: Matrices, k: Vectors) -> Vectors:
        a = multiply(params["W_0"] + S, k)
        if not layer_norm:
            return a
        return k + params["gain"] * jax.nn.standardize(a, epsilon=1e-6) + params["bias"]

    def step(params: Params, carry: MatrixCarry, x: Array) -> tuple[MatrixCarry, Array]:
        q, k, v = (project(params[p], x, num_heads) for p in "qkv")
        eta = learning_rate / size * jax.nn.sigmoid(project(params["eta"], x, num_heads))

        def loss(S: Matrices) -> Array:
            return jnp.sum((model(params, S, k) - v) ** 2) / 2

        S = carry.S - eta[..., None] * jax.grad(loss)(carry.S)
        h = model(params, S, q).ravel()
        return MatrixCarry(S, h), h

    return Cell(
        init=init,
        step=step,
        initial_carry=lambda: zero_matrices(num_heads, size),
        hidden=lambda carry: carry.h,
    )
