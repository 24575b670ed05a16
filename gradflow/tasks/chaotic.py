"""Forecasts of chaotic series: Mackey–Glass and Lorenz, integrated on the device."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradflow.cell import Key
from gradflow.tasks.flows import lorenz_series, mackey_glass_series
from gradflow.tasks.parts import check_count
from gradflow.tasks.task import Batch, Predictions, Task

# Means and standard deviations on the attractor, measured: Mackey–Glass over 32 series of 6000 time
# units, Lorenz over 64 of 600. The means of x and y are 0 by symmetry.
_MACKEY_GLASS = 0.930, 0.226
_LORENZ = (0.0, 0.0, 23.544), (7.924, 9.013, 8.629)


def mackey_glass(*, num_steps: int = 200, horizon: int = 1, washout: int = 20) -> Task:
    """Mackey–Glass: say at every step what a chaotic series with a delay will be later.

    With β = 0.2, γ = 0.1, n = 10 and a delay of τ = 17 time units::

        dx/dt = β x(t - τ) / (1 + x(t - τ)^n) - γ x
        target_t = x_{t + horizon}                       one step = one time unit

    The series is brought to mean 0 and variance 1 on the attractor. The best constant is 0, its
    loss 1. The first steps do not count. A sequence is right if the root mean square of its error
    is below 0.1; the task is solved if 99 % are (no paper sets a criterion).

    Args:
      num_steps: T.
      horizon: How many steps ahead.
      washout: Steps at the start that do not count, for the net to have seen a delay.

    Raises:
      TypeError: If an option is not an integer.
      ValueError: If horizon is below 1, washout negative, or T not above the washout.

    Source: Mackey & Glass 1977, doi:10.1126/science.267326.
    """
    _check(num_steps, horizon, washout)
    mean, std = _MACKEY_GLASS

    def sample(key: Key, batch_size: int) -> Batch:
        series = mackey_glass_series(key, num_steps + horizon, batch_size)
        return _forecast((series - mean) / std, horizon, washout)

    return Task(sample, 1, 1, num_steps, "squared", 1.0, close, success=0.99)


def lorenz(
    *,
    num_steps: int = 200,
    horizon: int = 1,
    washout: int = 20,
    observed: str = "x",
) -> Task:
    """Lorenz 1963: say at every step where a chaotic flow will be later.

    With σ = 10, ρ = 28, β = 8/3::

        dx/dt = σ (y - x)      dy/dt = x (ρ - z) - y      dz/dt = x y - β z
        target_t = observed_{t + horizon}                 one step = 0.1 time units

    Each coordinate is brought to mean 0 and variance 1 on the attractor. The best constant is 0,
    its loss the number of coordinates that are observed. The rest is as in `mackey_glass`.

    Args:
      num_steps: T.
      horizon: How many steps ahead.
      washout: Steps at the start that do not count.
      observed: ``"x"``, so that the state has to be remembered, or all of it, ``"xyz"``.

    Raises:
      TypeError: If a count is not an integer.
      ValueError: If horizon is below 1, washout negative, T not above the washout, or something
        else is to be observed.

    Source: Lorenz 1963, doi:10.1175/1520-0469(1963)020<0130:DNF>2.0.CO;2.
    """
    _check(num_steps, horizon, washout)
    if observed not in ("x", "xyz"):
        raise ValueError(f"observed is expected to be 'x' or 'xyz', got {observed!r}")
    size = len(observed)
    mean, std = jnp.array(_LORENZ)[:, :size]

    def sample(key: Key, batch_size: int) -> Batch:
        series = lorenz_series(key, num_steps + horizon, batch_size)[..., :size]
        return _forecast((series - mean) / std, horizon, washout)

    return Task(sample, size, size, num_steps, "squared", float(size), close, success=0.99)


def close(predictions: Predictions, batch: Batch) -> Bool[Array, " batch"]:
    """Whether the root mean square error over steps and outputs is below 0.1."""
    squares = jnp.mean(jnp.square(predictions - batch.targets), axis=-1)
    return jnp.sum(squares * batch.weights, axis=0) < 0.1**2 * jnp.sum(batch.weights, axis=0)


def _forecast(series: Float[Array, "longer batch output"], horizon: int, washout: int) -> Batch:
    inputs = series[:-horizon]
    counts = jnp.arange(len(inputs))[:, None] >= washout
    weights = jnp.broadcast_to(counts, inputs.shape[:2]).astype(inputs.dtype)
    return Batch(inputs, series[horizon:], weights)


def _check(num_steps: int, horizon: int, washout: int) -> None:
    check_count("horizon", horizon, 1)
    check_count("washout", washout, 0)
    check_count("num_steps", num_steps, washout + 1)
