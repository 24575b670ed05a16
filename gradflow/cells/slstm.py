"""The sLSTM of the xLSTM: an LSTM with exponential gates, a normaliser and a stabiliser."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params, split_key
from gradflow.cells.heads import head_size, multiply
from gradflow.cells.parts import RecurrentInit, init_gates
from gradflow.checks import check_flag
from gradflow.initializers import BiasSpec, InitSpec
from gradflow.spec import check_name

_LOG_FORGET_GATES = {"sigmoid": jax.nn.log_sigmoid, "exp": lambda a: a}

Gates = dict[str, Array]


class SLSTMCarry(NamedTuple):
    """The hidden state h, the cell state c and the normaliser n."""

    h: Float[Array, " hidden"]
    c: Float[Array, " hidden"]
    n: Float[Array, " hidden"]


class StabilisedSLSTMCarry(NamedTuple):
    """The hidden state h, c and n divided by exp(m), and the stabiliser m."""

    h: Float[Array, " hidden"]
    c: Float[Array, " hidden"]
    n: Float[Array, " hidden"]
    m: Float[Array, " hidden"]


def slstm(
    input_size: int,
    hidden_size: int,
    *,
    num_heads: int = 1,
    stabilised: bool = True,
    forget_gate: str = "sigmoid",
    forget_bias: BiasSpec = 1.0,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """An sLSTM: an LSTM with an exponential input gate, divided by the sum of its gates.

    With a_t^q = W_x^q x_t + W_h^q h_{t-1} + b^q for each gate q, and W_h block diagonal::

        i_t = exp(a_t^i)    f_t = σ(a_t^f)    o_t = σ(a_t^o)    g_t = tanh(a_t^g)
        c_t = f_t ∘ c_{t-1} + i_t ∘ g_t
        n_t = f_t ∘ n_{t-1} + i_t
        h_t = o_t ∘ c_t / n_t

    c_t/n_t is a weighted mean of g_1 ... g_t. In float32 i overflows for a^i > 88.7, and h is NaN
    then. The stabilised form keeps c and n divided by exp(m)::

        m_t = max(log f_t + m_{t-1}, a_t^i)
        f'_t = exp(log f_t + m_{t-1} - m_t)    i'_t = exp(a_t^i - m_t)

    with i' and f' in place of i and f, both at most 1. In the first step n = 0, and m_1 = a_1^i
    gives n_1 = 1, so that n is never below 1. h is the same function of the inputs in both forms,
    and ∂h_T/∂x_k and ∂h_T/∂h_k are the same. Jacobians of the whole carry differ, because c and n
    are divided by exp(m), and m is a state.

    The carry is (h, c, n, m), or (h, c, n) without the stabiliser. ``gates`` gives i' and f', or i
    and f. The parameters of each gate are W_x (hidden, input), b (hidden,), and W_h
    (heads, d, d) with d = hidden_size / num_heads: the blocks on the diagonal. g is the paper's z.
    The authors' code initialises W_h at zero and b^f between 5 and -7. The layer's convolution,
    norm and projections are not part of the cell. No library among Flax, PyTorch and Keras has it.

    Args:
      num_heads: Number of blocks of W_h.
      stabilised: Whether the stabilised form is computed.
      forget_gate: ``sigmoid``, or ``exp`` for f_t = exp(a_t^f).
      forget_bias: Initial value of b^f; the other biases are initialised at zero.
      recurrent_init: Initialiser of each block of each gate's W_h, separately.
      input_init: Initialiser of each gate's W_x.

    Raises:
      TypeError: If stabilised is not True or False.
      ValueError: If num_heads does not divide hidden_size, or forget_gate is unknown.

    Source: Beck et al. 2024, arXiv:2405.04517, eq. 8 to 17.
    """
    size = head_size(input_size, hidden_size, num_heads)
    log_forget = log_forget_gate(stabilised, forget_gate)
    init_head = init_gates(
        "ifgo",
        input_size,
        size,
        recurrent_init=recurrent_init,
        input_init=input_init,
        biases={"f": forget_bias},
    )

    def init(key: Key) -> Params:
        heads = jax.vmap(init_head)(split_key(key, num_heads))
        return {gate: _joined(leaves) for gate, leaves in heads.items()}

    def gates_and_m(params: Params, carry: Any, x: Array) -> tuple[Gates, Gates]:
        h = carry.h.reshape(num_heads, size)
        i, f, g, o = (
            params[q]["W_x"] @ x + multiply(params[q]["W_h"], h).ravel() + params[q]["b"]
            for q in "ifgo"
        )
        i, f, m = exponential_gates(i, log_forget(f), carry, is_empty=carry.n == 0)
        return {"i": i, "f": f, "g": jnp.tanh(g), "o": jax.nn.sigmoid(o)}, m

    def step(params: Params, carry: Any, x: Array) -> tuple[Any, Array]:
        gates, m = gates_and_m(params, carry, x)
        i, f, g, o = gates.values()
        c, n = f * carry.c + i * g, f * carry.n + i
        h = o * c / n
        return carry._replace(h=h, c=c, n=n, **m), h

    def initial_carry() -> SLSTMCarry | StabilisedSLSTMCarry:
        states = jnp.zeros((4, hidden_size))
        return StabilisedSLSTMCarry(*states) if stabilised else SLSTMCarry(*states[:3])

    return Cell(
        init=init,
        step=step,
        initial_carry=initial_carry,
        hidden=lambda carry: carry.h,
        gates=lambda params, carry, x: gates_and_m(params, carry, x)[0],
    )


def _joined(gate: Params) -> Params:
    """Joins the W_x and b of the heads to those of all units. W_h stays the blocks of a matrix."""
    W_x = gate["W_x"]
    return {"W_x": jnp.concatenate(W_x), "W_h": gate["W_h"], "b": gate["b"].ravel()}


def log_forget_gate(stabilised: bool, forget_gate: str) -> Callable[[Array], Array]:
    """Checks the options of both cells, and returns the logarithm of the forget gate.

    Raises:
      TypeError: If stabilised is not True or False.
      ValueError: If the forget gate is unknown.
    """
    check_flag("stabilised", stabilised)
    check_name("forget gate", forget_gate, _LOG_FORGET_GATES)
    return _LOG_FORGET_GATES[forget_gate]


def exponential_gates(
    log_i: Array, log_f: Array, carry: Any, *, is_empty: Array | bool = False
) -> tuple[Array, Array, Gates]:
    """Computes i and f; of a carry with a stabiliser i' and f', and the new m.

    Where the state is_empty, a sum of nothing, m is log i: its old value has no meaning there.
    """
    if not hasattr(carry, "m"):
        return jnp.exp(log_i), jnp.exp(log_f), {}
    m = jnp.where(is_empty, log_i, jnp.maximum(log_f + carry.m, log_i))
    # The exponent of f' is at most 0 unless the state is empty. It is then limited, because inf
    # times the state, which is 0, would be NaN.
    return jnp.exp(log_i - m), jnp.exp(jnp.minimum(log_f + carry.m - m, 80)), {"m": m}
