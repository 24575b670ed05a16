"""The minGRU and the minLSTM: gates depend on the input only, so that the step is linear in h."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Key, Params
from gradflow.cells.parts import init_biases, init_matrices
from gradflow.checks import check_sizes
from gradflow.initializers import BiasSpec, InitSpec, resolve_initializer


def mingru(input_size: int, hidden_size: int, *, input_init: InitSpec = "lecun") -> Cell:
    """A minGRU in its sequential form: a GRU whose gates depend on the input only.

    With a_t^q = W_x^q x_t + b^q for q = z, n::

        z_t = σ(a_t^z)    n_t = a_t^n
        h_t = (1 - z_t) ∘ h_{t-1} + z_t ∘ n_t

    Where z is 1 the candidate replaces the state. There is no W_h: the step Jacobian is exactly
    diag(1 - z_t), with entries in (0, 1), for any h. The authors' parallel form in the log domain
    applies a positive function to n first; that is a different cell. Biases are initialised at
    zero. No library among Flax, PyTorch and Keras has this cell.

    Args:
      input_init: Initialiser of W_x^z and W_x^n, separately.

    Source: Feng et al. 2024, arXiv:2410.01201.
    """

    def gates(params: Params, h: Array, x: Array) -> dict[str, Array]:
        del h  # the gates depend on the input only
        return {"z": jax.nn.sigmoid(_affine(params["z"], x)), "n": _affine(params["n"], x)}

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        z, n = gates(params, h, x).values()
        h = (1 - z) * h + z * n
        return h, h

    init = _init_gates("zn", input_size, hidden_size, input_init)
    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size), gates=gates)


def minlstm(
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: BiasSpec = 0.0,
    input_init: InitSpec = "lecun",
) -> Cell:
    """A minLSTM in its sequential form: its forget and input gates are normalised to sum to 1.

    With a_t^q = W_x^q x_t + b^q for q = f, i, g::

        f_t = σ(a_t^f) / (σ(a_t^f) + σ(a_t^i))    i_t = 1 - f_t    g_t = a_t^g
        h_t = f_t ∘ h_{t-1} + i_t ∘ g_t

    The step Jacobian is exactly diag(f_t), with entries in (0, 1), for any h. f and i are the
    paper's f' and i'. Biases other than b^f are initialised at zero. No library among Flax, PyTorch
    and Keras has this cell.

    Args:
      forget_bias: Initial value of b^f. ``"chrono(max_lag=100)"`` also sets b^i = -b^f.
      input_init: Initialiser of W_x^f, W_x^i and W_x^g, separately.

    Source: Feng et al. 2024, arXiv:2410.01201.
    """

    def gates(params: Params, h: Array, x: Array) -> dict[str, Array]:
        del h  # the gates depend on the input only
        # The ratio is computed from logarithms, because both σ may underflow to 0, and 0/0 is NaN.
        log_f, log_i = (jax.nn.log_sigmoid(_affine(params[gate], x)) for gate in "fi")
        f, i = jax.nn.sigmoid(log_f - log_i), jax.nn.sigmoid(log_i - log_f)
        return {"f": f, "i": i, "g": _affine(params["g"], x)}

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        f, i, g = gates(params, h, x).values()
        h = f * h + i * g
        return h, h

    init = _init_gates("fig", input_size, hidden_size, input_init, {"f": forget_bias})
    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size), gates=gates)


def _affine(gate: Params, x: Array) -> Array:
    return gate["W_x"] @ x + gate["b"]


def _init_gates(
    names: str,
    input_size: int,
    hidden_size: int,
    input_init: InitSpec,
    biases: dict[str, BiasSpec] | None = None,
) -> Callable[[Key], Params]:
    check_sizes(input_size, hidden_size)
    init_x = resolve_initializer(input_init)
    init_b = init_biases(names, biases or {})

    def init(key: Key) -> Params:
        W_x = init_matrices(key, {q: (init_x, (hidden_size, input_size)) for q in names})
        b = init_b(jax.random.split(key, len(names)), (hidden_size,), jnp.zeros(()).dtype)
        return {q: {"W_x": W_x[q], "b": b[q]} for q in names}

    return init
