"""Cells with one gate: the minimal gated unit, the update gate RNN and the MinimalRNN."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Key, Params, split_key
from gradflow.cells.parts import RecurrentInit, affine, init_gates, init_matrices
from gradflow.checks import check_number, check_sizes
from gradflow.initializers import BiasSpec, InitSpec, resolve_initializer


def mgu(
    input_size: int,
    hidden_size: int,
    *,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A minimal gated unit (MGU): a GRU with one gate for both reset and update.

    With a_t^f = W_x^f x_t + W_h^f h_{t-1} + b^f::

        f_t = σ(a_t^f)
        n_t = tanh(W_x^n x_t + W_h^n (f_t ∘ h_{t-1}) + b^n)
        h_t = (1 - f_t) ∘ h_{t-1} + f_t ∘ n_t

    Where f is 0 the old state is kept. Biases are initialised at zero. Flax Linen's ``MGUCell`` is
    a different function: there f = 1 keeps the old state, f is applied after the product,
    f ∘ (W_h^n h + b_h), and its bias is initialised at 1.

    Args:
      recurrent_init: Initialiser of each gate's W_h separately.
      input_init: Initialiser of each gate's W_x.

    Source: Zhou, Wu, Zhang, Zhou 2016, arXiv:1603.09420.
    """

    def gates(params: Params, h: Array, x: Array) -> dict[str, Array]:
        f = jax.nn.sigmoid(affine(params["f"], h, x))
        return {"f": f, "n": jnp.tanh(affine(params["n"], f * h, x))}

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        f, n = gates(params, h, x).values()
        h = (1 - f) * h + f * n
        return h, h

    init = init_gates(
        "fn", input_size, hidden_size, recurrent_init=recurrent_init, input_init=input_init
    )
    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size), gates=gates)


def ugrnn(
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: BiasSpec = 1.0,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """An update gate RNN (UGRNN): a gate interpolates between the old state and a candidate.

    With a_t^q = W_x^q x_t + W_h^q h_{t-1} + b^q for the gates q = g, c::

        g_t = σ(a_t^g)    c_t = tanh(a_t^c)
        h_t = g_t ∘ h_{t-1} + (1 - g_t) ∘ c_t

    As in the paper, g is the gate, which keeps the old state where it is 1, and c the candidate.

    Args:
      forget_bias: Initial value of b^g. TensorFlow's ``UGRNNCell`` adds it in the step, so that
        it is not a parameter there. b^c is initialised at zero.
      recurrent_init: Initialiser of each gate's W_h separately.
      input_init: Initialiser of each gate's W_x.

    Source: Collins, Sohl-Dickstein, Sussillo 2017, arXiv:1611.09913.
    """

    def gates(params: Params, h: Array, x: Array) -> dict[str, Array]:
        g = jax.nn.sigmoid(affine(params["g"], h, x))
        return {"g": g, "c": jnp.tanh(affine(params["c"], h, x))}

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        g, c = gates(params, h, x).values()
        h = g * h + (1 - g) * c
        return h, h

    init = init_gates(
        "gc",
        input_size,
        hidden_size,
        recurrent_init=recurrent_init,
        input_init=input_init,
        biases={"g": forget_bias},
    )
    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size), gates=gates)


def minimal_rnn(
    input_size: int,
    hidden_size: int,
    *,
    update_bias: float = 0.0,
    recurrent_init: InitSpec = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A MinimalRNN: a gate interpolates between the old state and an embedding of the input.

    ::

        z_t = tanh(W_x^z x_t + b^z)
        u_t = σ(W_h^u h_{t-1} + W_z^u z_t + b^u)
        h_t = u_t ∘ h_{t-1} + (1 - u_t) ∘ z_t

    Where u is 1 the old state is kept. The embedding z does not depend on the state, so that the
    step Jacobian is diag(u_t) + diag((h_{t-1} - z_t) ∘ u_t ∘ (1 - u_t)) W_h^u. Here z has one
    layer; the paper allows any network Φ(x_t). No library among Flax, PyTorch and Keras has this
    cell.

    Args:
      update_bias: Initial value of b^u; b^z is initialised at zero.
      recurrent_init: Initialiser of W_h^u.
      input_init: Initialiser of W_x^z and of W_z^u (hidden, hidden).

    Raises:
      TypeError: If update_bias is not a number.
      ValueError: If it is not finite.

    Source: Chen 2017, arXiv:1711.06788.
    """
    check_sizes(input_size, hidden_size)
    check_number("update_bias", update_bias, "finite", example=0.0)
    init_h, init_x = resolve_initializer(recurrent_init), resolve_initializer(input_init)
    square = (hidden_size, hidden_size)

    def init(key: Key) -> Params:
        key_z, key_u = split_key(key)
        z = init_matrices(key_z, {"W_x": (init_x, (hidden_size, input_size))})
        u = init_matrices(key_u, {"W_h": (init_h, square), "W_z": (init_x, square)})
        return {
            "z": z | {"b": jnp.zeros(hidden_size)},
            "u": u | {"b": jnp.full(hidden_size, float(update_bias))},
        }

    def gates(params: Params, h: Array, x: Array) -> dict[str, Array]:
        z = jnp.tanh(params["z"]["W_x"] @ x + params["z"]["b"])
        p = params["u"]
        return {"u": jax.nn.sigmoid(p["W_h"] @ h + p["W_z"] @ z + p["b"]), "z": z}

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        u, z = gates(params, h, x).values()
        h = u * h + (1 - u) * z
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size), gates=gates)
