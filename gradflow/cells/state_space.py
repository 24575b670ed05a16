"""Time-invariant state-space models: S4D, one per channel, and S5, one for all channels."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from gradflow.cell import Cell, Key, Params, split_key
from gradflow.cells.parts import init_matrices
from gradflow.cells.time_steps import check_time_steps, init_log_dt
from gradflow.checks import check_integer, check_sizes
from gradflow.initializers import InitSpec, resolve_initializer
from gradflow.spec import check_name


class StateSpaceCarry(NamedTuple):
    """The real and the imaginary part of the complex states, and the read-out h.

    The next step does not read h.
    """

    re: Float[Array, "*state"]
    im: Float[Array, "*state"]
    h: Float[Array, " hidden"]


def s4d(
    input_size: int,
    hidden_size: int,
    *,
    state_size: int = 16,
    state_init: str = "lin",
    discretization: str = "zoh",
    dt_min: float = 0.001,
    dt_max: float = 0.1,
    input_init: InitSpec = "lecun",
) -> Cell:
    """An S4D: a diagonal linear state-space model with complex states for each channel.

    For each channel, with its input u_t, its time step Δ = exp(log_dt) and its complex states s::

        u_t = W_x x_t
        s_t = Ā ∘ s_{t-1} + B̄ u_t                   A = -exp(A_re) + i A_im
        h_t = 2 Re(C · s_t) + D u_t

    By a zero-order hold (``zoh``), Ā = exp(ΔA) and B̄ = (Ā - 1)/A; by the ``bilinear`` method,
    Ā = (1 + ΔA/2)/(1 - ΔA/2) and B̄ = Δ/(1 - ΔA/2). So ∂s_t/∂s_k = Ā^(t-k) for any input, and
    |Ā| < 1. The states stand for themselves and their conjugates: the paper's N is 2 state_size.

    Parameters are log_dt (hidden,), A_re and A_im (hidden, state), C, a pair re, im
    (hidden, state), D (hidden,) and W_x (hidden, input). The paper's layer has as many inputs as
    channels and no W_x; W_x is the linear map that precedes the layer in a network. B is fixed at
    1, as in the authors' minimal code, because h depends on B and C only by their product. What
    follows h in the layer, a GELU and a GLU, is not part of the cell.

    At initialisation A_n = -1/2 + i A_im; Δ is log-uniform; C is complex normal, E|C|² = 1; and D
    is N(0, 1). No library among Flax, PyTorch and Keras has this cell.

    Args:
      state_size: Number of complex states per channel. The authors' code has 32.
      state_init: A_im = πn for n = 0, 1, ... (``lin``), or (N/π)(N/(2n + 1) - 1) with
        N = 2 state_size (``inv``).
      discretization: ``zoh`` or ``bilinear``.
      dt_min: The smallest initial Δ.
      dt_max: The largest initial Δ.
      input_init: Initialiser of W_x.

    Raises:
      ValueError: For an unknown name, or unless state_size ≥ 1 and 0 < dt_min ≤ dt_max.

    Source: Gu, Gupta, Goel, Ré 2022, arXiv:2206.11893.
    """
    check_sizes(input_size, hidden_size)
    check_integer("state_size", state_size, 1)
    check_name("state initialiser", state_init, _FREQUENCIES)
    check_name("discretisation", discretization, _DISCRETIZATIONS)
    check_time_steps(dt_min, dt_max)
    init_input, shape = resolve_initializer(input_init), (hidden_size, state_size)

    def init(key: Key) -> Params:
        key_x, key_dt, key_re, key_im, key_d = split_key(key, 5)
        return {
            **init_matrices(key_x, {"W_x": (init_input, (hidden_size, input_size))}),
            "log_dt": init_log_dt(key_dt, hidden_size, dt_min, dt_max),
            "A_re": jnp.full(shape, math.log(0.5)),
            "A_im": jnp.tile(_FREQUENCIES[state_init](jnp.arange(state_size)), (hidden_size, 1)),
            "C": {
                "re": math.sqrt(0.5) * jax.random.normal(key_re, shape),
                "im": math.sqrt(0.5) * jax.random.normal(key_im, shape),
            },
            "D": jax.random.normal(key_d, (hidden_size,)),
        }

    def step(params: Params, carry: StateSpaceCarry, x: Array) -> tuple[StateSpaceCarry, Array]:
        u, C = params["W_x"] @ x, params["C"]
        A = jax.lax.complex(-jnp.exp(params["A_re"]), params["A_im"])
        A_bar, B_bar = _DISCRETIZATIONS[discretization](A, jnp.exp(params["log_dt"])[:, None])
        re, im = _advance(A_bar, carry, B_bar * u[:, None])
        h = 2 * (C["re"] * re - C["im"] * im).sum(axis=1) + params["D"] * u
        return StateSpaceCarry(re, im, h), h

    return Cell(init, step, lambda: _zero_carry(shape, hidden_size), hidden=lambda carry: carry.h)


def s5(
    input_size: int,
    hidden_size: int,
    *,
    state_size: int | None = None,
    dt_min: float = 0.001,
    dt_max: float = 0.1,
    input_init: InitSpec = "lecun",
) -> Cell:
    """An S5: one diagonal linear state-space model of complex states for all inputs and outputs.

    With the time steps Δ = exp(log_dt), one for each state::

        s_t = Λ̄ ∘ s_{t-1} + b̄ ∘ (B x_t)
        h_t = 2 Re(C s_t) + D x_t

    Λ̄ = exp(ΔΛ) and b̄ = (Λ̄ - 1)/Λ, a zero-order hold, so that ∂s_t/∂s_k = Λ̄^(t-k) for any input.
    |Λ̄| < 1 where Re Λ < 0, which holds at initialisation and which training does not guarantee. The
    states stand for themselves and their conjugates: the paper's P is 2 state_size.

    Parameters are Lambda, a pair re, im (state,), log_dt (state,), B, a pair (state, input), C, a
    pair (hidden, state), and D (hidden, input), which the paper takes to be diagonal. What follows
    h in the layer, a GELU and a gate, is not part of the cell.

    At initialisation Λ and V are the eigenvalues with Im Λ > 0 and the eigenvectors of the normal
    part of the HiPPO-LegS matrix, of size 2 state_size, so that Re Λ = -1/2; B = V* B' and
    C = C' V with real B' (2 state, input) and C' (hidden, 2 state); Δ is log-uniform. For some
    tasks the paper has several such blocks. No library among Flax, PyTorch and Keras has this cell.

    Args:
      state_size: Number of complex states, by default hidden_size.
      dt_min: The smallest initial Δ.
      dt_max: The largest initial Δ.
      input_init: Initialiser of B', C' and D. The authors' code has D ~ N(0, 1).

    Raises:
      ValueError: Unless state_size ≥ 1 and 0 < dt_min ≤ dt_max.

    Source: Smith, Warrington, Linderman 2023, arXiv:2208.04933.
    """
    check_sizes(input_size, hidden_size)
    size = hidden_size if state_size is None else state_size
    check_integer("state_size", size, 1)
    check_time_steps(dt_min, dt_max)
    init_matrix = resolve_initializer(input_init)

    def init(key: Key) -> Params:
        key_dt, key_m = split_key(key)
        shapes = {"B": (2 * size, input_size), "C": (hidden_size, 2 * size)}
        shapes["D"] = (hidden_size, input_size)
        real = init_matrices(key_m, {name: (init_matrix, shape) for name, shape in shapes.items()})
        frequencies, V = _normal_hippo(2 * size)
        V_re, V_im = jnp.asarray([np.real(V), np.imag(V)], real["B"].dtype)
        return {
            "Lambda": {"re": jnp.full(size, -0.5), "im": jnp.asarray(frequencies, V_re.dtype)},
            "log_dt": init_log_dt(key_dt, size, dt_min, dt_max),
            "B": {"re": V_re.T @ real["B"], "im": -V_im.T @ real["B"]},
            "C": {"re": real["C"] @ V_re, "im": real["C"] @ V_im},
            "D": real["D"],
        }

    def step(params: Params, carry: StateSpaceCarry, x: Array) -> tuple[StateSpaceCarry, Array]:
        B, C = params["B"], params["C"]
        Lambda = jax.lax.complex(params["Lambda"]["re"], params["Lambda"]["im"])
        Lambda_bar, b_bar = _zoh(Lambda, jnp.exp(params["log_dt"]))
        re, im = _advance(Lambda_bar, carry, b_bar * jax.lax.complex(B["re"] @ x, B["im"] @ x))
        h = 2 * (C["re"] @ re - C["im"] @ im) + params["D"] @ x
        return StateSpaceCarry(re, im, h), h

    return Cell(init, step, lambda: _zero_carry((size,), hidden_size), hidden=lambda carry: carry.h)


_FREQUENCIES: dict[str, Callable[[Array], Array]] = {
    "lin": lambda n: math.pi * n,
    "inv": lambda n: 2 * len(n) / math.pi * (2 * len(n) / (2 * n + 1) - 1),
}


def _zoh(A: Array, dt: Array) -> tuple[Array, Array]:
    # expm1, because exp(ΔA) - 1 loses its digits for small Δ.
    return jnp.exp(dt * A), jnp.expm1(dt * A) / A


def _bilinear(A: Array, dt: Array) -> tuple[Array, Array]:
    return (1 + dt * A / 2) / (1 - dt * A / 2), dt / (1 - dt * A / 2)


_DISCRETIZATIONS = {"zoh": _zoh, "bilinear": _bilinear}


def _advance(
    A_bar: Complex[Array, "*state"], carry: StateSpaceCarry, drive: Complex[Array, "*state"]
) -> tuple[Array, Array]:
    """Computes Ā ∘ s + drive in real arithmetic: the step Jacobian is real blocks of 2 × 2."""
    re = A_bar.real * carry.re - A_bar.imag * carry.im + drive.real
    return re, A_bar.imag * carry.re + A_bar.real * carry.im + drive.imag


def _zero_carry(shape: tuple[int, ...], hidden_size: int) -> StateSpaceCarry:
    return StateSpaceCarry(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros(hidden_size))


def _normal_hippo(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The positive Im Λ and the eigenvectors V (size, size/2) of the normal part of HiPPO-LegS.

    That part is -I/2 + S with the skew-symmetric S_nk = -√((n + 1/2)(k + 1/2)) for n > k. Its
    eigenvectors are those of the Hermitian matrix -iS, whose eigenvalues are Im Λ.
    """
    root = np.sqrt(np.arange(size) + 0.5)
    lower = np.tril(np.outer(root, root), -1)
    frequencies, V = np.linalg.eigh(-1j * (lower.T - lower))
    return frequencies[size // 2 :], V[:, size // 2 :]
