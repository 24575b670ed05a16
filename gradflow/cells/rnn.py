"""The vanilla RNN with any activation, and the identity RNN."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Key, Params
from gradflow.cells.activations import clipped
from gradflow.cells.parts import RecurrentInit, affine, init_gates
from gradflow.checks import check_flag, check_number
from gradflow.initializers import InitSpec, identity


def rnn(
    input_size: int,
    hidden_size: int,
    *,
    activation: str = "tanh",
    residual: bool = False,
    clip: float | None = None,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A vanilla RNN: h_t = φ(W_x x_t + W_h h_{t-1} + b), with φ the activation.

    With a_t the argument of φ, the step Jacobian is J_t = diag(φ'(a_t)) W_h. The parameters W_x,
    W_h and b are at the top level; b is initialised at zero. PyTorch's ``RNN`` is the same function
    with two biases that are added, and initialises all parameters from U(±1/√hidden). Flax's
    ``SimpleCell`` is the same function with one bias. Haiku's ``VanillaRNN`` uses ReLU.

    Args:
      activation: ``tanh``, ``relu``, ``identity`` or another elementwise function of `jax.nn`.
      residual: Whether h_{t-1} is added inside the activation, φ(W_x x_t + W_h h_{t-1} + b +
        h_{t-1}), as Flax Linen's ``residual`` does; then J_t = diag(φ'(a_t)) (W_h + I).
      clip: Largest absolute value of the argument of φ, as in ONNX; by default there is none.
      recurrent_init: Initialiser of W_h: orthogonal, as in Flax and Keras.
      input_init: Initialiser of W_x: LeCun's, as in Flax; Keras uses Glorot's.

    Raises:
      TypeError: If residual is neither True nor False, or clip is not a number.
      ValueError: For an unknown activation, or a clip that is not positive.

    Source: Elman 1990, doi:10.1207/s15516709cog1402_1; Hu et al. 2018, arXiv:1801.06105
    (residual).
    """
    check_flag("residual", residual)
    phi = clipped(activation, clip)
    init_gate = init_gates(
        ["rnn"],
        input_size,
        hidden_size,
        recurrent_init=recurrent_init,
        input_init=input_init,
    )

    def init(key: Key) -> Params:
        return init_gate(key)["rnn"]

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        a = affine(params, h, x)
        h = phi(a + h if residual else a)
        return h, h

    return Cell(init, step, initial_carry=lambda: jnp.zeros(hidden_size))


def irnn(
    input_size: int,
    hidden_size: int,
    *,
    scale: float = 1.0,
    input_init: InitSpec = "normal(std=0.001)",
) -> Cell:
    """An identity RNN (IRNN): h_t = relu(W_x x_t + W_h h_{t-1} + b) with W_h = scale · I initially.

    At initialisation J_t = scale · I while all units are active. The function and the parameters
    W_x, W_h and b are those of `rnn`; b is initialised at zero.

    Args:
      scale: Factor of the identity, dimensionless. The paper uses 1.
      input_init: Initialiser of W_x: N(0, 0.001²), as in the paper. Some reproductions use
        Glorot's.

    Raises:
      ValueError: If scale is not positive.

    Source: Le, Jaitly, Hinton 2015, arXiv:1504.00941.
    """
    check_number("scale", scale, "positive", example=1.0)
    return rnn(
        input_size,
        hidden_size,
        activation="relu",
        recurrent_init=identity(scale),
        input_init=input_init,
    )


def switched_rnn(activations: Sequence[str], input_size: int, hidden_size: int) -> Cell:
    """A vanilla RNN whose activation is selected by the parameter ``phi``, an index.

    The parameters are ``{"phi": (), "net": those of rnn}``. One compiled program can therefore run
    networks with different activations in one batch. The gradient with respect to phi is zero, so
    that an optimiser does not change it.

    Args:
      activations: Names of activations, as `rnn` takes them.
      input_size: Size of x.
      hidden_size: Size of h.

    Raises:
      ValueError: For an unknown name.
    """
    phis = [clipped(name) for name in activations]
    plain = rnn(input_size, hidden_size)

    def init(key: Key) -> Params:
        net = plain.init(key)
        return {"phi": jnp.zeros((), net["b"].dtype), "net": net}

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        index = jax.lax.stop_gradient(params["phi"]).astype(int)
        h = jax.lax.switch(index, phis, affine(params["net"], h, x))
        return h, h

    return plain._replace(init=init, step=step)


def with_each_activation(params: Params, count: int) -> Params:
    """Repeats the parameters of runs of a `switched_rnn` for each of ``count`` activations.

    The leading axes of the runs become one axis: all runs of the first activation come first.
    """
    axes = params["phi"].ndim
    index = jnp.arange(count, dtype=params["phi"].dtype).reshape(-1, *(1 for _ in range(axes)))
    spread = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), params)
    spread = spread | {"phi": spread["phi"] + index}
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[1 + axes :]), spread)
