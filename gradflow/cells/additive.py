"""Cells whose state is a gated sum of linear maps of the inputs: RAN and ATR."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Key, Params, split_key
from gradflow.cells.activations import resolve_activation
from gradflow.cells.lstm import LSTMCarry
from gradflow.cells.parts import RecurrentInit, affine, init_gates, init_matrices
from gradflow.initializers import BiasSpec, InitSpec, resolve_initializer


def ran(
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: BiasSpec = 0.0,
    activation: str = "tanh",
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A recurrent additive network (RAN): an LSTM whose candidate is linear in the input alone.

    With a_t^q = W_x^q x_t + W_h^q h_{t-1} + b^q for the gates q = i, f::

        i_t = σ(a_t^i)    f_t = σ(a_t^f)
        c_t = f_t ∘ c_{t-1} + i_t ∘ (W_x^g x_t)
        h_t = tanh(c_t)

    so that c_t = Σ_j (f_t ∘ ... ∘ f_{j+1} ∘ i_j) ∘ (W_x^g x_j): a weighted sum of the inputs, whose
    weights alone depend on the state. The paper's content layer c̃_t is W_x^g x_t. No library among
    Flax, PyTorch and Keras has this cell.

    Args:
      forget_bias: Initial value of b^f, 0 by default. ``"chrono(max_lag=100)"`` also sets
        b^i = -b^f.
      activation: The function in place of tanh; the paper also uses ``identity``.
      recurrent_init: Initialiser of each gate's W_h separately.
      input_init: Initialiser of each W_x separately, W_x^g included.

    Source: Lee, Levy, Zettlemoyer 2017, arXiv:1705.07393, eq. 1 to 4.
    """
    phi = resolve_activation(activation)
    init_shared = init_gates(
        "if",
        input_size,
        hidden_size,
        recurrent_init=recurrent_init,
        input_init=input_init,
        biases={"f": forget_bias},
    )
    init_x = resolve_initializer(input_init)

    def init(key: Key) -> Params:
        key_gates, key_g = split_key(key)
        g = init_matrices(key_g, {"W_x": (init_x, (hidden_size, input_size))})
        return init_shared(key_gates) | {"g": g}

    def gates(params: Params, carry: LSTMCarry, x: Array) -> dict[str, Array]:
        return {q: jax.nn.sigmoid(affine(params[q], carry.h, x)) for q in "if"}

    def step(params: Params, carry: LSTMCarry, x: Array) -> tuple[LSTMCarry, Array]:
        i, f = gates(params, carry, x).values()
        c = f * carry.c + i * (params["g"]["W_x"] @ x)
        h = phi(c)
        return LSTMCarry(h, c), h

    return Cell(
        init,
        step,
        initial_carry=lambda: LSTMCarry(jnp.zeros(hidden_size), jnp.zeros(hidden_size)),
        hidden=lambda carry: carry.h,
        gates=gates,
    )


def atr(
    input_size: int,
    hidden_size: int,
    *,
    recurrent_init: InitSpec = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """An addition-subtraction twin-gated recurrent network (ATR): two gates from two products.

    ::

        p_t = W_x x_t + b    q_t = W_h h_{t-1}
        i_t = σ(p_t + q_t)    f_t = σ(p_t - q_t)
        h_t = i_t ∘ p_t + f_t ∘ h_{t-1}

    It has the parameters of a vanilla RNN, W_x, W_h and b at the top level, and neither a candidate
    that depends on the state nor an output activation. b is initialised at zero. No library among
    Flax, PyTorch and Keras has this cell.

    Args:
      recurrent_init: Initialiser of W_h.
      input_init: Initialiser of W_x.

    Source: Zhang, Xiong, Su, Lin, Zhang 2018, arXiv:1810.12546.
    """
    init_p = init_gates(
        "p", input_size, hidden_size, recurrent_init=recurrent_init, input_init=input_init
    )

    def init(key: Key) -> Params:
        return init_p(key)["p"]

    def both(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        return params["W_x"] @ x + params["b"], params["W_h"] @ h

    def gates(params: Params, h: Array, x: Array) -> dict[str, Array]:
        p, q = both(params, h, x)
        return {"i": jax.nn.sigmoid(p + q), "f": jax.nn.sigmoid(p - q)}

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        i, f = gates(params, h, x).values()
        h = i * both(params, h, x)[0] + f * h
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size), gates=gates)
