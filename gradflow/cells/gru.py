"""The gated recurrent unit, in the two forms that go by that name."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Key, Params
from gradflow.cells.parts import RecurrentInit, affine, init_gates
from gradflow.initializers import InitSpec


def gru(
    input_size: int,
    hidden_size: int,
    *,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """The GRU that resets after its product, with a hidden bias of its own: the common form.

    With a_t^q = W_x^q x_t + W_h^q h_{t-1} + b^q for the gates q = r, z::

        r_t = σ(a_t^r)    z_t = σ(a_t^z)
        n_t = tanh(W_x^n x_t + b^n + r_t ∘ (W_h^n h_{t-1} + b_h^n))
        h_t = (1 - z_t) ∘ n_t + z_t ∘ h_{t-1}

    z keeps the old state. Flax Linen, PyTorch, cuDNN and Keras (``reset_after=True``) compute
    this; Flax NNX leaves b_h out. Biases start at zero, as in Flax.

    Source: Cho et al. 2014, arXiv:1406.1078, in the variant of its version 1 that cuDNN adopted.
    """

    def gates(params: Params, h: Array, x: Array) -> dict[str, Array]:
        r = jax.nn.sigmoid(affine(params["r"], h, x))
        z = jax.nn.sigmoid(affine(params["z"], h, x))
        p = params["n"]
        n = jnp.tanh(p["W_x"] @ x + p["b"] + r * (p["W_h"] @ h + p["b_h"]))
        return {"r": r, "z": z, "n": n}

    init_shared = init_gates(
        "rzn", input_size, hidden_size, recurrent_init=recurrent_init, input_init=input_init
    )

    def init(key: Key) -> Params:
        params = init_shared(key)
        return params | {"n": params["n"] | {"b_h": jnp.zeros(hidden_size)}}

    return _gru_cell(init, gates, hidden_size)


def gru_reset_before(
    input_size: int,
    hidden_size: int,
    *,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """The GRU that resets before its product: r ∘ h goes into the candidate's matrix.

    With a_t^q = W_x^q x_t + W_h^q h_{t-1} + b^q for the gates q = r, z::

        r_t = σ(a_t^r)    z_t = σ(a_t^z)
        n_t = tanh(W_x^n x_t + W_h^n (r_t ∘ h_{t-1}) + b^n)
        h_t = (1 - z_t) ∘ n_t + z_t ∘ h_{t-1}

    Keras computes this with ``reset_after=False``; Haiku too, with the opposite sign of a^z.

    Source: Cho et al. 2014, arXiv:1406.1078, eq. 5 to 8 (there z keeps the old state as well).
    """

    def gates(params: Params, h: Array, x: Array) -> dict[str, Array]:
        r = jax.nn.sigmoid(affine(params["r"], h, x))
        z = jax.nn.sigmoid(affine(params["z"], h, x))
        return {"r": r, "z": z, "n": jnp.tanh(affine(params["n"], r * h, x))}

    init = init_gates(
        "rzn", input_size, hidden_size, recurrent_init=recurrent_init, input_init=input_init
    )
    return _gru_cell(init, gates, hidden_size)


def _gru_cell(init, gates, hidden_size: int) -> Cell:
    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        _, z, n = gates(params, h, x).values()
        h = (1 - z) * n + z * h
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size), gates=gates)
