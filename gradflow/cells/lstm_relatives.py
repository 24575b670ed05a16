"""Relatives of the LSTM: the multiplicative LSTM, the residual LSTM and the NAS cell."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Key, Params, split_key
from gradflow.cells.lstm import LSTMCarry, lstm
from gradflow.cells.parts import RecurrentInit, init_gates, init_matrices
from gradflow.initializers import BiasSpec, InitSpec, resolve_initializer


def multiplicative_lstm(
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: BiasSpec | None = None,
    recurrent_init: InitSpec = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A multiplicative LSTM (the mLSTM of 2016): its recurrent matrices depend on the input.

    An LSTM that reads m_t in place of h_{t-1}::

        m_t = (W_x^m x_t) ∘ (W_h^m h_{t-1})
        a_t^q = W_x^q x_t + W_h^q m_t + b^q          for the gates q = i, f, o, g
        c_t = σ(a_t^f) ∘ c_{t-1} + σ(a_t^i) ∘ tanh(a_t^g)
        h_t = σ(a_t^o) ∘ tanh(c_t)

    so that a_t^q contains h_{t-1} through the matrix W_h^q diag(W_x^m x_t) W_h^m: one for each
    input, and 0 for x_t = 0. The carry and the gates are those of `lstm`, the parameters too,
    with W_x^m and W_h^m under ``m``. Some implementations compute h = tanh(σ(a^o) ∘ c) and a
    linear candidate. The mLSTM of 2024, with a matrix for its state, is another cell. No library
    among Flax, PyTorch and Keras has this cell.

    Args:
      forget_bias: Initial value of b^f as in `lstm`: 1 by default. The other biases are
        initialised at zero.
      recurrent_init: Initialiser of each W_h separately, W_h^m included.
      input_init: Initialiser of each W_x separately, W_x^m included.

    Source: Krause, Lu, Murray, Renals 2016, arXiv:1609.07959.
    """
    inner = lstm(
        input_size,
        hidden_size,
        forget_bias=forget_bias,
        recurrent_init=recurrent_init,
        input_init=input_init,
    )
    lstm_gates = inner.gates
    assert lstm_gates is not None
    init_h, init_x = resolve_initializer(recurrent_init), resolve_initializer(input_init)

    def init(key: Key) -> Params:
        key_gates, key_m = split_key(key)
        shapes = {
            "W_x": (init_x, (hidden_size, input_size)),
            "W_h": (init_h, (hidden_size, hidden_size)),
        }
        return inner.init(key_gates) | {"m": init_matrices(key_m, shapes)}

    def multiplied(params: Params, carry: LSTMCarry, x: Array) -> LSTMCarry:
        return carry._replace(h=(params["m"]["W_x"] @ x) * (params["m"]["W_h"] @ carry.h))

    def step(params: Params, carry: LSTMCarry, x: Array) -> tuple[LSTMCarry, Array]:
        return inner.step(params, multiplied(params, carry, x), x)

    def gates(params: Params, carry: LSTMCarry, x: Array) -> Mapping[str, Array]:
        return lstm_gates(params, multiplied(params, carry, x), x)

    return inner._replace(init=init, step=step, gates=gates)


