"""The linear recurrent unit (LRU): a diagonal complex recurrence with a stable parametrisation."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params, split_key
from gradflow.cells.unitary import ComplexCarry, zero_carry
from gradflow.checks import check_number, check_sizes


def lru(
    input_size: int,
    hidden_size: int,
    *,
    r_min: float = 0.0,
    r_max: float = 1.0,
    max_phase: float = 2 * math.pi,
) -> Cell:
    """The recurrence of an LRU: independent linear complex units with |λ| < 1.

    With all operations elementwise::

        λ = exp(-exp(nu) + i exp(theta))
        s_t = λ ∘ s_{t-1} + exp(gamma) ∘ (W_x x_t)

    so that ∂s_t/∂s_k = λ^(t-k) for any input. The parametrisation guarantees |λ| < 1. The carry
    is (re, im), and h is the whole carry: hidden_size complex units are 2 hidden_size real
    numbers. The layer's readout Re(C s_t) + D x_t and what follows it are not part of the cell.

    Parameters are nu, theta and gamma (hidden,), called nu^log, theta^log and gamma^log in the
    paper, and W_x (the paper's B), a pair re, im (hidden, input), each entry N(0, 1/(2 input)).
    At initialisation |λ|² is uniform between r_min² and r_max², the phase is uniform between 0 and
    max_phase, and exp(gamma) = √(1 - |λ|²), which makes the variance of the state independent of λ
    under white inputs. gamma is trained. No library among Flax, PyTorch and Keras has this cell.

    Args:
      r_min: The smallest initial |λ|, dimensionless.
      r_max: The largest initial |λ|, dimensionless.
      max_phase: The largest initial phase of λ, in radians.

    Raises:
      ValueError: Unless 0 ≤ r_min < r_max ≤ 1 and max_phase is positive.

    Source: Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu, De 2023, arXiv:2303.06349.
    """
    check_sizes(input_size, hidden_size)
    check_number("r_min", r_min, "between 0 and 1", example=0.9)
    check_number("r_max", r_max, "between 0 and 1", example=0.999)
    if r_min >= r_max:
        raise ValueError(
            f"Expected r_min < r_max, got {r_min!r} and {r_max!r}. Set them to, for example, 0.9 "
            "and 0.999."
        )
    check_number("max_phase", max_phase, "positive", example=6.28)

    def init(key: Key) -> Params:
        key_nu, key_theta, key_re, key_im = split_key(key, 4)
        nu = _init_nu(key_nu, hidden_size, r_min, r_max)
        scale = 1 / math.sqrt(2 * max(input_size, 1))  # an autonomous cell has no inputs
        shape = (hidden_size, input_size)
        return {
            "nu": nu,
            "theta": jnp.log(max_phase * _open_uniform(key_theta, hidden_size)),
            # log √(1 - |λ|²) with |λ|² = exp(-2 exp(nu)). expm1 keeps its digits where |λ| is
            # near 1, where 1 - |λ|² would cancel.
            "gamma": jnp.log(-jnp.expm1(-2 * jnp.exp(nu))) / 2,
            "W_x": {
                "re": scale * jax.random.normal(key_re, shape),
                "im": scale * jax.random.normal(key_im, shape),
            },
        }

    def step(params: Params, carry: ComplexCarry, x: Array) -> tuple[ComplexCarry, Array]:
        radius, phase = jnp.exp(-jnp.exp(params["nu"])), jnp.exp(params["theta"])
        c, s = radius * jnp.cos(phase), radius * jnp.sin(phase)
        re, im = (jnp.exp(params["gamma"]) * (params["W_x"][part] @ x) for part in ("re", "im"))
        carry = ComplexCarry(c * carry.re - s * carry.im + re, s * carry.re + c * carry.im + im)
        return carry, jnp.concatenate(carry)

    return Cell(init, step, initial_carry=lambda: zero_carry(hidden_size))


def _init_nu(key: Key, size: int, r_min: float, r_max: float) -> Float[Array, " hidden"]:
    """Samples nu such that |λ|² = exp(-2 exp(nu)) is uniform between r_min² and r_max².

    log |λ| is computed as log r_max + log1p(-v)/2 with v > 0: log1p keeps its digits where v is
    small, and |λ| is never 1, which would make nu = -inf.
    """
    v = (1 - (r_min / r_max) ** 2) * _open_uniform(key, size)
    return jnp.log(-(math.log(r_max) + jnp.log1p(-v) / 2))


def _open_uniform(key: Key, size: int) -> Float[Array, " hidden"]:
    """Samples U(0, 1) without 0, because its logarithm is taken."""
    return jax.random.uniform(key, (size,), minval=jnp.finfo(jnp.zeros(()).dtype).tiny)
