"""The linear recurrent unit: a diagonal complex recurrence, stable by its parametrisation."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params
from gradflow.cells.checks import check_number, check_sizes
from gradflow.cells.unitary import ComplexCarry


def lru(
    input_size: int,
    hidden_size: int,
    *,
    r_min: float = 0.0,
    r_max: float = 1.0,
    max_phase: float = 2 * math.pi,
) -> Cell:
    """The LRU's recurrence: complex units that turn and shrink, each by itself, linearly.

    With all operations elementwise::

        λ = exp(-exp(nu) + i exp(theta))
        s_t = λ ∘ s_{t-1} + exp(gamma) ∘ (W_x x_t)

    so that ∂s_t/∂s_k = λ^(t-k), whatever the input. |λ| < 1 by the form. The carry is (re, im), and
    h is the whole of it: hidden_size complex units are 2 hidden_size real ones. The layer's readout
    Re(C s_t) + D x_t and what follows it are not part of the cell.

    Parameters are nu, theta and gamma (hidden,), which are nu^log, theta^log and gamma^log in
    the paper, and W_x (its B), a pair re, im (hidden, input), each N(0, 1/(2 input)). |λ|² is
    uniform between r_min² and r_max², the phase uniform between 0 and max_phase, and
    exp(gamma) = √(1 - |λ|²), which keeps the state's size under white inputs; gamma is trained.

    Args:
      r_min: The least initial |λ|, dimensionless.
      r_max: The greatest initial |λ|.
      max_phase: The greatest initial phase of λ, in radians.

    Raises:
      ValueError: Unless 0 ≤ r_min < r_max ≤ 1 and max_phase is positive.

    Source: Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu, De 2023, arXiv:2303.06349.
    """
    check_sizes(input_size, hidden_size)
    check_number("r_min", r_min, "between 0 and 1", mend="for long memory take 0.9")
    check_number("r_max", r_max, "between 0 and 1", mend="for long memory take 0.999")
    if r_min >= r_max:
        raise ValueError(
            f"r_min < r_max is expected, got {r_min!r} and {r_max!r}; for long memory take "
            "0.9 and 0.999"
        )
    check_number("max_phase", max_phase, "positive", mend="it is an angle, for instance 6.28")

    def init(key: Key) -> Params:
        key_nu, key_theta, key_re, key_im = jax.random.split(key, 4)
        nu = _draw_nu(key_nu, hidden_size, r_min, r_max)
        scale = 1 / math.sqrt(2 * max(input_size, 1))
        shape = (hidden_size, input_size)
        return {
            "nu": nu,
            "theta": jnp.log(max_phase * _open_uniform(key_theta, hidden_size)),
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

    def initial_carry() -> ComplexCarry:
        return ComplexCarry(jnp.zeros(hidden_size), jnp.zeros(hidden_size))

    return Cell(init, step, initial_carry)


def _draw_nu(key: Key, size: int, r_min: float, r_max: float) -> Float[Array, " hidden"]:
    """nu with exp(-2 exp(nu)) uniform between r_min² and r_max², and never 1."""
    share = (1 - (r_min / r_max) ** 2) * _open_uniform(key, size)
    return jnp.log(-(math.log(r_max) + jnp.log1p(-share) / 2))


def _open_uniform(key: Key, size: int) -> Float[Array, " hidden"]:
    """U(0, 1) without 0, whose logarithm is to be taken."""
    return jax.random.uniform(key, (size,), minval=jnp.finfo(jnp.zeros(()).dtype).tiny)
