"""Linear attention with decay: RetNet, gated linear attention (GLA) and HGRN2."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradflow.cell import Cell, Params
from gradflow.cells.heads import (
    Matrices,
    MatrixCarry,
    head_size,
    init_projections,
    outer,
    project,
    read_out,
    zero_matrices,
)
from gradflow.checks import check_flag, check_number
from gradflow.initializers import BiasSpec, InitSpec


def retnet(
    input_size: int,
    hidden_size: int,
    *,
    num_heads: int = 1,
    rotation: bool = True,
    input_init: InitSpec = "lecun",
) -> Cell:
    """The retention of a RetNet: linear attention whose memory decays at a fixed rate.

    For the head number i = 0, 1, ..., with d = hidden_size / num_heads::

        q_t = W_x^q x_t    k_t = W_x^k x_t / √d    v_t = W_x^v x_t
        S_t = γ_i S_{t-1} R + v_t k_tᵀ             γ_i = 1 - 2^(-5-i)
        h_t = S_t q_t

    R rotates the entries j and j + m of each row of S by the angle -θ_j = -10000^(-j/m), with
    m = ⌊d/2⌋; the last entry of an odd number is not rotated. In the paper q_t and k_t are rotated
    by t θ instead, which gives the same h: only the difference of two positions matters. The
    step matrix of each row of S is γ_i R, so that every singular value of ∂S_t/∂S_k is
    γ_i^(t-k) for any input.

    The carry is (S, h), with S (heads, d, d). h concatenates the heads, and no step reads it. The
    layer's group norm, its gate and its output matrix are not part of the cell. The parameters are
    W_x^q, W_x^k and W_x^v (hidden, input). The authors' code initialises them from Glorot's
    distribution with gain 2^(-5/2), has values twice as long as keys, and spaces the exponents of
    θ evenly from 0 to 1. No library among Flax, PyTorch and Keras has this cell.

    Args:
      num_heads: Number of heads.
      rotation: Whether there is a rotation; without it R is the identity.
      input_init: Initialiser of each W_x, separately.

    Raises:
      TypeError: If rotation is not True or False.
      ValueError: If num_heads does not divide hidden_size.

    Source: Sun et al. 2023, arXiv:2307.08621, eq. 5, 6 and 8.
    """
    size = head_size(input_size, hidden_size, num_heads)
    check_flag("rotation", rotation)
    decay = 1 - 2.0 ** (-5 - np.arange(num_heads)[:, None, None])

    def step(params: Params, carry: MatrixCarry, x: Array) -> tuple[MatrixCarry, Array]:
        q, k, v = (project(params[p], x, num_heads) for p in "qkv")
        S = _rotated(carry.S) if rotation else carry.S
        S = jnp.asarray(decay, S.dtype) * S + outer(v, k / math.sqrt(size))
        return read_out(S, q)

    return Cell(
        init=init_projections(dict.fromkeys("qkv", hidden_size), input_size, input_init=input_init),
        step=step,
        initial_carry=lambda: zero_matrices(num_heads, size),
        hidden=lambda carry: carry.h,
    )


def _rotated(S: Matrices) -> Matrices:
    """Rotates the entries j and m + j of each row by -θ_j = -10000^(-j/m)."""
    m = S.shape[-1] // 2
    theta = 10000.0 ** (-np.arange(m) / max(m, 1))
    c, s = jnp.asarray(np.cos(theta), S.dtype), jnp.asarray(np.sin(theta), S.dtype)
    first, second, rest = S[..., :m], S[..., m : 2 * m], S[..., 2 * m :]
    return jnp.concatenate([c * first + s * second, c * second - s * first, rest], axis=-1)


def gla(
    input_size: int,
    hidden_size: int,
    *,
    num_heads: int = 1,
    tau: float = 16.0,
    input_init: InitSpec = "lecun",
) -> Cell:
    """A gated linear attention (GLA): a decay for each entry of the key, computed from the input.

    For each head, with d = hidden_size / num_heads::

        q_t = W_x^q x_t / √d    k_t = W_x^k x_t    v_t = W_x^v x_t
        α_t = σ(W_x^α x_t + b^α)^(1/tau)
        S_t = S_{t-1} diag(α_t) + v_t k_tᵀ
        h_t = S_t q_t

    The step matrix of each row of S is diag(α_t), with entries in (0, 1).

    The carry is (S, h), with S (heads, d, d). h concatenates the heads, and no step reads it. The
    layer's norm, its output gate and its output matrix are not part of the cell. The parameters
    are W_x^q, W_x^k, W_x^v and W_x^α (hidden, input), and b^α (hidden,), initialised at zero. In
    the paper W_x^α is a product of two matrices of rank 16, and keys are half as long as values.
    No library among Flax, PyTorch and Keras has this cell.

    Args:
      num_heads: Number of heads.
      tau: The temperature of the gate, dimensionless. It moves the gate near 1.
      input_init: Initialiser of each W_x, separately.

    Raises:
      ValueError: If num_heads does not divide hidden_size, or tau is not positive.

    Source: Yang et al. 2024, arXiv:2312.06635, section 4.
    """
    size = head_size(input_size, hidden_size, num_heads)
    check_number("tau", tau, "positive", example=16.0)

    def gates(params: Params, carry: MatrixCarry, x: Array) -> dict[str, Array]:
        del carry  # the gate depends on the input only
        # The logarithm keeps its digits where α is near 1, and is finite where σ underflows to 0.
        a = params["alpha"]["W_x"] @ x + params["alpha"]["b"]
        return {"alpha": jnp.exp(jax.nn.log_sigmoid(a) / tau)}

    def step(params: Params, carry: MatrixCarry, x: Array) -> tuple[MatrixCarry, Array]:
        q, k, v = (project(params[p], x, num_heads) for p in "qkv")
        alpha = gates(params, carry, x)["alpha"].reshape(num_heads, 1, size)
        return read_out(carry.S * alpha + outer(v, k), q / math.sqrt(size))

    rows = dict.fromkeys(["q", "k", "v", "alpha"], hidden_size)
    return Cell(
        init=init_projections(rows, input_size, input_init=input_init, biases={"alpha": 0.0}),
        step=step,
        initial_carry=lambda: zero_matrices(num_heads, size),
        hidden=lambda carry: carry.h,
        gates=gates,
    )


def hgrn2(
    input_size: int,
    hidden_size: int,
    *,
    num_heads: int = 1,
    lower_bound: float = 0.0,
    forget_bias: BiasSpec = 0.0,
    input_init: InitSpec = "lecun",
) -> Cell:
    """An HGRN2: a gated linear recurrence whose state is expanded by an outer product.

    For each head, with SiLU(a) = a σ(a)::

        f_t = lower_bound + (1 - lower_bound) σ(W_x^f x_t + b^f)
        i_t = W_x^i x_t    o_t = SiLU(W_x^o x_t)
        S_t = S_{t-1} diag(f_t) + i_t (1 - f_t)ᵀ
        h_t = S_t o_t

    The step matrix of each row of S is diag(f_t), with entries between lower_bound and 1. The input
    is weighted by 1 - f, so that the entries of S are averages of past values of i.

    The carry is (S, h), with S (heads, d, d) and d = hidden_size / num_heads, the paper's expansion
    ratio. h concatenates the heads, and no step reads it. The layer's norm and its output matrix
    are not part of the cell. The parameters are W_x^f, W_x^i and W_x^o (hidden, input), and b^f
    (hidden,). The paper learns a lower bound for each layer and entry, which increases from layer
    to layer; that of the first layer is 0. The authors' code has no b^f. No library among Flax,
    PyTorch and Keras has this cell.

    Args:
      num_heads: Number of heads.
      lower_bound: The smallest value of f, dimensionless.
      forget_bias: Initial value of b^f.
      input_init: Initialiser of each W_x, separately.

    Raises:
      ValueError: If num_heads does not divide hidden_size, or the bound is not in [0, 1).

    Source: Qin et al. 2024, arXiv:2404.07904.
    """
    size = head_size(input_size, hidden_size, num_heads)
    check_number("lower_bound", lower_bound, "at least 0 and below 1", example=0.5)

    def gates(params: Params, carry: MatrixCarry, x: Array) -> dict[str, Array]:
        del carry  # the gate depends on the input only
        a = params["f"]["W_x"] @ x + params["f"]["b"]
        return {"f": lower_bound + (1 - lower_bound) * jax.nn.sigmoid(a)}

    def step(params: Params, carry: MatrixCarry, x: Array) -> tuple[MatrixCarry, Array]:
        i, o = (project(params[p], x, num_heads) for p in "io")
        a = project(params["f"], x, num_heads)
        f = gates(params, carry, x)["f"].reshape(num_heads, 1, size)
        # 1 - f by its own formula: the difference would lose its digits where f is near 1.
        k = (1 - lower_bound) * jax.nn.sigmoid(-a)
        return read_out(carry.S * f + outer(i, k), jax.nn.silu(o))

    rows = dict.fromkeys("fio", hidden_size)
    return Cell(
        init=init_projections(rows, input_size, input_init=input_init, biases={"f": forget_bias}),
        step=step,
        initial_carry=lambda: zero_matrices(num_heads, size),
        hidden=lambda carry: carry.h,
        gates=gates,
    )