def residual_lstm(
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: BiasSpec | None = None,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A residual LSTM: the input is added to the output within the output gate.

    The gates and c_t are those of an `lstm` with peepholes, and::

        h_t = o_t ∘ (W_p tanh(c_t) + x_t)             if the input has the size of h
        h_t = o_t ∘ (W_p tanh(c_t) + W_s x_t)         else

    The shortcut goes from layer to layer of a stack, not from step to step: ∂c_t/∂c_{t-1} is that
    of an LSTM, whereas a highway LSTM changes it. Parameters are those of `lstm` and
    ``projection``, with W (hidden, hidden) for W_p, and ``shortcut``, with W_x for W_s. The
    peephole of o is a vector here, as those of i and f. No library among Flax, PyTorch and Keras
    has this cell.

    Args:
      forget_bias: Initial value of b^f as in `lstm`: 1 by default. The other biases are
        initialised at zero.
      recurrent_init: Initialiser of each gate's W_h separately.
      input_init: Initialiser of each W_x separately, and of W_p.

    Source: Kim, El-Khamy, Lee 2017, arXiv:1701.03360.
    """
    inner = lstm(
        input_size,
        hidden_size,
        forget_bias=forget_bias,
        peephole=True,
        recurrent_init=recurrent_init,
        input_init=input_init,
    )
    lstm_gates = inner.gates
    assert lstm_gates is not None
    init_x = resolve_initializer(input_init)

    def init(key: Key) -> Params:
        key_gates, key_out = split_key(key)
        shapes = {"projection": (init_x, (hidden_size, hidden_size))}
        if input_size != hidden_size:
            shapes |= {"shortcut": (init_x, (hidden_size, input_size))}
        W = init_matrices(key_out, shapes)
        out = {"projection": {"W": W.pop("projection")}, **{q: {"W_x": w} for q, w in W.items()}}
        return inner.init(key_gates) | out

    def step(params: Params, carry: LSTMCarry, x: Array) -> tuple[LSTMCarry, Array]:
        gates = lstm_gates(params, carry, x)
        c = gates["f"] * carry.c + gates["i"] * gates["g"]
        shortcut = params["shortcut"]["W_x"] @ x if "shortcut" in params else x
        h = gates["o"] * (params["projection"]["W"] @ jnp.tanh(c) + shortcut)
        return LSTMCarry(h, c), h

    return inner._replace(init=init, step=step)


def nas(
    input_size: int,
    hidden_size: int,
    *,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """The NAS cell, found by a neural architecture search: a tree of products, sums and squashings.

    With a_t^q = W_x^q x_t + W_h^q h_{t-1} + b^q for q = 1 ... 8, but a_t^4 = (W_x^4 x_t) ∘
    (W_h^4 h_{t-1} + b^4)::

        u = tanh(σ(a^1) ∘ relu(a^2))    v = tanh(σ(a^3) + relu(a^4))
        p = tanh(tanh(a^5) ∘ σ(a^6))    q = σ(tanh(a^7) + σ(a^8))
        c_t = tanh(u + c_{t-1}) ∘ v
        h_t = tanh(c_t ∘ tanh(p + q))

    The path from c to c has a tanh and the factor v, at most tanh(1) = 0.76 where a^4 is not
    positive: there is no forget gate that could hold it at 1. The parameters are ``params["a1"]``
    to ``params["a8"]``; biases are initialised at zero. The carry is that of `lstm`. The reported
    gates are the σ of a^1, a^3, a^6 and a^8. TensorFlow's ``NASCell`` is this function, without
    biases by default. No library among Flax, PyTorch and Keras has this cell.

    Args:
      recurrent_init: Initialiser of each W_h separately.
      input_init: Initialiser of each W_x separately.

    Source: Zoph & Le 2017, arXiv:1611.01578, figure 8.
    """
    names = [f"a{q}" for q in range(1, 9)]
    init = init_gates(
        names, input_size, hidden_size, recurrent_init=recurrent_init, input_init=input_init
    )

    def arguments(params: Params, h: Array, x: Array) -> list[Array]:
        pairs = [(params[q]["W_x"] @ x, params[q]["W_h"] @ h + params[q]["b"]) for q in names]
        a = [of_x + of_h for of_x, of_h in pairs]
        return a[:3] + [pairs[3][0] * pairs[3][1]] + a[4:]

    def step(params: Params, carry: LSTMCarry, x: Array) -> tuple[LSTMCarry, Array]:
        sigma, tanh, relu = jax.nn.sigmoid, jnp.tanh, jax.nn.relu
        a1, a2, a3, a4, a5, a6, a7, a8 = arguments(params, carry.h, x)
        u, v = tanh(sigma(a1) * relu(a2)), tanh(sigma(a3) + relu(a4))
        p, q = tanh(tanh(a5) * sigma(a6)), sigma(tanh(a7) + sigma(a8))
        c = tanh(u + carry.c) * v
        h = tanh(c * tanh(p + q))
        return LSTMCarry(h, c), h

    def gates(params: Params, carry: LSTMCarry, x: Array) -> dict[str, Array]:
        a = dict(zip(names, arguments(params, carry.h, x), strict=True))
        return {q: jax.nn.sigmoid(a[q]) for q in ("a1", "a3", "a6", "a8")}

    return Cell(
        init,
        step,
        initial_carry=lambda: LSTMCarry(jnp.zeros(hidden_size), jnp.zeros(hidden_size)),
        hidden=lambda carry: carry.h,
        gates=gates,
    )
