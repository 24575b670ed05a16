"""The delta rule: a matrix state that replaces what it has stored under a key (DeltaNet)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params, split_key
from gradflow.cells.heads import (
    Matrices,
    MatrixCarry,
    Vectors,
    head_size,
    init_projections,
    multiply,
    outer,
    project,
    read_out,
    unit,
    zero_matrices,
)
from gradflow.checks import check_flag
from gradflow.initializers import InitSpec


def deltanet(
    input_size: int,
    hidden_size: int,
    *,
    num_heads: int = 1,
    negative_eigenvalues: bool = False,
    input_init: InitSpec = "lecun",
) -> Cell:
    """A DeltaNet: linear attention that overwrites the value that is stored under a key.

    For each head, with SiLU(a) = a σ(a) and unit(a) = a/‖a‖::

        q_t = unit(SiLU(W_x^q x_t))    k_t = unit(SiLU(W_x^k x_t))    v_t = SiLU(W_x^v x_t)
        β_t = σ(W_x^β x_t)
        S_t = S_{t-1} (I - β_t k_t k_tᵀ) + β_t v_t k_tᵀ
        h_t = S_t q_t

    This is a step of gradient descent on ‖S k_t - v_t‖²/2 with the learning rate β_t. The step
    matrix of each row of S is I - β_t k_t k_tᵀ, with the eigenvalue 1 - β_t along k_t and 1 on the
    other directions. With β = 1 it is a projection, and with β = 2, the limit of
    negative_eigenvalues, an orthogonal Householder reflection.

    The carry is (S, h), with S (heads, d, d) and d = hidden_size / num_heads. h concatenates the
    heads, and no step reads it. The layer's short convolutions, norm and output matrix are not part
    of the cell. The parameters are W_x^q, W_x^k, W_x^v (hidden, input) and W_x^β (heads, input);
    there are no biases. unit(0) is 0. No library among Flax, PyTorch and Keras has this cell; that
    of flash-linear-attention normalises by √(‖a‖² + 1e-6).

    Args:
      num_heads: Number of heads.
      negative_eigenvalues: Whether β_t = 2 σ(W_x^β x_t), so that the eigenvalue along k_t is in
        (-1, 1) and not in (0, 1). Source: Grazzi et al. 2025, arXiv:2411.12537.
      input_init: Initialiser of each W_x, separately.

    Raises:
      TypeError: If negative_eigenvalues is not True or False.
      ValueError: If num_heads does not divide hidden_size.

    Source: Schlag, Irie, Schmidhuber 2021, arXiv:2102.11174; SiLU and the norms of Yang et al.
    2024, arXiv:2406.06484.
    """
    size = head_size(input_size, hidden_size, num_heads)
    terms = _delta_terms(num_heads, negative_eigenvalues)

    def step(params: Params, carry: MatrixCarry, x: Array) -> tuple[MatrixCarry, Array]:
        q, k, v, beta = terms(params, x)
        return read_out(_overwritten(carry.S, k, v, beta), q)

    return Cell(
        init=_init_delta(input_size, hidden_size, num_heads, input_init),
        step=step,
        initial_carry=lambda: zero_matrices(num_heads, size),
        hidden=lambda carry: carry.h,
    )


def gated_deltanet(
    input_size: int,
    hidden_size: int,
    *,
    num_heads: int = 1,
    negative_eigenvalues: bool = False,
    input_init: InitSpec = "lecun",
) -> Cell:
    """A gated DeltaNet: the delta rule on a state that decays at a rate computed from the input.

    With q_t, k_t, v_t and β_t of `deltanet`, for each head::

        α_t = exp(-exp(log_A) softplus(W_x^α x_t + b^α))
        S_t = α_t S_{t-1} (I - β_t k_t k_tᵀ) + β_t v_t k_tᵀ
        h_t = S_t q_t

    The step matrix of each row of S is α_t (I - β_t k_t k_tᵀ), with the eigenvalues α_t and
    α_t (1 - β_t). With α_t = 1 the cell is a DeltaNet, and with β_t = 0 the state only decays.

    The carry, the parts left out and the parameters are those of `deltanet`, and W_x^α
    (heads, input), b^α and log_A (heads,). As in Mamba2 and in the authors' code, exp(log_A) is
    initialised from U(0, 16) and softplus(b^α) log-uniformly between 0.001 and 0.1; there the
    values are twice as long as the keys. No library among Flax, PyTorch and Keras has this cell.

    Args:
      num_heads: Number of heads.
      negative_eigenvalues: Whether β_t = 2 σ(W_x^β x_t), as in `deltanet`.
      input_init: Initialiser of each W_x, separately.

    Raises:
      TypeError: If negative_eigenvalues is not True or False.
      ValueError: If num_heads does not divide hidden_size.

    Source: Yang, Kautz, Hatamizadeh 2025, arXiv:2412.06464, eq. 10.
    """
    size = head_size(input_size, hidden_size, num_heads)
    terms = _delta_terms(num_heads, negative_eigenvalues)
    init_delta = _init_delta(input_size, hidden_size, num_heads, input_init)
    init_alpha = init_projections({"alpha": num_heads}, input_size, input_init=input_init)

    def init(key: Key) -> Params:
        key_delta, key_alpha, key_rates = split_key(key, 3)
        alpha = init_alpha(key_alpha)["alpha"] | _init_rates(key_rates, num_heads)
        return init_delta(key_delta) | {"alpha": alpha}

    def step(params: Params, carry: MatrixCarry, x: Array) -> tuple[MatrixCarry, Array]:
        q, k, v, beta = terms(params, x)
        a = project(params["alpha"], x, num_heads)
        alpha = jnp.exp(-jnp.exp(params["alpha"]["log_A"])[:, None] * jax.nn.softplus(a))
        return read_out(_overwritten(alpha[..., None] * carry.S, k, v, beta), q)

    return Cell(
        init=init,
        step=step,
        initial_carry=lambda: zero_matrices(num_heads, size),
        hidden=lambda carry: carry.h,
    )


def _init_delta(
    input_size: int, hidden_size: int, num_heads: int, input_init: InitSpec
) -> Callable[[Key], Params]:
    rows = {**dict.fromkeys("qkv", hidden_size), "beta": num_heads}
    return init_projections(rows, input_size, input_init=input_init)


def _init_rates(key: Key, num_heads: int) -> dict[str, Float[Array, " heads"]]:
    key_A, key_dt = jax.random.split(key)
    tiny = jnp.finfo(jnp.zeros(()).dtype).tiny  # not 0, because its logarithm is taken
    A = jax.random.uniform(key_A, (num_heads,), minval=tiny, maxval=16.0)
    dt = jnp.exp(
        jax.random.uniform(key_dt, (num_heads,), minval=jnp.log(1e-3), maxval=jnp.log(0.1))
    )
    # The inverse of softplus: log(exp(dt) - 1) = dt + log(1 - exp(-dt)).
    return {"b": dt + jnp.log(-jnp.expm1(-dt)), "log_A": jnp.log(A)}


def _delta_terms(
    num_heads: int, negative_eigenvalues: bool
) -> Callable[[Params, Array], tuple[Vectors, Vectors, Vectors, Float[Array, "heads 1"]]]:
    """Makes the function (params, x) -> q_t, k_t, v_t, β_t."""
    check_flag("negative_eigenvalues", negative_eigenvalues)
    largest = 2 if negative_eigenvalues else 1

    def terms(params: Params, x: Array):
        q, k, v = (jax.nn.silu(project(params[p], x, num_heads)) for p in "qkv")
        beta = largest * jax.nn.sigmoid(project(params["beta"], x, num_heads))
        return unit(q), unit(k), v, beta

    return terms


def _overwritten(S: Matrices, k: Vectors, v: Vectors, beta: Float[Array, "heads 1"]) -> Matrices:
    """Computes S (I - β k kᵀ) + β v kᵀ without forming the matrix I - β k kᵀ."""
    return S + outer(beta * (v - multiply(S, k)), k)
