"""The critical line of mean-field theory: what weights keep a gradient's size in a wide net."""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from gradflow.spec import check_name

Function = Callable[[np.ndarray], np.ndarray]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))


ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "identity": (lambda x: x, np.ones_like),
    "relu": (lambda x: np.maximum(x, 0), lambda x: np.where(x > 0, 1.0, 0.0)),
    "sigmoid": (_sigmoid, lambda x: _sigmoid(x) * (1 - _sigmoid(x))),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
}
"""Activations by name, each with its derivative."""


def gaussian_mean(function: Function) -> float:
    """E f(z) for z ~ N(0, 1), by the midpoint rule, which converges exponentially for it.

    It takes functions with a corner at 0 as well, since no point lies there, and sharp ones:
    its points are denser than those of a Gauss-Hermite rule of any size that is in use.
    """
    z = np.arange(-12, 12, 0.01) + 0.005
    return float(np.sum(function(z) * np.exp(-(z**2) / 2)) * 0.01 / math.sqrt(2 * math.pi))


def mean_field_exponent(activation: str, gain: float, input_std: float = 0.0) -> float:
    """Computes the largest Lyapunov exponent of a wide network in mean-field theory.

    In nats per step, with the variance q of the pre-activations iterated from above::

        λ = ½ log(gain² E φ'(√q z)²)        q = gain² E φ(√q z)² + input_std²

    Source: Poole et al. 2016, arXiv:1606.05340.
    """
    phi, slope = ACTIVATIONS[activation]
    q = 1.0 + input_std**2
    if activation == "tanh":  # λ of a linear or ReLU network does not depend on q
        for _ in range(1000):
            before, root = q, math.sqrt(q)
            q = gain**2 * gaussian_mean(lambda z, r=root: phi(r * z) ** 2) + input_std**2
            if abs(q - before) < 1e-9 * q:
                break
    root = math.sqrt(q)
    return 0.5 * math.log(gain**2 * gaussian_mean(lambda z: slope(root * z) ** 2))


def critical_gain(
    activation: str = "tanh", *, bias_std: float = 0.0, input_std: float = 0.0
) -> float:
    """σ_w of the critical line: the mean square of a gradient is the same from step to step.

    In a wide net a_t = W φ(a_{t-1}) + W_x x_t + b with W_ij ~ N(0, σ_w²/n), the pre-activations
    have a variance q, and a gradient's mean square is multiplied by χ at each step::

        q = σ_w² E φ(√q z)² + bias_std² + input_std²
        χ = σ_w² E φ'(√q z)² = 1

    With σ_w² from the second line, the first one is solved for q by bisection.

    Raises:
      ValueError: For an unknown activation, a negative deviation, or where nothing solves it: a
        ReLU or linear net with a bias has no fixed point at χ = 1.

    Source: Poole et al. 2016, arXiv:1606.05340; Chen, Pennington, Schoenholz 2018,
    arXiv:1806.05394.
    """
    check_name("activation of mean-field theory", activation, ACTIVATIONS)
    for name, std in (("bias_std", bias_std), ("input_std", input_std)):
        if not (math.isfinite(std) and std >= 0):
            raise ValueError(f"{name} is expected to be a number of at least 0, got {std}")
    noise = bias_std**2 + input_std**2
    phi, slope = ACTIVATIONS[activation]

    def means(q: float) -> Float[np.ndarray, "2"]:
        root = math.sqrt(q)
        return np.array([gaussian_mean(lambda z, f=f: f(root * z) ** 2) for f in (phi, slope)])

    def excess(q: float) -> float:
        square, slope_square = means(q)
        return q - square / slope_square - noise

    if noise == 0 and phi(np.zeros(1))[0] == 0:
        return float(means(1e-20)[1] ** -0.5)  # the fixed point is q = 0, seen from above
    upper = 1024.0  # beyond it, the slope is too narrow for the points of the rule
    if excess(upper) <= 0:
        raise ValueError(
            f"a variance q < {upper:g} that keeps itself is expected, got none for {activation} "
            f"with bias_std={bias_std} and input_std={input_std}: make them smaller, or 0 for relu "
            "and identity, which have no fixed point with them"
        )
    lower = 0.0
    for _ in range(80):
        middle = (lower + upper) / 2
        lower, upper = (middle, upper) if excess(middle) < 0 else (lower, middle)
    return float(means(upper)[1] ** -0.5)
