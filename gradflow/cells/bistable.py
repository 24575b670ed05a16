"""Bistable recurrent cells, in which a unit keeps one of two values without a gate that is open."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Key, Params, split_key
from gradflow.cells.parts import RecurrentInit, affine, init_gates, init_matrices
from gradflow.checks import check_number, check_sizes
from gradflow.initializers import InitSpec, resolve_initializer


def brc(
    input_size: int,
    hidden_size: int,
    *,
    recurrent_scale: float = 1.0,
    input_init: InitSpec = "lecun",
) -> Cell:
    """A bistable recurrent cell (BRC): each unit reads its own past only.

    With all operations elementwise, and no connection between the units::

        a_t = 1 + tanh(W_x^a x_t + w_h^a ∘ h_{t-1} + b^a)
        c_t = σ(W_x^c x_t + w_h^c ∘ h_{t-1} + b^c)
        h_t = c_t ∘ h_{t-1} + (1 - c_t) ∘ tanh(W_x^n x_t + a_t ∘ h_{t-1})

    Without input a unit has one stable state, 0, where a < 1, and two stable states of opposite
    sign where a > 1. It then keeps its sign for any number of steps, for any c < 1, although the
    derivative of the state vanishes there. The step Jacobian is diagonal. a lies between 0 and 2:
    give ``ranges={"a": (0, 2)}`` to `gradflow.flow.saturation`.

    Parameters are W_x (hidden, input), and for a and c the vectors w_h and b (hidden,). The biases
    are those of the authors' code, initialised at zero; the paper has none. No library among Flax,
    PyTorch and Keras has this cell.

    Args:
      recurrent_scale: Initial value of all w_h, dimensionless; 1 in the authors' code.
      input_init: Initialiser of each W_x: LeCun's; the authors' code uses Glorot's.

    Raises:
      TypeError: If recurrent_scale is not a number.
      ValueError: If it is not finite.

    Source: Vecoven, Ernst, Drion 2020, arXiv:2006.05252.
    """
    check_sizes(input_size, hidden_size)
    check_number("recurrent_scale", recurrent_scale, "finite", example=1.0)
    init_x = resolve_initializer(input_init)

    def init(key: Key) -> Params:
        W_x = init_matrices(key, {q: (init_x, (hidden_size, input_size)) for q in "acn"})
        w_h, b = jnp.full(hidden_size, float(recurrent_scale)), jnp.zeros(hidden_size)
        gates = {q: {"W_x": W_x[q], "w_h": w_h, "b": b} for q in "ac"}
        return gates | {"n": {"W_x": W_x["n"]}}

    def own_past(gate: Params, h: Array, x: Array) -> Array:
        return gate["W_x"] @ x + gate["w_h"] * h + gate["b"]

    return _cell(init, own_past, hidden_size)


def nbrc(
    input_size: int,
    hidden_size: int,
    *,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A recurrently neuromodulated BRC (nBRC): the units set each other's bistability.

    ::

        a_t = 1 + tanh(W_x^a x_t + W_h^a h_{t-1} + b^a)
        c_t = σ(W_x^c x_t + W_h^c h_{t-1} + b^c)
        h_t = c_t ∘ h_{t-1} + (1 - c_t) ∘ tanh(W_x^n x_t + a_t ∘ h_{t-1})

    It is the `brc` with matrices W_h in place of the vectors w_h; the candidate still reads each
    unit's own past. The biases are initialised at zero. No library among Flax, PyTorch and Keras
    has this cell.

    Args:
      recurrent_init: Initialiser of W_h^a and W_h^c, separately; the authors' code uses Glorot's.
      input_init: Initialiser of each W_x: LeCun's; the authors' code uses Glorot's.

    Source: Vecoven, Ernst, Drion 2020, arXiv:2006.05252.
    """
    init_shared = init_gates(
        "ac", input_size, hidden_size, recurrent_init=recurrent_init, input_init=input_init
    )
    init_x = resolve_initializer(input_init)

    def init(key: Key) -> Params:
        key_gates, key_n = split_key(key)
        n = init_matrices(key_n, {"W_x": (init_x, (hidden_size, input_size))})
        return init_shared(key_gates) | {"n": n}

    return _cell(init, affine, hidden_size)


def _cell(
    init: Callable[[Key], Params],
    argument: Callable[[Params, Array, Array], Array],
    hidden_size: int,
) -> Cell:
    """Makes the cell from the function that computes the argument of a gate."""

    def gates(params: Params, h: Array, x: Array) -> dict[str, Array]:
        a = 1 + jnp.tanh(argument(params["a"], h, x))
        c = jax.nn.sigmoid(argument(params["c"], h, x))
        return {"a": a, "c": c, "n": jnp.tanh(params["n"]["W_x"] @ x + a * h)}

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        _, c, n = gates(params, h, x).values()
        h = c * h + (1 - c) * n
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size), gates=gates)
