"""The real-gated linear recurrent unit (RG-LRU) of Griffin: a gated, normalised diagonal decay."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Key, Params, split_key
from gradflow.cells.parts import init_matrices
from gradflow.checks import check_number, check_sizes
from gradflow.initializers import InitSpec, resolve_initializer


def rg_lru(
    input_size: int,
    hidden_size: int,
    *,
    c: float = 8.0,
    a_min: float = 0.9,
    a_max: float = 0.999,
    input_init: InitSpec = "lecun",
) -> Cell:
    """An RG-LRU: a real diagonal recurrence whose decay a^(c r_t) is gated by the input.

    With σ the logistic function, a = σ(Lambda), u_t = W_x x_t and all products elementwise::

        r_t = σ(W_x^r x_t + b^r)    i_t = σ(W_x^i x_t + b^i)    a_t = a^(c r_t)
        h_t = a_t ∘ h_{t-1} + √(1 - a_t²) ∘ i_t ∘ u_t

    The step Jacobian is exactly diag(a_t), with entries in (0, 1), for any h. Where r_t is 0 the
    unit keeps its state and ignores its input. The square root makes the variance of h that of
    i ∘ u for white inputs and any constant a_t.

    Parameters are W_x^r, W_x^i and W_x (hidden, input), b^r and b^i (hidden,), initialised at zero,
    and Lambda (hidden,), initialised so that a^c is uniform between a_min and a_max. The paper's
    layer has as many inputs as units and no W_x: u_t is x_t. In the authors' code Lambda has the
    opposite sign, a² is initialised uniformly between 0.9² and 0.999², so that a^c is smaller than
    here, the matrices of the gates are block-diagonal, and the first step has no square root. The
    causal convolution and the gate around this recurrence are not part of the cell. No library
    among Flax, PyTorch and Keras has this cell.

    Args:
      c: Exponent of a at r_t = 1, dimensionless.
      a_min: The smallest initial a^c, dimensionless.
      a_max: The largest initial a^c, dimensionless.
      input_init: Initialiser of W_x^r, W_x^i and W_x, separately.

    Raises:
      ValueError: Unless c > 0 and 0 < a_min ≤ a_max < 1.

    Source: De, Smith, Fernando, Botev et al. 2024, arXiv:2402.19427, eq. 1-4.
    """
    check_sizes(input_size, hidden_size)
    check_number("c", c, "positive", example=8.0)
    check_number("a_min", a_min, "positive", example=0.9)
    check_number("a_max", a_max, "at least 0 and below 1", example=0.999)
    if a_min > a_max:
        raise ValueError(f"Expected a_min <= a_max, got {a_min!r} and {a_max!r}. Swap them.")
    init_input = resolve_initializer(input_init)

    def init(key: Key) -> Params:
        key_w, key_a = split_key(key)
        W_x = init_matrices(key_w, {q: (init_input, (hidden_size, input_size)) for q in "rix"})
        log_a = jnp.log(jax.random.uniform(key_a, (hidden_size,), minval=a_min, maxval=a_max)) / c
        return {
            "r": {"W_x": W_x["r"], "b": jnp.zeros(hidden_size)},
            "i": {"W_x": W_x["i"], "b": jnp.zeros(hidden_size)},
            "W_x": W_x["x"],
            # log(a/(1 - a)). expm1 keeps the digits of 1 - a where a is near 1.
            "Lambda": log_a - jnp.log(-jnp.expm1(log_a)),
        }

    def gates(params: Params, h: Array, x: Array) -> dict[str, Array]:
        del h  # the gates depend on the input only
        return {q: jax.nn.sigmoid(params[q]["W_x"] @ x + params[q]["b"]) for q in "ri"}

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        r, i = gates(params, h, x).values()
        log_a = c * r * jax.nn.log_sigmoid(params["Lambda"])
        # √ has no derivative at 0, which 1 - a² reaches where r underflows. The bound is far below
        # the rounding error of h.
        exponent = jnp.maximum(-2 * log_a, jnp.finfo(h.dtype).tiny)
        h = jnp.exp(log_a) * h + jnp.sqrt(-jnp.expm1(-exponent)) * i * (params["W_x"] @ x)
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size), gates=gates)
