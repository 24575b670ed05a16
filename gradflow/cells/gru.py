"""The gated recurrent unit (GRU), in its two common forms."""

import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Key, Params
from gradflow.cells.activations import clipped
from gradflow.cells.parts import RecurrentInit, affine, init_gates
from gradflow.initializers import BiasSpec, InitSpec


def gru(
    input_size: int,
    hidden_size: int,
    *,
    update_bias: BiasSpec = 0.0,
    activation: str = "tanh",
    gate_activation: str = "sigmoid",
    clip: float | None = None,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A GRU that applies the reset gate after the matrix product: the form of most libraries.

    With a_t^q = W_x^q x_t + W_h^q h_{t-1} + b^q for the gates q = r, z::

        r_t = σ(a_t^r)    z_t = σ(a_t^z)
        n_t = tanh(W_x^n x_t + b^n + r_t ∘ (W_h^n h_{t-1} + b_h^n))
        h_t = (1 - z_t) ∘ n_t + z_t ∘ h_{t-1}

    Where z is 1 the old state is kept. Flax Linen, PyTorch, cuDNN and Keras
    (``reset_after=True``) compute this function; Flax NNX has no b_h. The other biases are
    initialised at zero, as in Flax and Keras, whose b^z is 0 as well; PyTorch initialises all
    parameters from U(±1/√hidden).

    Args:
      update_bias: Initial value of b^z, which keeps the old state where it is positive, as the
        forget bias of an LSTM does. ``"chrono(max_lag=100)"`` samples it for memories of up to 100
        steps: z is then f, and 1 - z the i of an LSTM.
      activation: The function in place of tanh.
      gate_activation: The function in place of σ.
      clip: Largest absolute value of the arguments of these functions, as in ONNX; by default
        there is none.
      recurrent_init: Initialiser of each gate's W_h separately, as in Flax Linen. Keras
        initialises one orthogonal matrix for all gates.
      input_init: Initialiser of each gate's W_x: LeCun's, as in Flax; Keras uses Glorot's.

    Source: Cho et al. 2014, arXiv:1406.1078, in the variant of its version 1 that cuDNN adopted;
    Tallec & Ollivier 2018, arXiv:1804.11188, section 2 (chrono).
    """
    sigma, phi = clipped(gate_activation, clip), clipped(activation, clip)

    def gates(params: Params, h: Array, x: Array) -> dict[str, Array]:
        r = sigma(affine(params["r"], h, x))
        z = sigma(affine(params["z"], h, x))
        p = params["n"]
        n = phi(p["W_x"] @ x + p["b"] + r * (p["W_h"] @ h + p["b_h"]))
        return {"r": r, "z": z, "n": n}

    init_shared = init_gates(
        "rzn",
        input_size,
        hidden_size,
        recurrent_init=recurrent_init,
        input_init=input_init,
        biases={"z": update_bias},
    )

    def init(key: Key) -> Params:
        params = init_shared(key)
        return params | {"n": params["n"] | {"b_h": jnp.zeros(hidden_size)}}

    return _gru_cell(init, gates, hidden_size)


def gru_reset_before(
    input_size: int,
    hidden_size: int,
    *,
    update_bias: BiasSpec = 0.0,
    activation: str = "tanh",
    gate_activation: str = "sigmoid",
    clip: float | None = None,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A GRU that applies the reset gate before the matrix product: W_h^n multiplies r ∘ h.

    With a_t^q = W_x^q x_t + W_h^q h_{t-1} + b^q for the gates q = r, z::

        r_t = σ(a_t^r)    z_t = σ(a_t^z)
        n_t = tanh(W_x^n x_t + W_h^n (r_t ∘ h_{t-1}) + b^n)
        h_t = (1 - z_t) ∘ n_t + z_t ∘ h_{t-1}

    Keras computes this function with ``reset_after=False``, and Haiku with the opposite sign of
    a^z. The other biases are initialised at zero, as in both, whose b^z is 0 as well.

    Args:
      update_bias: Initial value of b^z, which keeps the old state where positive, as in `gru`.
      activation: The function in place of tanh.
      gate_activation: The function in place of σ.
      clip: Largest absolute value of the arguments of these functions, as in ONNX; by default
        there is none.
      recurrent_init: Initialiser of each gate's W_h separately. Keras initialises one orthogonal
        matrix for all gates, Haiku uses a truncated normal distribution.
      input_init: Initialiser of each gate's W_x: LeCun's; Keras uses Glorot's.

    Source: Cho et al. 2014, arXiv:1406.1078, eq. 5 to 8 (z = 1 keeps the old state there as well).
    """
    sigma, phi = clipped(gate_activation, clip), clipped(activation, clip)

    def gates(params: Params, h: Array, x: Array) -> dict[str, Array]:
        r = sigma(affine(params["r"], h, x))
        z = sigma(affine(params["z"], h, x))
        return {"r": r, "z": z, "n": phi(affine(params["n"], r * h, x))}

    init = init_gates(
        "rzn",
        input_size,
        hidden_size,
        recurrent_init=recurrent_init,
        input_init=input_init,
        biases={"z": update_bias},
    )
    return _gru_cell(init, gates, hidden_size)


def _gru_cell(init, gates, hidden_size: int) -> Cell:
    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        _, z, n = gates(params, h, x).values()
        h = (1 - z) * n + z * h
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size), gates=gates)
