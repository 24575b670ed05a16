"""The convolutional LSTM and GRU, whose states are images of shape (channels, height, width)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params
from gradflow.cells.lstm import LSTMCarry
from gradflow.cells.parts import RecurrentInit, init_gates
from gradflow.checks import check_flag, check_integer, check_sizes
from gradflow.initializers import BiasSpec, InitSpec

Image = Float[Array, "_channels _height _width"]


def conv_lstm(
    input_size: int,
    hidden_size: int,
    *,
    height: int = 1,
    width: int = 1,
    kernel_size: int = 3,
    peephole: bool = False,
    forget_bias: BiasSpec = 1.0,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A convolutional LSTM (ConvLSTM): the matrix products of an LSTM become convolutions.

    h, c and the gates are images of shape (channels, height, width), x_t is a vector of size
    input_size or an image with the same number of pixels. With * the convolution, zeros beyond the
    border, and a_t^q = W_x^q * x_t + W_h^q * h_{t-1} + b^q for each gate q::

        i_t = σ(a_t^i)    f_t = σ(a_t^f)    o_t = σ(a_t^o)    g_t = tanh(a_t^g)
        c_t = f_t ∘ c_{t-1} + i_t ∘ g_t
        h_t = o_t ∘ tanh(c_t)

    Parameters are W_x (channels, input channels, kernel, kernel), W_h (channels, channels, kernel,
    kernel) and b (channels,) per gate. `lstm` with the matrices of these convolutions is the
    same function. As in all libraries the kernel is not flipped.

    Args:
      height: Height of the images. height · width must divide both sizes, and the quotients are
        the numbers of channels.
      width: Width of the images.
      kernel_size: Height and width of the kernels. An image of one pixel reads their centre alone.
      peephole: Whether p^q ∘ c is added to a_t^q, with c_{t-1} for i and f and c_t for o, as in the
        paper. p^q has the shape of c and is initialised at zero. Keras has no peepholes.
      forget_bias: Initial value of b^f, by default 1, as in Keras. The other biases are
        initialised at zero. ``"chrono(max_lag=100)"`` also sets b^i = -b^f.
      recurrent_init: Initialiser of each gate's W_h separately, as a matrix (channels, channels ·
        kernel²): orthogonal, as in Keras, which initialises one such matrix for all gates.
      input_init: Initialiser of each gate's W_x, as a matrix (channels, input channels · kernel²).

    Raises:
      TypeError: If a size is not an integer, or peephole is neither True nor False.
      ValueError: If a size is not positive, or height · width does not divide both sizes.

    Source: Shi et al. 2015, arXiv:1506.04214, eq. 3.
    """
    grid = _grid(input_size, hidden_size, height, width, kernel_size)
    check_flag("peephole", peephole)
    biases = {"f": forget_bias}
    init_kernels = _init_kernels("ifgo", grid, recurrent_init, input_init, biases)

    def init(key: Key) -> Params:
        params = init_kernels(key)
        p = {"p": jnp.zeros(grid.shape)} if peephole else {}
        return {q: gate | p if q != "g" else gate for q, gate in params.items()}

    def gates_and_c(params: Params, carry: LSTMCarry, x: Array) -> tuple[dict[str, Array], Image]:
        a = {q: _affine(gate, carry.h, grid.image(x)) for q, gate in params.items()}
        i, f = (jax.nn.sigmoid(a[q] + _peep(params[q], carry.c)) for q in "if")
        g = jnp.tanh(a["g"])
        c = f * carry.c + i * g
        o = jax.nn.sigmoid(a["o"] + _peep(params["o"], c))
        return {"i": i, "f": f, "g": g, "o": o}, c

    def step(params: Params, carry: LSTMCarry, x: Array) -> tuple[LSTMCarry, Image]:
        gates, c = gates_and_c(params, carry, x)
        h = gates["o"] * jnp.tanh(c)
        return LSTMCarry(h, c), h

    return Cell(
        init,
        step,
        initial_carry=lambda: LSTMCarry(jnp.zeros(grid.shape), jnp.zeros(grid.shape)),
        hidden=lambda carry: carry.h,
        gates=lambda params, carry, x: gates_and_c(params, carry, x)[0],
    )


