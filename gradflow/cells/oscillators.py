"""RNNs of oscillators: discretised second-order ODEs, coupled (coRNN) or independent (UnICORNN)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params, split_key
from gradflow.cells.parts import RecurrentInit, init_gates, init_matrices
from gradflow.checks import check_number, check_sizes
from gradflow.initializers import InitSpec, resolve_initializer
from gradflow.spec import check_name


class OscillatorCarry(NamedTuple):
    """The two states of an oscillator: its position y, the hidden state, and its velocity z."""

    y: Float[Array, " hidden"]
    z: Float[Array, " hidden"]


def cornn(
    input_size: int,
    hidden_size: int,
    *,
    dt: float = 0.1,
    gamma: float = 1.0,
    epsilon: float = 1.0,
    damping: str = "implicit",
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A coRNN: coupled, forced and damped nonlinear oscillators; h is their position y.

    The velocity z is updated first. It is damped by its new value (``implicit``, z' = z_t) or by
    its old value (``explicit``, z' = z_{t-1})::

        a_t = W_y y_{t-1} + W_z z_{t-1} + W_x x_t + b
        z_t = z_{t-1} + dt (tanh(a_t) - gamma y_{t-1} - epsilon z')
        y_t = y_{t-1} + dt z_t

    The implicit equation is solved for z_t by a division. The authors' code has explicit damping.

    With implicit damping, gamma = 1 and epsilon ≥ (1 + dt)/2, the energy |y_t|² + |z_t|² grows by
    at most hidden · dt per step. If also epsilon = 1 and eta = dt/(1 + dt) · max(1 + ‖W_y‖, ‖W_z‖)
    is at most dt^r for an r in [1/2, 1], the norm of the step Jacobian is at most 1 + 3 dt^r.
    (The norms are the largest row sums.)

    Parameters are W_y, W_z (hidden, hidden), W_x (hidden, input) and b (hidden,), initialised at
    zero. The authors' code initialises all of them from U(±1/√n), with n the number of columns of
    the concatenated matrices.

    Args:
      dt: Time step, in units of the oscillators' time.
      gamma: Stiffness, dimensionless. The paper tunes dt, gamma and epsilon for each task.
      epsilon: Damping, dimensionless.
      damping: ``implicit`` or ``explicit``.
      recurrent_init: Initialiser of W_y and W_z; their names are ``y`` and ``z``.
      input_init: Initialiser of W_x.

    Raises:
      ValueError: If dt is not positive, gamma or epsilon is negative, or damping is unknown.

    Source: Rusch & Mishra 2021, arXiv:2010.00951.
    """
    check_number("dt", dt, "positive", example=0.1)
    check_number("gamma", gamma, "non-negative", example=1.0)
    check_number("epsilon", epsilon, "non-negative", example=1.0)
    check_name("damping", damping, ("implicit", "explicit"))
    init_gate = init_gates(
        "yz", input_size, hidden_size, recurrent_init=recurrent_init, input_init=input_init
    )

    def init(key: Key) -> Params:
        p = init_gate(key)
        matrices = {"W_y": p["y"]["W_h"], "W_z": p["z"]["W_h"]}
        return {**matrices, "W_x": p["y"]["W_x"], "b": p["y"]["b"]}

    def step(params: Params, carry: OscillatorCarry, x: Array) -> tuple[OscillatorCarry, Array]:
        y, z = carry
        a = params["W_y"] @ y + params["W_z"] @ z + params["W_x"] @ x + params["b"]
        z_undamped = z + dt * (jnp.tanh(a) - gamma * y)
        if damping == "implicit":
            z = z_undamped / (1 + dt * epsilon)
        else:
            z = z_undamped - dt * epsilon * z
        y = y + dt * z
        return OscillatorCarry(y, z), y

    return Cell(init, step, lambda: _at_rest(hidden_size), hidden=lambda carry: carry.y)


def unicornn(
    input_size: int,
    hidden_size: int,
    *,
    dt: float = 0.1,
    alpha: float = 1.0,
    input_init: InitSpec = "lecun",
) -> Cell:
    """A UnICORNN: independent undamped oscillators with learned time steps; h is the position y.

    With d = dt σ(c), by symplectic Euler::

        z_t = z_{t-1} - d ∘ (tanh(w ∘ y_{t-1} + W_x x_t + b) + alpha y_{t-1})
        y_t = y_{t-1} + d ∘ z_t

    For a given input each unit is a Hamiltonian system and its step a symplectic map: the step
    Jacobian J satisfies JᵀΩJ = Ω and has determinant 1, so that volumes neither vanish nor
    explode. Units interact only through the input weights of the next layer.

    Parameters are w (hidden,), initialised from U(0, 1), c (hidden,), from U(±0.1), W_x
    (hidden, input), and b (hidden,), initialised at zero.

    Args:
      dt: The largest time step, in units of the oscillators' time.
      alpha: Stiffness, dimensionless. The paper tunes dt and alpha for each task.
      input_init: Initialiser of W_x. The authors' code uses U(±√(6/(65 input))).

    Raises:
      ValueError: If dt is not positive or alpha is negative.

    Source: Rusch & Mishra 2021, arXiv:2103.05487.
    """
    check_sizes(input_size, hidden_size)
    check_number("dt", dt, "positive", example=0.1)
    check_number("alpha", alpha, "non-negative", example=1.0)
    init_input = resolve_initializer(input_init)

    def init(key: Key) -> Params:
        key_x, key_w, key_c = split_key(key, 3)
        return {
            "w": jax.random.uniform(key_w, (hidden_size,)),
            "c": jax.random.uniform(key_c, (hidden_size,), minval=-0.1, maxval=0.1),
            **init_matrices(key_x, {"W_x": (init_input, (hidden_size, input_size))}),
            "b": jnp.zeros(hidden_size),
        }

    def step(params: Params, carry: OscillatorCarry, x: Array) -> tuple[OscillatorCarry, Array]:
        y, z = carry
        d = dt * jax.nn.sigmoid(params["c"])
        a = params["w"] * y + params["W_x"] @ x + params["b"]
        z = z - d * (jnp.tanh(a) + alpha * y)
        y = y + d * z
        return OscillatorCarry(y, z), y

    return Cell(init, step, lambda: _at_rest(hidden_size), hidden=lambda carry: carry.y)


def _at_rest(hidden_size: int) -> OscillatorCarry:
    return OscillatorCarry(jnp.zeros(hidden_size), jnp.zeros(hidden_size))
