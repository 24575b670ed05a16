"""Selective state-space models, whose step depends on the input: Mamba (S6) and Mamba-2 (SSD)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params, split_key
from gradflow.cells.parts import init_matrices
from gradflow.cells.time_steps import check_time_steps, init_dt_bias
from gradflow.checks import check_flag, check_integer, check_sizes
from gradflow.initializers import InitSpec, resolve_initializer


class SelectiveCarry(NamedTuple):
    """The states S and the read-out h, which the next step does not read."""

    S: Float[Array, "*state"]
    h: Float[Array, " hidden"]


def mamba(
    input_size: int,
    hidden_size: int,
    *,
    state_size: int = 16,
    negative_eigenvalues: bool = False,
    dt_min: float = 0.001,
    dt_max: float = 0.1,
    input_init: InitSpec = "lecun",
) -> Cell:
    """The selective state-space model S6 of Mamba: several real decays for each channel.

    With A = -exp(A_log), for each channel d and state n::

        u_t = W_x x_t    B_t = W_B x_t    C_t = W_C x_t    Δ_t = softplus(W_dt x_t + b_dt)
        S_t[d, n] = exp(Δ_t[d] A[d, n]) S_{t-1}[d, n] + Δ_t[d] B_t[n] u_t[d]
        h_t[d] = Σ_n C_t[n] S_t[d, n] + D[d] u_t[d]

    The step Jacobian of S is diagonal, for a given input independent of S, and its entries
    exp(Δ A) lie in (0, 1). Negative eigenvalues, 2 exp(Δ A) - 1 in (-1, 1), let the cell compute
    the parity of its inputs.

    Parameters are W_x and W_dt (hidden, input), W_B and W_C (state, input), b_dt and D (hidden,),
    and A_log (hidden, state). At initialisation A[d, n] = -(n + 1) for n = 0, 1, ... (S4D-Real), D
    is 1, and b_dt is the inverse softplus of a log-uniform Δ. The authors' code factors W_dt into
    two matrices of rank model size/16. Of Mamba's block, the causal convolution and the SiLU
    before this recurrence and the output gate after it are not part of the cell, so that Δ, B and C
    are computed from x_t. No library among Flax, PyTorch and Keras has this cell.

    Args:
      state_size: Number of states per channel.
      negative_eigenvalues: Whether the decays are 2 exp(Δ A) - 1.
      dt_min: The smallest initial softplus(b_dt).
      dt_max: The largest initial softplus(b_dt).
      input_init: Initialiser of W_x, W_B, W_C and W_dt, separately.

    Raises:
      TypeError: If an option has another type.
      ValueError: Unless state_size ≥ 1 and 0 < dt_min ≤ dt_max.

    Source: Gu & Dao 2023, arXiv:2312.00752, algorithm 2; Grazzi et al. 2025, arXiv:2411.12537
    (negative eigenvalues).
    """
    check_sizes(input_size, hidden_size)
    check_integer("state_size", state_size, 1)
    check_flag("negative_eigenvalues", negative_eigenvalues)
    check_time_steps(dt_min, dt_max)
    init_input = resolve_initializer(input_init)

    def init(key: Key) -> Params:
        key_w, key_dt = split_key(key)
        rows = {"W_x": hidden_size, "W_B": state_size, "W_C": state_size, "W_dt": hidden_size}
        return {
            **init_matrices(
                key_w, {name: (init_input, (n, input_size)) for name, n in rows.items()}
            ),
            "b_dt": init_dt_bias(key_dt, hidden_size, dt_min, dt_max),
            "A_log": jnp.tile(jnp.log(jnp.arange(1.0, state_size + 1)), (hidden_size, 1)),
            "D": jnp.ones(hidden_size),
        }

    def step(params: Params, carry: SelectiveCarry, x: Array) -> tuple[SelectiveCarry, Array]:
        u, B, C = (params[name] @ x for name in ("W_x", "W_B", "W_C"))
        dt = jax.nn.softplus(params["W_dt"] @ x + params["b_dt"])
        decay = jnp.exp(-dt[:, None] * jnp.exp(params["A_log"]))
        if negative_eigenvalues:
            decay = 2 * decay - 1
        S = decay * carry.S + jnp.outer(dt * u, B)
        h = S @ C + params["D"] * u
        return SelectiveCarry(S, h), h

    def initial_carry() -> SelectiveCarry:
        return SelectiveCarry(jnp.zeros((hidden_size, state_size)), jnp.zeros(hidden_size))

    return Cell(init, step, initial_carry, hidden=lambda carry: carry.h)


def mamba2(
    input_size: int,
    hidden_size: int,
    *,
    num_heads: int = 1,
    state_size: int = 16,
    dt_min: float = 0.001,
    dt_max: float = 0.1,
    input_init: InitSpec = "lecun",
) -> Cell:
    """The state-space duality (SSD) recurrence of Mamba-2: a matrix state with one decay per head.

    With u_t = W_x x_t split into heads of P = hidden/num_heads channels, for each head::

        B_t = W_B x_t    C_t = W_C x_t    Δ_t = softplus(W_dt x_t + b_dt)    A = -exp(A_log)
        S_t = exp(Δ_t A) S_{t-1} + Δ_t u_t B_tᵀ
        h_t = S_t C_t + D u_t

    Δ_t, A and D are numbers, S_t is a matrix (P, state), and all heads share B_t and C_t. The step
    Jacobian of S is exp(Δ_t A) I for each head, with exp(Δ_t A) in (0, 1) and, for a given input,
    independent of S.

    Parameters are W_x (hidden, input), W_B and W_C (state, input), W_dt (heads, input), and b_dt,
    A_log and D (heads,). At initialisation -A ~ U(1, 16), D is 1, and b_dt is the inverse softplus
    of a log-uniform Δ. Of Mamba-2's block, the causal convolution and the SiLU before this
    recurrence and the output gate and the norm after it are not part of the cell. No library among
    Flax, PyTorch and Keras has this cell.

    Args:
      num_heads: Number of heads, which divides hidden_size. The authors' heads have P = 64 or 128.
      state_size: Number of columns of S. The authors' models have 64 to 256.
      dt_min: The smallest initial softplus(b_dt).
      dt_max: The largest initial softplus(b_dt).
      input_init: Initialiser of W_x, W_B, W_C and W_dt, separately.

    Raises:
      ValueError: Unless num_heads divides hidden_size, state_size ≥ 1 and 0 < dt_min ≤ dt_max.

    Source: Dao & Gu 2024, arXiv:2405.21060.
    """
    check_sizes(input_size, hidden_size)
    check_integer("num_heads", num_heads, 1)
    check_integer("state_size", state_size, 1)
    check_time_steps(dt_min, dt_max)
    if hidden_size % num_heads:
        raise ValueError(
            f"Expected num_heads to divide hidden_size = {hidden_size}, got {num_heads}. Set "
            "num_heads to 1 or to another divisor."
        )
    init_input = resolve_initializer(input_init)

    def init(key: Key) -> Params:
        key_w, key_dt, key_a = split_key(key, 3)
        rows = {"W_x": hidden_size, "W_B": state_size, "W_C": state_size, "W_dt": num_heads}
        return {
            **init_matrices(
                key_w, {name: (init_input, (n, input_size)) for name, n in rows.items()}
            ),
            "b_dt": init_dt_bias(key_dt, num_heads, dt_min, dt_max),
            "A_log": jnp.log(jax.random.uniform(key_a, (num_heads,), minval=1, maxval=16)),
            "D": jnp.ones(num_heads),
        }

    def step(params: Params, carry: SelectiveCarry, x: Array) -> tuple[SelectiveCarry, Array]:
        u, B, C = (params[name] @ x for name in ("W_x", "W_B", "W_C"))
        u = u.reshape(num_heads, hidden_size // num_heads)
        dt = jax.nn.softplus(params["W_dt"] @ x + params["b_dt"])
        decay = jnp.exp(-dt * jnp.exp(params["A_log"]))
        S = decay[:, None, None] * carry.S + (dt[:, None] * u)[:, :, None] * B
        h = (S @ C + params["D"][:, None] * u).ravel()
        return SelectiveCarry(S, h), h

    def initial_carry() -> SelectiveCarry:
        shape = num_heads, hidden_size // num_heads, state_size
        return SelectiveCarry(jnp.zeros(shape), jnp.zeros(hidden_size))

    return Cell(init, step, initial_carry, hidden=lambda carry: carry.h)
