"""Cells with one gate and a candidate that is a map of the input alone: STAR and LightRU."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Key, Params, split_key
from gradflow.cells.parts import affine, init_gates, init_matrices
from gradflow.initializers import BiasSpec, InitSpec, resolve_bias, resolve_initializer


def star(
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: BiasSpec = 1.0,
    recurrent_init: InitSpec = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A stackable recurrent cell (STAR): one gate, and tanh of the new state.

    ::

        k_t = σ(W_x^k x_t + W_h^k h_{t-1} + b^k)
        n_t = tanh(W_x^n x_t + b^n)
        h_t = tanh((1 - k_t) ∘ h_{t-1} + k_t ∘ n_t)

    Where k is 0 only the tanh acts on the old state, so that a state without input decays as
    1/√t and not exponentially, and its derivative as t^(-3/2). n is the paper's z. The paper's
    argument is about depth: in a stack the norm of the gradient is nearly equal from layer to
    layer. The authors' code shifts the gate of n by 1, as `janet` does; the paper does not. No
    library among Flax, PyTorch and Keras has this cell.

    Args:
      forget_bias: Initial value of -b^k; 1, as in the authors' code, where
        ``"chrono(max_lag=784)"`` is the alternative. b^n is initialised at zero.
      recurrent_init: Initialiser of W_h^k: orthogonal, as in the authors' code.
      input_init: Initialiser of W_x^k and W_x^n, separately; orthogonal in the authors' code.

    Source: Turkoglu, D'Aronco, Wegner, Schindler 2021, arXiv:1911.11033.
    """
    init_b = resolve_bias(forget_bias)
    init_shared = _init("k", input_size, hidden_size, recurrent_init, input_init)

    def init(key: Key) -> Params:
        params = init_shared(key)
        b = params["k"]["b"]
        # `_init` uses the keys that split(key) gives; fold_in gives one independent of them.
        b_k = -init_b(jax.random.fold_in(key, 2), b.shape, b.dtype)
        return {"k": params["k"] | {"b": b_k}, "n": params["n"] | {"b": jnp.zeros(hidden_size)}}

    def gates(params: Params, h: Array, x: Array) -> dict[str, Array]:
        k = jax.nn.sigmoid(affine(params["k"], h, x))
        return {"k": k, "n": jnp.tanh(params["n"]["W_x"] @ x + params["n"]["b"])}

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        k, n = gates(params, h, x).values()
        h = jnp.tanh((1 - k) * h + k * n)
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size), gates=gates)


def light_ru(
    input_size: int,
    hidden_size: int,
    *,
    recurrent_init: InitSpec = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A light recurrent unit (LightRU): a gate interpolates between the state and tanh(W x).

    ::

        f_t = σ(W_x^f x_t + W_h^f h_{t-1} + b^f)
        n_t = tanh(W_x^n x_t)
        h_t = (1 - f_t) ∘ h_{t-1} + f_t ∘ n_t

    Where f is 0 the old state is kept, although f is called the forget gate. It is a `minimal_rnn`
    whose gate reads x in place of n, and a `star` without the outer tanh. b^f is initialised at
    zero. No library among Flax, PyTorch and Keras has this cell.

    Args:
      recurrent_init: Initialiser of W_h^f.
      input_init: Initialiser of W_x^f and W_x^n, separately.

    Source: Ye et al. 2024, doi:10.3390/electronics13163204.
    """
    init = _init("f", input_size, hidden_size, recurrent_init, input_init)

    def gates(params: Params, h: Array, x: Array) -> dict[str, Array]:
        f = jax.nn.sigmoid(affine(params["f"], h, x))
        return {"f": f, "n": jnp.tanh(params["n"]["W_x"] @ x)}

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        f, n = gates(params, h, x).values()
        h = (1 - f) * h + f * n
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size), gates=gates)


def _init(
    gate: str,
    input_size: int,
    hidden_size: int,
    recurrent_init: InitSpec,
    input_init: InitSpec,
) -> Callable[[Key], Params]:
    """Makes the init function of a gate with W_x, W_h and b, and of a candidate n with W_x."""
    init_gate = init_gates(
        gate, input_size, hidden_size, recurrent_init=recurrent_init, input_init=input_init
    )
    init_x = resolve_initializer(input_init)

    def init(key: Key) -> Params:
        key_gate, key_n = split_key(key)
        n = init_matrices(key_n, {"W_x": (init_x, (hidden_size, input_size))})
        return init_gate(key_gate) | {"n": n}

    return init
