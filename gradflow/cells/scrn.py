"""The structurally constrained recurrent network: a slow context beside a vanilla RNN."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params
from gradflow.cells.checks import check_sizes
from gradflow.cells.parts import draw_matrices
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
    """The SCRN: context units that only leak, and hidden units that see them.

    ::

        s_t = (1 - alpha) W_x^s x_t + alpha s_{t-1}
        h_t = σ(W_s^h s_t + W_x^h x_t + W_h^h h_{t-1})

    The paper's A, B, P, R are W_x^h, W_x^s, W_s^h, W_h^h here; there are no biases. ∂s_t/∂s_k is
    exactly alpha^(t-k) · I. The cell's hidden state is h; the paper's output layer reads s as
    well, which a reader of h sees only through W_s^h, so ask for the block of s by its name.

    Args:
      alpha: What the context keeps at each step, in [0, 1); dimensionless. 0.95 in the paper.
      context_size: Number of context units; by default as many as hidden units; the paper has
        fewer.
      recurrent_init: Of W_h^h.
      input_init: Of W_x^s, W_x^h and W_s^h, each by itself.

    Raises:
      ValueError: If alpha is not in [0, 1), or the context size is not positive.

    Source: Mikolov et al. 2014, arXiv:1412.7753.
    """
    check_sizes(input_size, hidden_size)
    context = hidden_size if context_size is None else context_size
    _check_options(alpha, context)
    init_h, init_x = resolve_initializer(recurrent_init), resolve_initializer(input_init)

    def init(key: Key) -> Params:
        key_s, key_h = jax.random.split(key)
        to_hidden = {
            "W_x": (init_x, (hidden_size, input_size)),
            "W_h": (init_h, (hidden_size, hidden_size)),
            "W_s": (init_x, (hidden_size, context)),
        }
        return {
            "s": draw_matrices(key_s, {"W_x": (init_x, (context, input_size))}),
            "h": draw_matrices(key_h, to_hidden),
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


def _check_options(alpha: float, context_size: int) -> None:
    if not 0 <= alpha < 1:
        raise ValueError(
            f"alpha is expected in [0, 1), got {alpha}: the paper takes 0.95, and at 1 the "
            "context would never see the input"
        )
    if context_size < 1:
        raise ValueError(
            f"context_size is expected to be at least 1, got {context_size}: without a context "
            "take the cell rnn(activation='sigmoid')"
        )
