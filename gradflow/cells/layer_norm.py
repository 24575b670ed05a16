"""LSTM and GRU with layer normalisation inside the step."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params
from gradflow.cells.lstm import LSTMCarry
from gradflow.cells.parts import RecurrentInit, init_gates
from gradflow.checks import check_flag, check_integer, check_number
from gradflow.initializers import BiasSpec, InitSpec

Norm = Callable[[Array], Array]


def lstm_layer_norm(
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: BiasSpec = 1.0,
    eps: float = 1e-5,
    per_gate: bool = False,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """An LSTM with layer normalisation of its pre-activations and of its cell state.

    With N(z) = (z - mean z) / √(var z + eps), W the stacked matrices of the four gates, and N^q
    the entries of N that belong to gate q = i, f, g, o::

        a_t^q = gain_h^q ∘ N(W_h h_{t-1})^q + gain_x^q ∘ N(W_x x_t)^q + b^q
        i_t = σ(a_t^i)    f_t = σ(a_t^f)    o_t = σ(a_t^o)    g_t = tanh(a_t^g)
        c_t = f_t ∘ c_{t-1} + i_t ∘ g_t
        h_t = o_t ∘ tanh(gain^c ∘ N(c_t) + b^c)

    One mean and one variance are computed over all four gates, as in the paper. The paper's β_1,
    β_2 and b occur only as a sum and are one parameter b here. Gains are initialised at 1, biases
    at zero except b^f. At the zero carry N has slope 1/√eps (316 by default), and the first step
    Jacobians are equally large: measure from a carry that has run for some steps.

    Args:
      forget_bias: Initial value of b^f, as in `lstm`. The paper gives none.
      eps: Keeps N finite. 1e-5, as in the authors' code; the paper's equation has no eps.
      per_gate: Whether each gate has its own mean and variance, as in TensorFlow's
        ``LayerNormBasicLSTMCell`` (which normalises the sum W_h h + W_x x, not each term).
      recurrent_init: Initialiser of each gate's W_h separately. N removes a common scale.
      input_init: Initialiser of each gate's W_x.

    Raises:
      TypeError: If per_gate is neither True nor False.
      ValueError: If there are fewer than 2 units, or eps is not positive.

    Source: Ba, Kiros, Hinton 2016, arXiv:1607.06450, supplementary material.
    """
    _check_options(hidden_size, eps, per_gate)
    norm = partial(normalise, eps=eps, axis=-1 if per_gate else None)
    init_shared = init_gates(
        "ifgo",
        input_size,
        hidden_size,
        recurrent_init=recurrent_init,
        input_init=input_init,
        biases={"f": forget_bias},
    )

    def init(key: Key) -> Params:
        c = {"gain": jnp.ones(hidden_size), "b": jnp.zeros(hidden_size)}
        return _with_gains(init_shared, hidden_size)(key) | {"c": c}

    def gates(params: Params, carry: LSTMCarry, x: Array) -> dict[str, Array]:
        a = _preactivations(params, "ifgo", carry.h, x, norm)
        return {gate: jnp.tanh(a[gate]) if gate == "g" else jax.nn.sigmoid(a[gate]) for gate in a}

    def step(params: Params, carry: LSTMCarry, x: Array) -> tuple[LSTMCarry, Array]:
        i, f, g, o = gates(params, carry, x).values()
        c = f * carry.c + i * g
        h = o * jnp.tanh(params["c"]["gain"] * normalise(c, eps) + params["c"]["b"])
        return LSTMCarry(h, c), h

    return Cell(
        init=init,
        step=step,
        initial_carry=lambda: LSTMCarry(jnp.zeros(hidden_size), jnp.zeros(hidden_size)),
        hidden=lambda carry: carry.h,
        gates=gates,
    )


def gru_layer_norm(
    input_size: int,
    hidden_size: int,
    *,
    eps: float = 1e-5,
    per_gate: bool = False,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A GRU, reset after the matrix product, with layer normalisation of all its products.

    With N(z) = (z - mean z) / √(var z + eps), W the stacked matrices of r and z, and N^q the
    entries of N that belong to gate q = r, z::

        a_t^q = gain_h^q ∘ N(W_h h_{t-1})^q + gain_x^q ∘ N(W_x x_t)^q + b^q
        r_t = σ(a_t^r)    z_t = σ(a_t^z)
        n_t = tanh(gain_x^n ∘ N(W_x^n x_t) + b^n + r_t ∘ (gain_h^n ∘ N(W_h^n h_{t-1}) + b_h^n))
        h_t = (1 - z_t) ∘ n_t + z_t ∘ h_{t-1}

    Where z is 1 the old state is kept, as in `gru`. In the paper z = 1 admits the candidate, so
    that its a^z is the negative of this one. One mean and one variance are computed over r and z,
    as in the paper, whose β_1 and β_2 are one parameter b here. Gains are initialised at 1, biases
    at zero. At the zero carry N has slope 1/√eps (316 by default), and the first step Jacobian is
    equally large. No library among Flax, PyTorch and Keras has this cell.

    Args:
      eps: Keeps N finite. 1e-5, as in the authors' code; the paper's equation has no eps.
      per_gate: Whether r and z each have their own mean and variance.
      recurrent_init: Initialiser of each gate's W_h separately. N removes a common scale.
      input_init: Initialiser of each gate's W_x.

    Raises:
      TypeError: If per_gate is neither True nor False.
      ValueError: If there are fewer than 2 units, or eps is not positive.

    Source: Ba, Kiros, Hinton 2016, arXiv:1607.06450, supplementary material.
    """
    _check_options(hidden_size, eps, per_gate)
    norm = partial(normalise, eps=eps, axis=-1 if per_gate else None)
    init_shared = init_gates(
        "rzn", input_size, hidden_size, recurrent_init=recurrent_init, input_init=input_init
    )

    def init(key: Key) -> Params:
        params = _with_gains(init_shared, hidden_size)(key)
        return params | {"n": params["n"] | {"b_h": jnp.zeros(hidden_size)}}

    def gates(params: Params, h: Array, x: Array) -> dict[str, Array]:
        a = _preactivations(params, "rz", h, x, norm)
        r, z = jax.nn.sigmoid(a["r"]), jax.nn.sigmoid(a["z"])
        by_x, by_h = _products(params, "n", "x", x, norm), _products(params, "n", "h", h, norm)
        n = jnp.tanh(by_x["n"] + params["n"]["b"] + r * (by_h["n"] + params["n"]["b_h"]))
        return {"r": r, "z": z, "n": n}

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        _, z, n = gates(params, h, x).values()
        h = (1 - z) * n + z * h
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size), gates=gates)


