"""Optimisers by name: optax's, with the learning rate left open so that it can be swept."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradflow.spec import check_name, check_options, parse_spec

OPTIMISERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adabelief": optax.adabelief,
    "adagrad": optax.adagrad,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "amsgrad": optax.amsgrad,
    "lion": optax.lion,
    "nadam": optax.nadam,
    "radam": optax.radam,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
}


class Optimiser(NamedTuple):
    """An optimiser up to its learning rate.

    Attributes:
      make: learning rate -> optax transformation. The rate may be traced, and so vmapped.
      learning_rate: The rate that the spec gives; 0.001 where it gives none.
    """

    make: Callable[[Any], optax.GradientTransformation]
    learning_rate: float


def resolve_optimiser(spec: str) -> Optimiser:
    """Finds the optimiser that a spec names: ``adam``, ``sgd(learning_rate=0.1, momentum=0.9)``.

    The options are those of optax's function of that name, as literals.

    Raises:
      ValueError: For an unknown name, an option that it does not take, or a value that it
        cannot compute with.
    """
    name, options = parse_spec(spec)
    check_name("optimiser", name, OPTIMISERS)
    check_options("optimiser", name, OPTIMISERS[name], options)
    learning_rate = check_learning_rate(options.pop("learning_rate", 1e-3))
    make = partial(OPTIMISERS[name], **options)
    try:
        jax.eval_shape(partial(_one_update, make), learning_rate)
    except (TypeError, ValueError) as error:
        raise ValueError(f"optimiser {spec!r} cannot be computed with: {error}") from None
    return Optimiser(make, learning_rate)


def check_learning_rate(value: Any) -> float:
    """A learning rate as a number.

    Raises:
      ValueError: If it is not a finite number above zero.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        raise ValueError(
            f"a learning_rate above zero is expected, got {value!r}; for example 0.001"
        )
    return float(value)


def _one_update(make: Callable[[Any], optax.GradientTransformation], learning_rate: Any) -> Any:
    params = {"W": jnp.zeros((2, 2))}
    transformation = make(learning_rate)
    return transformation.update(params, transformation.init(params), params)
