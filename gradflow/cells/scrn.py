"""The structurally constrained recurrent network (SCRN): a slow context and a vanilla RNN."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params, split_key
from gradflow.cells.parts import init_matrices
from gradflow.checks import check_integer, check_number, check_sizes
from gradflow.initializers import InitSpec, resolve_initializer


class SCRNCarry(NamedTuple):
    """The two states of an SCRN: the hidden units h and the context units s."""

    h: Float[Array, " hidden"]
    s: Float[Array, " context"]


def scrn(
    input_size: int,
    hidden_size: int,
    *,
    alpha: float = 0.95,
    context_size: int | None = None,
    recurrent_init: InitSpec = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """An SCRN: linear leaky context units, and hidden units that receive them as input.

    ::

        s_t = (1 - alpha) W_x^s x_t + alpha s_{t-1}
        h_t = σ(W_s^h s_t + W_x^h x_t + W_h^h h_{t-1})

    The paper's A, B, P and R are W_x^h, W_x^s, W_s^h and W_h^h here. There are no biases.
    ∂s_t/∂s_k is exactly alpha^(t-k) · I. h is the hidden state of the cell. The paper's output
    layer also reads s; to measure it, select the block of s by its name. No library among Flax,
    PyTorch and Keras has this cell.

    Args:
      alpha: The fraction of the context that is kept at each step, in [0, 1), dimensionless. 0.95
        in the paper.
      context_size: Number of context units, by default hidden_size. The paper uses fewer.
      recurrent_init: Initialiser of W_h^h.
      input_init: Initialiser of W_x^s, W_x^h and W_s^h, separately.

    Raises:
      ValueError: If alpha is not in [0, 1), or context_size is not positive.

    Source: Mikolov et al. 2014, arXiv:1412.7753.
    """
    check_sizes(input_size, hidden_size)
    context = hidden_size if context_size is None else context_size
    check_integer("context_size", context, 1)
    # At 1 the context would not depend on the input.
    check_number("alpha", alpha, "at least 0 and below 1", example=0.95)
    init_h, init_x = resolve_initializer(recurrent_init), resolve_initializer(input_init)

    def init(key: Key) -> Params:
        key_s, key_h = split_key(key)
        to_hidden = {
            "W_x": (init_x, (hidden_size, input_size)),
            "W_h": (init_h, (hidden_size, hidden_size)),
            "W_s": (init_x, (hidden_size, context)),
        }
        return {
            "s": init_matrices(key_s, {"W_x": (init_x, (context, input_size))}),
            "h": init_matrices(key_h, to_hidden),
        }

    def step(params: Params, carry: SCRNCarry, x: Array) -> tuple[SCRNCarry, Array]:
        s = (1 - alpha) * (params["s"]["W_x"] @ x) + alpha * carry.s
        p = params["h"]
        h = jax.nn.sigmoid(p["W_s"] @ s + p["W_x"] @ x + p["W_h"] @ carry.h)
        return SCRNCarry(h, s), h

    return Cell(
        init=init,
        step=step,
        initial_carry=lambda: SCRNCarry(jnp.zeros(hidden_size), jnp.zeros(context)),
        hidden=lambda carry: carry.h,
    )
