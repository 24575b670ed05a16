"""The recurrent highway network: several gated layers within each time step."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.cell import Cell, Key, Params, split_key
from gradflow.cells.parts import RecurrentInit, init_gates
from gradflow.checks import check_integer
from gradflow.initializers import BiasSpec, InitSpec


def rhn(
    input_size: int,
    hidden_size: int,
    *,
    depth: int = 3,
    transform_bias: BiasSpec = -2.0,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """A recurrent highway network (RHN): L coupled highway layers from one step to the next.

    With s^0 = h_{t-1}, for the layers l = 1 ... L, and x_t in the first layer only::

        n^l = tanh([W_x^n x_t if l = 1] + W_h^{n,l} s^{l-1} + b^{n,l})
        t^l = σ([W_x^t x_t if l = 1] + W_h^{t,l} s^{l-1} + b^{t,l})
        s^l = t^l ∘ n^l + (1 - t^l) ∘ s^{l-1}
        h_t = s^L

    The step Jacobian is the product of those of the layers. Where t is 0 the old state is kept.
    n and W_h are the paper's h and R. Its carry gate c is 1 - t here, as in its experiments.
    With L = 1 the cell is an `ugrnn` with the opposite gate. The parameters are a tuple over the
    layers, each with the gates ``n`` and ``t``. No library among Flax, PyTorch and Keras has this
    cell.

    Args:
      depth: The number of layers L, called recurrence depth in the paper, which goes up to 10.
      transform_bias: Initial value of each b^t; the paper uses negative values, which keep the
        state at first. b^n is initialised at zero.
      recurrent_init: Initialiser of each W_h separately.
      input_init: Initialiser of W_x^n and W_x^t, separately.

    Raises:
      TypeError: If depth is not an integer.
      ValueError: If it is not positive.

    Source: Zilly, Srivastava, Koutník, Schmidhuber 2016, arXiv:1607.03474, eq. 6 to 9.
    """
    check_integer("depth", depth, 1)
    init_layers = [
        init_gates(
            "nt",
            input_size if layer == 0 else 0,
            hidden_size,
            recurrent_init=recurrent_init,
            input_init=input_init,
            biases={"t": transform_bias},
        )
        for layer in range(depth)
    ]

    def init(key: Key) -> Params:
        keys = split_key(key, depth)
        first, *others = (init_layer(k) for init_layer, k in zip(init_layers, keys, strict=True))
        return first, *(
            {q: {"W_h": gate["W_h"], "b": gate["b"]} for q, gate in layer.items()}
            for layer in others
        )

    def layers(params: Params, s: Array, x: Array) -> tuple[Array, dict[str, Array]]:
        transforms = {}
        for number, layer in enumerate(params, start=1):
            a = {q: gate["W_h"] @ s + gate["b"] for q, gate in layer.items()}
            if number == 1:
                a = {q: a[q] + gate["W_x"] @ x for q, gate in layer.items()}
            t = jax.nn.sigmoid(a["t"])
            s = t * jnp.tanh(a["n"]) + (1 - t) * s
            transforms[f"t{number}"] = t
        return s, transforms

    def step(params: Params, h: Array, x: Array) -> tuple[Array, Array]:
        h, _ = layers(params, h, x)
        return h, h

    return Cell(
        init,
        step,
        initial_carry=lambda: jnp.zeros(hidden_size),
        gates=lambda params, h, x: layers(params, h, x)[1],
    )
