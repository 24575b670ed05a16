"""RWKV-7: a generalised delta rule with a decay and a learning rate for each entry of the key."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Key, Params
from gradflow.cells.heads import (
    MatrixCarry,
    head_size,
    init_projections,
    multiply,
    outer,
    project,
    read_out,
    unit,
    zero_matrices,
)
from gradflow.initializers import InitSpec


def rwkv7(
    input_size: int,
    hidden_size: int,
    *,
    num_heads: int = 1,
    input_init: InitSpec = "lecun",
) -> Cell:
    """The recurrence of an RWKV-7 (Goose): a decay and a learning rate for each entry of the key.

    For each head, with unit(a) = a/‖a‖ and ∘ elementwise::

        r_t = W_x^r x_t    k_t = W_x^k x_t    v_t = W_x^v x_t
        w_t = exp(-e^(-1/2) σ(W_x^w x_t + b^w))    a_t = σ(W_x^a x_t + b^a)
        κ_t = unit(xi ∘ k_t)    k'_t = (1 + (a_t - 1) ∘ alpha) ∘ k_t
        S_t = S_{t-1} (diag(w_t) - κ_t (a_t ∘ κ_t)ᵀ) + v_t k'_tᵀ
        h_t = S_t r_t

    The step matrix of each row of S is similar to a symmetric one, so that its eigenvalues are
    real. They lie between e^(-e^(-1/2)) - 1 = -0.455 and 1. It is not symmetric itself, and its
    norm may be above 1. (The state is the paper's wkv, κ its removal key, a its in-context
    learning rate and k' its replacement key.)

    The carry is (S, h), with S (heads, d, d) and d = hidden_size / num_heads. h concatenates the
    heads, and no step reads it. The token shift, which mixes x_{t-1} into each x_t, is a
    convolution of the inputs before the recurrence. It is not part of the cell, and neither are
    what acts on the read-out (bonus, group norm, gate, output matrix) and the mixing of v with that
    of the first layer.

    The parameters are W_x^r, W_x^k, W_x^v, W_x^w and W_x^a (hidden, input), and b^w, b^a, xi and
    alpha (hidden,). As in the authors' code for a first layer, the entries n = 0, 1, ... of b^w are
    -6.5 + 5 (n/(hidden - 1))^0.85, b^a = 0, xi = 0.85 and alpha = 1. In the paper W_x^w and W_x^a
    are products of two narrow matrices, the former with a tanh between them; here they are
    matrices. No library among Flax, PyTorch and Keras has this cell.

    Args:
      num_heads: Number of heads.
      input_init: Initialiser of each W_x, separately.

    Raises:
      ValueError: If num_heads does not divide hidden_size.

    Source: Peng et al. 2025, arXiv:2503.14456, section 4.
    """
    size = head_size(input_size, hidden_size, num_heads)
    init_x = init_projections(
        dict.fromkeys("rkvwa", hidden_size),
        input_size,
        input_init=input_init,
        biases={"w": 0.0, "a": 0.0},
    )

    def init(key: Key) -> Params:
        params = init_x(key)
        b = -6.5 + 5 * (jnp.arange(hidden_size) / max(hidden_size - 1, 1)) ** 0.85
        params["w"]["b"] = b.astype(params["w"]["b"].dtype)
        return params | {"xi": jnp.full(hidden_size, 0.85), "alpha": jnp.ones(hidden_size)}

    def step(params: Params, carry: MatrixCarry, x: Array) -> tuple[MatrixCarry, Array]:
        r, k, v, w, a = (project(params[p], x, num_heads) for p in "rkvwa")
        w = jnp.exp(-math.exp(-0.5) * jax.nn.sigmoid(w))
        a = jax.nn.sigmoid(a)
        xi, alpha = (params[name].reshape(num_heads, size) for name in ("xi", "alpha"))
        kappa = unit(xi * k)
        S = carry.S * w[:, None, :] - outer(multiply(carry.S, kappa), a * kappa)
        return read_out(S + outer(v, (1 + (a - 1) * alpha) * k), r)

    return Cell(
        init=init,
        step=step,
        initial_carry=lambda: zero_matrices(num_heads, size),
        hidden=lambda carry: carry.h,
    )