def normalise(z: Float[Array, "..."], eps: float, axis: int | None = None) -> Float[Array, "..."]:
    """Computes (z - mean z) / √(var z + eps), over all entries or along an axis."""
    centred = z - jnp.mean(z, axis, keepdims=True)
    return centred / jnp.sqrt(jnp.mean(centred**2, axis, keepdims=True) + eps)


def _products(params: Params, names: str, side: str, v: Array, norm: Norm) -> dict[str, Array]:
    """Computes gain ∘ N(W v) for each gate, with W and gain those of h or of x as side says."""
    z = norm(jnp.stack([params[gate][f"W_{side}"] @ v for gate in names]))
    return {gate: params[gate][f"gain_{side}"] * row for gate, row in zip(names, z, strict=True)}


def _preactivations(params: Params, names: str, h: Array, x: Array, norm: Norm) -> dict[str, Array]:
    by_h, by_x = _products(params, names, "h", h, norm), _products(params, names, "x", x, norm)
    return {gate: by_h[gate] + by_x[gate] + params[gate]["b"] for gate in names}


def _with_gains(init: Callable[[Key], Params], hidden_size: int) -> Callable[[Key], Params]:
    def init_with_gains(key: Key) -> Params:
        ones = jnp.ones(hidden_size)
        return {name: gate | {"gain_h": ones, "gain_x": ones} for name, gate in init(key).items()}

    return init_with_gains


def _check_options(hidden_size: int, eps: float, per_gate: bool) -> None:
    # The deviation of a single unit from its mean is always zero: no signal would be left.
    check_integer("hidden_size", hidden_size, 2)
    # With eps = 0 the gradient at the zero carry is not finite.
    check_number("eps", eps, "positive", example=1e-5)
    check_flag("per_gate", per_gate)
