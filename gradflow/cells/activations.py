"""Elementwise activations by name."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradflow.checks import check_number
from gradflow.spec import check_name

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    name: getattr(jax.nn, name)
    for name in (
        "celu elu gelu hard_sigmoid hard_silu hard_swish hard_tanh identity leaky_relu "
        "log_sigmoid mish relu relu6 selu sigmoid silu soft_sign softplus sparse_plus "
        "squareplus swish tanh"
    ).split()
    if hasattr(jax.nn, name)
} | {
    "hard_sigmoid_fifth": lambda x: jnp.clip(x / 5 + 0.5, 0, 1),
    "identity": lambda x: x,
    "tanh": jnp.tanh,
}
"""Those of `jax.nn`, the identity of a linear network, and the hard sigmoid of slope 1/5.

Keras 2, Theano and ONNX have the slope 1/5; Keras 3, PyTorch and `jax.nn` have 1/6.
"""


def resolve_activation(name: str) -> Callable[[Array], Array]:
    """Returns the elementwise activation of that name.

    Raises:
      ValueError: For an unknown name.
    """
    check_name("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


def clipped(name: str, clip: float | None = None) -> Callable[[Array], Array]:
    """Returns x -> φ(min(max(x, -clip), clip)) for the activation φ of that name; φ without a clip.

    Raises:
      TypeError: If the clip is not a number.
      ValueError: For an unknown name, or a clip that is not positive.
    """
    phi = resolve_activation(name)
    if clip is None:
        return phi
    check_number("clip", clip, "positive", example=3.0)
    return lambda x: phi(jnp.clip(x, -clip, clip))
