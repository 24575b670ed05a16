"""The mLSTM of the xLSTM: a matrix state with exponential gates, a normaliser, a stabiliser."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, Params
from gradflow.cells.heads import (
    Matrices,
    Vectors,
    head_size,
    init_projections,
    multiply,
    outer,
    project,
)
from gradflow.cells.slstm import exponential_gates, log_forget_gate
from gradflow.initializers import BiasSpec, InitSpec


class MLSTMCarry(NamedTuple):
    """The matrix C of each head, its normaliser n, and h, which the next step does not read."""

    C: Matrices
    n: Vectors
    h: Float[Array, " hidden"]


class StabilisedMLSTMCarry(NamedTuple):
    """C and n divided by exp(m), the stabiliser m of each head, and h, which is not read."""

    C: Matrices
    n: Vectors
    m: Float[Array, "heads 1"]
    h: Float[Array, " hidden"]


def mlstm(
    input_size: int,
    hidden_size: int,
    *,
    num_heads: int = 1,
    stabilised: bool = True,
    forget_gate: str = "sigmoid",
    forget_bias: BiasSpec = 3.0,
    input_init: InitSpec = "lecun",
) -> Cell:
    """An mLSTM: a matrix state with exponential gates that depend on the input only.

    For each head, with d = hidden_size / num_heads::

        q_t = W_x^q x_t    k_t = W_x^k x_t / √d    v_t = W_x^v x_t
        i_t = exp(W_x^i x_t + b^i)    f_t = σ(W_x^f x_t + b^f)
        C_t = f_t C_{t-1} + i_t v_t k_tᵀ
        n_t = f_t n_{t-1} + i_t k_t
        h_t = C_t q_t / max(|n_tᵀ q_t|, 1)

    The stabilised form keeps C and n divided by exp(m), with m_t, f'_t and i'_t as in `slstm` and
    m_0 = 0. The bound 1 is then exp(-m_t), as in the authors' code. With this bound h is the same
    function of the inputs in both forms, and ∂h_T/∂x_k is the same. Jacobians of the whole carry
    differ, because C and n are divided by exp(m), and m is a state.

    The carry is (C, n, m, h), or (C, n, h) without the stabiliser, with C (heads, d, d), n
    (heads, d) and m (heads, 1). h concatenates the heads, and no step reads it. The paper's output
    gate acts on the read-out only and is not part of the cell; neither are the layer's
    convolution, norm and projections. The parameters are W_x^q, W_x^k, W_x^v (hidden, input),
    W_x^i, W_x^f (heads, input), and b^i and b^f (heads,). q, k and v have no biases, as in the
    authors' code, which initialises W_x^i and W_x^f at zero, b^i from N(0, 0.1²), and b^f of the
    heads from 3 to 6. No library among Flax, PyTorch and Keras has this cell.

    Args:
      num_heads: Number of heads.
      stabilised: Whether the stabilised form is computed.
      forget_gate: ``sigmoid``, or ``exp`` for an exponential forget gate.
      forget_bias: Initial value of b^f; b^i is initialised at zero.
      input_init: Initialiser of each W_x, separately.

    Raises:
      TypeError: If stabilised is not True or False.
      ValueError: If num_heads does not divide hidden_size, or forget_gate is unknown.

    Source: Beck et al. 2024, arXiv:2405.04517, eq. 19 to 27.
    """
    size = head_size(input_size, hidden_size, num_heads)
    log_forget = log_forget_gate(stabilised, forget_gate)
    rows = dict.fromkeys("qkv", hidden_size) | dict.fromkeys("if", num_heads)
    biases = {"i": 0.0, "f": forget_bias}

    def step(params: Params, carry: Any, x: Array) -> tuple[Any, Array]:
        q, k, v, i, f = (project(params[p], x, num_heads) for p in "qkvif")
        k = k / size**0.5
        i, f, m = exponential_gates(i, log_forget(f), carry)
        C = f[..., None] * carry.C + outer(i * v, k)
        n = f * carry.n + i * k
        h = _normalised(C, n, q, m.get("m", jnp.zeros_like(i))).ravel()
        return carry._replace(C=C, n=n, h=h, **m), h

    def initial_carry() -> MLSTMCarry | StabilisedMLSTMCarry:
        C, n = jnp.zeros((num_heads, size, size)), jnp.zeros((num_heads, size))
        h, m = jnp.zeros(hidden_size), jnp.zeros((num_heads, 1))
        return StabilisedMLSTMCarry(C, n, m, h) if stabilised else MLSTMCarry(C, n, h)

    return Cell(
        init=init_projections(rows, input_size, input_init=input_init, biases=biases),
        step=step,
        initial_carry=initial_carry,
        hidden=lambda carry: carry.h,
    )


def _normalised(C: Matrices, n: Vectors, q: Vectors, m: Float[Array, "heads 1"]) -> Vectors:
    """Computes C q / max(|nᵀq|, exp(-m)), of C and n that are divided by exp(m)."""
    # exp(-m) overflows where m is very negative, and a derivative through inf is NaN. Both terms
    # are therefore multiplied by exp(min(m, 0)), so that no exponent is positive. Where m is very
    # large exp(-m) is 0, and q = 0 would give 0/0. The bound is therefore at least the smallest
    # number whose inverse square, of the quotient's derivative, is finite.
    scale = jnp.exp(jnp.minimum(m, 0))
    bound = jnp.maximum(jnp.exp(-jnp.maximum(m, 0)), jnp.finfo(m.dtype).tiny ** 0.5)
    sums = abs(jnp.sum(n * q, axis=-1, keepdims=True))
    return multiply(C, q) * scale / jnp.maximum(sums * scale, bound)
