"""Mean-field theory of wide RNNs: the weight scale that conserves the size of gradients."""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from gradflow.checks import check_number
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
"""Activations and their derivatives, by name."""


def gaussian_mean(function: Function) -> float:
    """Computes E f(z) for z ~ N(0, 1) by the midpoint rule, which converges exponentially here.

    No point lies at 0, where a ReLU has its corner. The points are denser than those of the usual
    Gauss-Hermite rules, so that steep functions are integrated accurately as well.
    """
    # The density at ±12 is 2e-32, below the rounding error of the sum.
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
    """Computes σ_w of the critical line, where the mean square of a gradient is conserved.

    In a wide network a_t = W φ(a_{t-1}) + W_x x_t + b with W_ij ~ N(0, σ_w²/n), the
    pre-activations have a variance q, and each step multiplies the mean square of a gradient by χ::

        q = σ_w² E φ(√q z)² + bias_std² + input_std²
        χ = σ_w² E φ'(√q z)² = 1

    The second equation gives σ_w² in terms of q; the first is then solved for q by bisection.

    Raises:
      ValueError: For an unknown activation, a negative standard deviation, or if there is no
        solution: a ReLU or linear network with a bias has no fixed point with χ = 1.

    Source: Poole et al. 2016, arXiv:1606.05340; Chen, Pennington, Schoenholz 2018,
    arXiv:1806.05394.
    """
    check_name("activation of mean-field theory", activation, ACTIVATIONS)
    for name, std in (("bias_std", bias_std), ("input_std", input_std)):
        check_number(name, std, "non-negative", example=0.1)
    noise = bias_std**2 + input_std**2
    phi, slope = ACTIVATIONS[activation]

    def means(q: float) -> Float[np.ndarray, "2"]:
        root = math.sqrt(q)
        return np.array([gaussian_mean(lambda z, f=f: f(root * z) ** 2) for f in (phi, slope)])

    def excess(q: float) -> float:
        square, slope_square = means(q)
        return q - square / slope_square - noise

    if noise == 0 and phi(np.zeros(1))[0] == 0:
        # The fixed point is q = 0. A tiny q > 0 gives the limit: q = 0 itself would evaluate the
        # slope of a ReLU at its corner.
        return float(means(1e-20)[1] ** -0.5)
    upper = 1024.0  # a larger q makes φ' too narrow for the spacing of the points
    if excess(upper) <= 0:
        raise ValueError(
            f"Expected a fixed point of the variance below {upper:g}, got none for {activation} "
            f"with bias_std={bias_std} and input_std={input_std}. Make them smaller; set them to 0 "
            "for relu and identity, which have no fixed point otherwise."
        )
    lower = 0.0
    for _ in range(80):  # 80 halvings of [0, 1024] reach the spacing of float64
        middle = (lower + upper) / 2
        lower, upper = (middle, upper) if excess(middle) < 0 else (lower, middle)
    return float(means(upper)[1] ** -0.5)
