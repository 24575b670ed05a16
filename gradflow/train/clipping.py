"""Ways to keep a gradient from being too large, each a small function over optax."""

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
    """A clipping up to its threshold, in the two places where one can act.

    Attributes:
      make: threshold -> what acts on the gradient; it goes before the optimiser in an
        `optax.chain`. The threshold may be traced, and so vmapped.
      threshold: The one that the spec gives; the ``clipping``, ``factor`` or ``size`` of those
        that have no threshold by name, and infinity for ``none``.
      wrap: (cell, threshold) -> the cell clipped inside the recurrence, with a count among its
        parameters (`gradflow.train.adjoint_clipping.Counted`); None if nothing is clipped there.
    """

    make: Callable[[Any], optax.GradientTransformation]
    threshold: float
    wrap: Callable[[Cell, Any], Cell] | None = None

    @property
    def transform(self) -> optax.GradientTransformation:
        """What acts on the gradient, at the threshold of the spec."""
        return self.make(self.threshold)


def none() -> Clipping:
    """Leaves the gradient as it is, and records its norm."""
    return Clipping(lambda threshold: recorded(optax.identity()), math.inf)


def global_norm(*, threshold: float = 1.0) -> Clipping:
    """g <- g · min(1, threshold / ‖g‖), with the norm of all parameters together.

    Source: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, algorithm 1.
    """
    _check_positive("threshold", threshold)
    return _on_gradient(optax.clip_by_global_norm, threshold)


def per_leaf(*, threshold: float = 1.0) -> Clipping:
    """g_i <- g_i · min(1, threshold / ‖g_i‖), each array of parameters by itself."""
    _check_positive("threshold", threshold)

    def make(threshold: Any) -> optax.GradientTransformation:
        clip = optax.clip_by_global_norm(threshold)
        return _leaf_by_leaf(lambda leaf: clip)

    return _on_gradient(make, threshold)


def value(*, threshold: float = 1.0) -> Clipping:
    """Brings each entry into [-threshold, threshold]; the direction changes.

    Source: Mikolov 2012, "Statistical language models based on neural networks", thesis.
    """
    _check_positive("threshold", threshold)
    return _on_gradient(optax.clip, threshold)


def agc(*, clipping: float = 0.01) -> Clipping:
    """Adaptive clipping: the gradient of a unit's weights is at most a share of their size.

    With W_i the row of weights into unit i, and a bias vector taken as one::

        g_i <- g_i · min(1, clipping · max(‖W_i‖, 0.001) / ‖g_i‖)

    Its update needs the parameters.

    Source: Brock, De, Smith, Simonyan 2021, arXiv:2102.06171, eq. 3.
    """
    _check_positive("clipping", clipping)

    def make(clipping: Any) -> optax.GradientTransformation:
        # A row here is a column there: W_x @ x has the units along the first axis.
        matrices = optax.adaptive_grad_clip(clipping, axis=1)
        vectors = optax.adaptive_grad_clip(clipping)
        return _leaf_by_leaf(lambda leaf: matrices if leaf.ndim == 2 else vectors)

    return _on_gradient(make, clipping)


def normalise(*, size: float = 1.0) -> Clipping:
    """g <- size · g / ‖g‖: of the gradient, the direction alone. A zero gradient stays zero."""
    _check_positive("size", size)
    smallest = float(jnp.finfo(jnp.float32).tiny)
    return _on_gradient(partial(optax.normalize_by_update_norm, eps=smallest), size)


def pascanu(*, factor: float = 1.0) -> Clipping:
    """Clips the global norm at ``factor`` times the average norm so far.

    The paper's rule for a threshold is half to ten times the average norm over many updates. The
    average here is the mean over the updates before this one, the first of which passes; each
    counts for at most ten times the average before it, so that one that explodes does not lift
    it out of reach.

    Source: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, section 3.2.
    """
    if not _is_number(factor) or not 0.5 <= factor <= 10:
        raise ValueError(f"factor is expected to be within 0.5 ... 10, got {factor!r}")
    return _on_gradient(clip_by_average, factor)


def adjoint(*, threshold: float = 1.0) -> Clipping:
    """Clips ∂L/∂s_t at every step on its way back, sequence by sequence.

    See `gradflow.train.adjoint_clipping.clip_adjoints`. A training computes the gradient without
    it as well, to tell what it does: an update takes about twice as long. (Graves 2013 clips
    the same quantity at the gates' inputs, and entry by entry.)

    Source: Graves 2013, arXiv:1308.0850, section 2.1.
    """
    _check_positive("threshold", threshold)
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


def resolve_clipping(spec: str) -> Clipping:
    """Makes the clipping that a spec names, such as ``none`` or ``global_norm(threshold=1)``.

    Raises:
      ValueError: If there is no such clipping, or it does not take an option or its value.
    """
    return make_from_spec("clipping", spec, CLIPPINGS)


def check_thresholds(spec: str, thresholds: Sequence[float]) -> tuple[float, ...]:
    """Thresholds that a clipping can be swept over, each once.

    Raises:
      ValueError: If the clipping has none, names one itself, or does not take one of these.
    """
    name, options = parse_spec(spec)
    resolve_clipping(spec)
    taken = list(inspect.signature(CLIPPINGS[name]).parameters)
    if options or not taken:
        raise ValueError(
            f"a clipping with a threshold, and none in its options, is expected to sweep "
            f"{tuple(thresholds)}, got {spec!r}; try global_norm"
        )
    return tuple(dict.fromkeys(CLIPPINGS[name](**{taken[0]: t}).threshold for t in thresholds))


def _on_gradient(make: Callable[[Any], optax.GradientTransformation], threshold: float) -> Clipping:
    return Clipping(lambda threshold: recorded(make(threshold)), float(threshold))


def _leaf_by_leaf(
    clipping_of: Callable[[Array], optax.GradientTransformation],
) -> optax.GradientTransformation:
    """Applies to each array of parameters a clipping without a state."""

    def update(updates: Params, state: Any, params: Params | None = None) -> tuple[Params, Any]:
        def clip(gradient: Array, weights: Array | None = None) -> Array:
            clipped, _ = clipping_of(gradient).update(gradient, optax.EmptyState(), weights)
            return cast(Array, clipped)

        trees = (updates,) if params is None else (updates, params)
        return jax.tree.map(clip, *trees), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_positive(name: str, value: Any) -> None:
    if not _is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{name} is expected to be a positive number, got {value!r}")
