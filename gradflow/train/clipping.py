"""Clipping of gradients by name, each a small function over optax."""

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from gradflow.cell import Cell, Params
from gradflow.checks import check_number
from gradflow.spec import make_from_spec, parse_spec
from gradflow.train.adjoint_clipping import AdjointEffect, adjoint_effect, count_clipped
from gradflow.train.average_clipping import clip_by_average
from gradflow.train.clip_record import ClipStats, clip_stats, recorded

__all__ = [
    "CLIPPINGS",
    "AdjointEffect",
    "ClipStats",
    "Clipping",
    "adjoint_effect",
    "check_thresholds",
    "clip_stats",
    "resolve_clipping",
]


class Clipping(NamedTuple):
    """A clipping of the gradient or of the adjoints, as a function of its threshold.

    Attributes:
      make: threshold -> transformation of the gradient, which goes before the optimiser in an
        `optax.chain`. The threshold may be traced, and so vmapped.
      threshold: The threshold of the spec, or its ``clipping``, ``factor`` or ``size``; infinity
        for ``none``.
      wrap: (cell, threshold) -> the cell with clipped adjoints, with a count among its parameters
        (`gradflow.train.adjoint_clipping.Counted`); None if the adjoints are not clipped.
    """

    make: Callable[[Any], optax.GradientTransformation]
    threshold: float
    wrap: Callable[[Cell, Any], Cell] | None = None

    @property
    def transform(self) -> optax.GradientTransformation:
        """The transformation of the gradient at the threshold of the spec."""
        return self.make(self.threshold)


def none() -> Clipping:
    """Does not change the gradient, and records its norm."""
    return Clipping(lambda threshold: recorded(optax.identity()), math.inf)


def global_norm(*, threshold: float = 1.0) -> Clipping:
    """g <- g · min(1, threshold / ‖g‖), with the norm of all parameters together.

    Source: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, algorithm 1.
    """
    check_number("threshold", threshold, "positive", example=1.0)
    return _on_gradient(optax.clip_by_global_norm, threshold)


def per_leaf(*, threshold: float = 1.0) -> Clipping:
    """g_i <- g_i · min(1, threshold / ‖g_i‖), for each array of parameters on its own."""
    check_number("threshold", threshold, "positive", example=1.0)

    def make(threshold: Any) -> optax.GradientTransformation:
        clip = optax.clip_by_global_norm(threshold)
        return _leaf_by_leaf(lambda leaf: clip)

    return _on_gradient(make, threshold)


def value(*, threshold: float = 1.0) -> Clipping:
    """Clips each entry to [-threshold, threshold], which changes the direction.

    Source: Mikolov 2012, "Statistical language models based on neural networks", thesis.
    """
    check_number("threshold", threshold, "positive", example=1.0)
    return _on_gradient(optax.clip, threshold)


def agc(*, clipping: float = 0.01) -> Clipping:
    """Adaptive clipping: bounds the gradient of a unit's weights by a fraction of their norm.

    With W_i the row of weights into unit i, and a bias vector as a whole::

        g_i <- g_i · min(1, clipping · max(‖W_i‖, 0.001) / ‖g_i‖)

    The update needs the parameters.

    Source: Brock, De, Smith, Simonyan 2021, arXiv:2102.06171, eq. 3.
    """
    check_number("clipping", clipping, "positive", example=0.01)

    def make(clipping: Any) -> optax.GradientTransformation:
        # optax expects units along the last axis; in W_x @ x they are along the first.
        matrices = optax.adaptive_grad_clip(clipping, axis=1)
        vectors = optax.adaptive_grad_clip(clipping)
        return _leaf_by_leaf(lambda leaf: matrices if leaf.ndim == 2 else vectors)

    return _on_gradient(make, clipping)


def normalise(*, size: float = 1.0) -> Clipping:
    """g <- size · g / ‖g‖: keeps only the direction. A zero gradient stays zero."""
    check_number("size", size, "positive", example=1.0)
    smallest = float(jnp.finfo(jnp.float32).tiny)
    return _on_gradient(partial(optax.normalize_by_update_norm, eps=smallest), size)


def pascanu(*, factor: float = 1.0) -> Clipping:
    """Clips the global norm at ``factor`` times the average norm so far.

    The paper recommends a threshold of half to ten times the average norm over many updates. Here
    the average is the mean over the updates before this one, and the first gradient is not clipped.
    A norm enters the mean as at most ten times the mean before it, so that one explosion does not
    lift the threshold out of reach.

    Source: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, section 3.2.
    """
    check_number("factor", factor, "between 0.5 and 10", example=1.0)
    return _on_gradient(clip_by_average, factor)


def adjoint(*, threshold: float = 1.0) -> Clipping:
    """Clips ∂L/∂s_t at every step of the backward pass, sequence by sequence.

    See `gradflow.train.adjoint_clipping.clip_adjoints`. A training also computes the gradient
    without clipping, to report the difference: an update takes about twice as long. (Graves 2013
    clips the same quantity at the inputs of the gates, entry by entry.)

    Source: Graves 2013, arXiv:1308.0850, section 2.1.
    """
    check_number("threshold", threshold, "positive", example=1.0)
    return none()._replace(threshold=threshold, wrap=count_clipped)


CLIPPINGS: dict[str, Callable[..., Clipping]] = {
    "adjoint": adjoint,
    "agc": agc,
    "global_norm": global_norm,
    "none": none,
    "normalise": normalise,
    "pascanu": pascanu,
    "per_leaf": per_leaf,
    "value": value,
}
"""The clippings by name; options are those of each function."""


def resolve_clipping(spec: str) -> Clipping:
    """Makes the clipping of a spec, such as ``none`` or ``global_norm(threshold=1)``.

    Raises:
      ValueError: For an unknown clipping or option, or an invalid value.
    """
    return make_from_spec("clipping", spec, CLIPPINGS)


def check_thresholds(spec: str, thresholds: Sequence[float]) -> tuple[float, ...]:
    """Checks the thresholds of a sweep over a clipping, and removes duplicates.

    Raises:
      ValueError: If the clipping has no threshold, sets one itself, or rejects one of these.
    """
    name, options = parse_spec(spec)
    resolve_clipping(spec)
    taken = list(inspect.signature(CLIPPINGS[name]).parameters)
    if options or not taken:
        raise ValueError(
            f"Expected a clipping with a threshold, and without options, to sweep "
            f"{tuple(thresholds)}, got {spec!r}. Use for example global_norm."
        )
    return tuple(dict.fromkeys(CLIPPINGS[name](**{taken[0]: t}).threshold for t in thresholds))


def _on_gradient(make: Callable[[Any], optax.GradientTransformation], threshold: float) -> Clipping:
    return Clipping(lambda threshold: recorded(make(threshold)), float(threshold))


def _leaf_by_leaf(
    clipping_of: Callable[[Array], optax.GradientTransformation],
) -> optax.GradientTransformation:
    """Applies a stateless clipping to each array of parameters."""

    def update(updates: Params, state: Any, params: Params | None = None) -> tuple[Params, Any]:
        def clip(gradient: Array, weights: Array | None = None) -> Array:
            clipped, _ = clipping_of(gradient).update(gradient, optax.EmptyState(), weights)
            return cast(Array, clipped)

        trees = (updates,) if params is None else (updates, params)
        return jax.tree.map(clip, *trees), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
