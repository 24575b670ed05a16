"""Forecasting of chaotic series: Mackey–Glass and Lorenz, integrated on the device."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradflow.cell import Key
from gradflow.checks import check_integer
from gradflow.tasks.flows import lorenz_series, mackey_glass_series
from gradflow.tasks.task import Batch, Predictions, Task

# Mean and standard deviation on the attractor. Mackey–Glass: measured over 32 series of 6000 time
# units. Lorenz: measured over 64 series of 600; the means of x and y are 0 by symmetry.
_MACKEY_GLASS = 0.930, 0.226
_LORENZ = (0.0, 0.0, 23.544), (7.924, 9.013, 8.629)


def mackey_glass(*, num_steps: int = 200, horizon: int = 1, washout: int = 20) -> Task:
    """Mackey–Glass: forecast a chaotic series with a delay at every step.

    With β = 0.2, γ = 0.1, n = 10 and a delay of τ = 17 time units::

        dx/dt = β x(t - τ) / (1 + x(t - τ)^n) - γ x
        target_t = x_{t + horizon}                       one step = one time unit

    The series is standardised to mean 0 and variance 1 on the attractor. The best constant
    prediction is 0; its loss is 1. The first steps have no loss. A sequence is correct if the root
    mean square of its error is below 0.1; the task is solved if 99 % are (a criterion of our own,
    as no paper gives one).

    Args:
      num_steps: T.
      horizon: Forecast horizon, in steps.
      washout: Number of initial steps without loss, so that the network has read a full delay.

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
    """Lorenz 1963: forecast a chaotic flow at every step.

    With σ = 10, ρ = 28, β = 8/3::

        dx/dt = σ (y - x)      dy/dt = x (ρ - z) - y      dz/dt = x y - β z
        target_t = observed_{t + horizon}                 one step = 0.1 time units

    Each coordinate is standardised to mean 0 and variance 1 on the attractor. The best constant
    prediction is 0; its loss is the number of observed coordinates. The criterion is that of
    `mackey_glass`.

    Args:
      num_steps: T.
      horizon: Forecast horizon, in steps.
      washout: Number of initial steps without loss.
      observed: ``"x"``, so that the state must be inferred from the past, or ``"xyz"``.

    Raises:
      TypeError: If a count is not an integer.
      ValueError: If horizon is below 1, washout negative, T not above the washout, or observed
        is neither.

    Source: Lorenz 1963, doi:10.1175/1520-0469(1963)020<0130:DNF>2.0.CO;2.
    """
    _check(num_steps, horizon, washout)
    if observed not in ("x", "xyz"):
        raise ValueError(
            f"Expected observed to be 'x' or 'xyz', got {observed!r}. Set it to one of these."
        )
    size = len(observed)
    mean, std = jnp.array(_LORENZ)[:, :size]

    def sample(key: Key, batch_size: int) -> Batch:
        series = lorenz_series(key, num_steps + horizon, batch_size)[..., :size]
        return _forecast((series - mean) / std, horizon, washout)

    return Task(sample, size, size, num_steps, "squared", float(size), close, success=0.99)


def close(predictions: Predictions, batch: Batch) -> Bool[Array, " batch"]:
    """Checks that the root mean square error over steps and outputs is below 0.1."""
    squares = jnp.mean(jnp.square(predictions - batch.targets), axis=-1)
    return jnp.sum(squares * batch.weights, axis=0) < 0.1**2 * jnp.sum(batch.weights, axis=0)


def _forecast(series: Float[Array, "longer batch output"], horizon: int, washout: int) -> Batch:
    inputs = series[:-horizon]
    has_loss = jnp.arange(len(inputs))[:, None] >= washout
    weights = jnp.broadcast_to(has_loss, inputs.shape[:2]).astype(inputs.dtype)
    return Batch(inputs, series[horizon:], weights)


def _check(num_steps: int, horizon: int, washout: int) -> None:
    check_integer("horizon", horizon, 1)
    check_integer("washout", washout, 0)
    check_integer("num_steps", num_steps, washout + 1)
