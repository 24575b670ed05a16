"""The chaos-free network, whose state decays to zero when the input is zero."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Key, Params, split_key
from gradflow.cells.parts import RecurrentInit, affine, init_gates, init_matrices
from gradflow.initializers import BiasSpec, InitSpec, resolve_bias, resolve_initializer


def cfn(
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: BiasSpec = 1.0,
    input_bias: BiasSpec | None = None,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A chaos-free network (CFN): without input, its only attractor is the zero state.

    With a_t^q = W_x^q x_t + W_h^q h_{t-1} + b^q for the gates q = f, i::

        f_t = σ(a_t^f)    i_t = σ(a_t^i)    g_t = tanh(W_x^g x_t)
        h_t = f_t ∘ tanh(h_{t-1}) + i_t ∘ g_t

    f and i are the paper's θ and η. The candidate g has neither W_h nor a bias, so that
    |h_t| <= f_t ∘ |h_{t-1}| where x_t = 0. The paper initialises every weight from U(±0.07).
    No library among Flax, PyTorch and Keras has this cell.

    Args:
      forget_bias: Initial value of b^f; 1 in the paper.
      input_bias: Initial value of b^i. By default -1, as in the paper, or -b^f if forget_bias is
        ``"chrono(max_lag=100)"``.
      recurrent_init: Initialiser of each gate's W_h separately.
      input_init: Initialiser of each W_x separately, W_x^g included.

    Source: Laurent & von Brecht 2017, arXiv:1612.06212, eq. 1 and 2.
    """
    if input_bias is None and not resolve_bias(forget_bias).opposite_input:
        input_bias = -1.0
    init_shared = init_gates(
        "fi",
        input_size,
        hidden_size,
        recurrent_init=recurrent_init,
        input_init=input_init,
        biases={"f": forget_bias} | ({} if input_bias is None else {"i": input_bias}),
    )
    init_x = resolve_initializer(input_init)

    def init(key: Key) -> Params:
        key_gates, key_g = split_key(key)
        g = init_matrices(key_g, {"W_x": (init_x, (hidden_size, input_size))})
        return init_shared(key_gates) | {"g": g}

    def gates(params: Params, h: Array, x: Array) -> dict[str, Array]:
        f, i = (jax.nn.sigmoid(affine(params[gate], h, x)) for gate in "fi")
        return {"f": f, "i": i, "g": jnp.tanh(params["g"]["W_x"] @ x)}

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        f, i, g = gates(params, h, x).values()
        h = f * jnp.tanh(h) + i * g
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size), gates=gates)