def conv_gru(
    input_size: int,
    hidden_size: int,
    *,
    height: int = 1,
    width: int = 1,
    kernel_size: int = 3,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A convolutional GRU (ConvGRU): the matrix products of a GRU become convolutions.

    With images and * as in `conv_lstm`, and a_t^q = W_x^q * x_t + W_h^q * h_{t-1} + b^q::

        r_t = σ(a_t^r)    z_t = σ(a_t^z)
        n_t = tanh(W_x^n * x_t + W_h^n * (r_t ∘ h_{t-1}) + b^n)
        h_t = (1 - z_t) ∘ h_{t-1} + z_t ∘ n_t

    Where z is 0 the old state is kept, as in the paper, unlike in `gru`. `gru_reset_before` with
    the matrices of these convolutions and the opposite sign of a^z is the same function. Biases
    are initialised at zero. No library among Flax, PyTorch and Keras has this cell.

    The arguments and the errors are those of `conv_lstm`.

    Source: Ballas, Yao, Pal, Courville 2016, arXiv:1511.06432, eq. 5 to 8.
    """
    grid = _grid(input_size, hidden_size, height, width, kernel_size)

    def gates(params: Params, h: Image, x: Array) -> dict[str, Array]:
        x = grid.image(x)
        r, z = (jax.nn.sigmoid(_affine(params[q], h, x)) for q in "rz")
        return {"r": r, "z": z, "n": jnp.tanh(_affine(params["n"], r * h, x))}

    def step(params: Params, h: Image, x: Array) -> tuple[Image, Image]:
        _, z, n = gates(params, h, x).values()
        h = (1 - z) * h + z * n
        return h, h

    return Cell(
        _init_kernels("rzn", grid, recurrent_init, input_init, {}),
        step,
        initial_carry=lambda: jnp.zeros(grid.shape),
        hidden=lambda h: h,
        gates=gates,
    )


class _Grid(NamedTuple):
    """The channels of the input and of the state, and the size of images and kernels."""

    input_channels: int
    channels: int
    height: int
    width: int
    kernel_size: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    def image(self, x: Array) -> Image:
        return x.reshape(self.input_channels, self.height, self.width)


def _grid(input_size: int, hidden_size: int, height: int, width: int, kernel_size: int) -> _Grid:
    check_sizes(input_size, hidden_size)
    for name, size in {"height": height, "width": width, "kernel_size": kernel_size}.items():
        check_integer(name, size, 1)
    pixels = height * width
    if input_size % pixels or hidden_size % pixels:
        raise ValueError(
            f"Expected input_size and hidden_size to be multiples of height · width = {pixels}, "
            f"got {input_size} and {hidden_size}. Set each to its number of channels times "
            f"{pixels}."
        )
    return _Grid(input_size // pixels, hidden_size // pixels, height, width, kernel_size)


def _init_kernels(
    gates: str,
    grid: _Grid,
    recurrent_init: RecurrentInit,
    input_init: InitSpec,
    biases: dict[str, BiasSpec],
) -> Callable[[Key], Params]:
    """Makes the init function of the kernels, initialised as matrices that multiply a patch."""
    area = grid.kernel_size**2
    init_flat = init_gates(
        gates,
        grid.input_channels * area,
        grid.channels,
        recurrent_init=recurrent_init,
        input_init=input_init,
        biases=biases,
        recurrent_size=grid.channels * area,
    )

    def as_kernel(leaf: Array) -> Array:
        shape = (grid.channels, -1, grid.kernel_size, grid.kernel_size)
        return leaf.reshape(shape) if leaf.ndim == 2 else leaf

    return lambda key: jax.tree.map(as_kernel, init_flat(key))


def _affine(gate: Params, h: Image, x: Image) -> Image:
    bias = gate["b"][:, None, None]
    return _convolve(gate["W_x"], x) + _convolve(gate["W_h"], h) + bias


def _convolve(kernel: Float[Array, "o i k k"], image: Image) -> Image:
    return jax.lax.conv(image[None], kernel, window_strides=(1, 1), padding="SAME")[0]


def _peep(gate: Params, c: Image) -> Array | float:
    return gate["p"] * c if "p" in gate else 0.0
