"""optax's optimisers by name, with an open learning rate so that it can be swept.

With g the gradient of an update and η the learning rate, each in the form of its paper::

    rmsprop   v <- d v + (1 - d) g²    θ <- θ - η g / (√v + ε)           ε = 1e-8, d = 0.9
    adam      m, v: averages of g, g², each over 1 - its decay^t    θ <- θ - η m / (√v + ε)
    sgd       u <- μ u + g             θ <- θ - η u                      μ: momentum, 0

PyTorch computes the same three. optax's own default for RMSprop is √(v + ε), which hardly moves an
entry whose gradient is below √ε = 1e-4; ``rmsprop(eps_in_sqrt=True)`` gives it, and Lasagne and
Keras compute it too. For a constant η this momentum is that of Sutskever et al. 2013, where η
multiplies g inside u. Lasagne's Adam adds ε to √v before its correction.

Source: Tieleman & Hinton 2012, lecture 6.5 (RMSprop, there without ε); Kingma & Ba 2015,
arXiv:1412.6980, algorithm 1 (Adam); Sutskever, Martens, Dahl, Hinton 2013, ICML (momentum).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradflow.checks import check_number
from gradflow.spec import check_name, check_options, parse_spec

rmsprop = partial(optax.rmsprop, eps_in_sqrt=False)
"""RMSprop with ε outside of the square root; the arguments are those of `optax.rmsprop`."""

OPTIMISERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adabelief": optax.adabelief,
    "adagrad": optax.adagrad,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "amsgrad": optax.amsgrad,
    "lion": optax.lion,
    "nadam": optax.nadam,
    "radam": optax.radam,
    "rmsprop": rmsprop,
    "sgd": optax.sgd,
}


class Optimiser(NamedTuple):
    """An optimiser without its learning rate.

    Attributes:
      make: learning rate -> optax transformation. The rate may be traced, and so vmapped.
      learning_rate: The learning rate of the spec; 0.001 by default.
    """

    make: Callable[[Any], optax.GradientTransformation]
    learning_rate: float


def resolve_optimiser(spec: str) -> Optimiser:
    """Makes the optimiser of a spec: ``adam``, ``sgd(learning_rate=0.1, momentum=0.9)``.

    The options are those of optax's function of that name, as literals.

    Raises:
      ValueError: For an unknown name, an unknown option, or a value that optax rejects.
    """
    name, options = parse_spec(spec)
    check_name("optimiser", name, OPTIMISERS)
    check_options("optimiser", name, OPTIMISERS[name], options)
    learning_rate = check_learning_rate(options.pop("learning_rate", 1e-3))
    make = partial(OPTIMISERS[name], **options)
    try:
        jax.eval_shape(partial(_one_update, make), learning_rate)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Optimiser {spec!r} failed: {error}. Change its options.") from None
    return Optimiser(make, learning_rate)


def check_learning_rate(value: Any) -> float:
    """Checks a learning rate.

    Raises:
      TypeError: If it is not a number.
      ValueError: If it is not finite and above zero.
    """
    check_number("learning_rate", value, "positive", example=0.001)
    return float(value)


def _one_update(make: Callable[[Any], optax.GradientTransformation], learning_rate: Any) -> Any:
    params = {"W": jnp.zeros((2, 2))}
    transformation = make(learning_rate)
    return transformation.update(params, transformation.init(params), params)
