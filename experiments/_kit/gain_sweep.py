"""The gain sweep: from which gain the state of a network blows up and its gradient explodes.

W_h = gain · W for each gain of the sweep. The state of a run has blown up where the root mean
square of h_T is more than ten times its largest value in the first half of the run, or has
overflowed.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray

from _kit import runs
from gradflow import Cell, Params, flow, statistics, unroll
from gradflow.flow.summary import HORIZON
from gradflow.study.figure import Axes

BLOWN_UP = 10.0
"""The factor over the largest size of its first half from which on a state has blown up at T."""


def log_rms(outputs: jax.Array) -> jax.Array:
    """Computes the log of the root mean square of the units at each step."""
    # Scaled by the largest unit: the square of a size above 1e154 would overflow.
    largest = jnp.max(jnp.abs(outputs), axis=-1)
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return jnp.log(scale) + 0.5 * jnp.log(jnp.mean((outputs / scale[:, None]) ** 2, axis=-1))


def sweep(
    cell: Cell, params: Params, inputs: jax.Array, gains: np.ndarray
) -> dict[str, np.ndarray]:
    """Measures the sizes of the state and ‖∂h_T/∂h_0‖ at each gain: arrays (run, gain) by name.

    Args:
      cell: One whose parameters are ``{"net": {"W_h": ..., ...}, ...}``.
      params: With an axis of runs in front.
      inputs: A sequence for each run, (run, T, input).
      gains: What W_h is multiplied by.
    """
    half = inputs.shape[1] // 2

    def one(params: Params, x: jax.Array, gain: jax.Array) -> tuple[jax.Array, ...]:
        net = params["net"] | {"W_h": gain * params["net"]["W_h"]}
        params = params | {"net": net}
        sizes = log_rms(unroll(cell, params, x).outputs)
        norms = flow.log_norms(cell, params, x, norm="frobenius")
        return jnp.max(sizes[:half]), sizes[-1], norms[-1]

    def of_run(params: Params, x: jax.Array) -> tuple[jax.Array, ...]:
        return jax.lax.map(lambda gain: one(params, x, gain), jnp.asarray(gains, x.dtype))

    found = runs.measure(of_run, params, inputs)
    return dict(zip(ATTRS, found, strict=True))


ATTRS: Mapping[str, Mapping[str, str]] = {
    "log_size_half": {"units": "nats", "of": "largest for t <= T/2"},
    "log_size_end": {"units": "nats", "of": "RMS of h_T"},
    "log_norm_end": {"units": "nats", "norm": "frobenius"},
}
"""What each array of `sweep` is, in the order of its results."""


def blown_up(dataset: xarray.Dataset) -> xarray.DataArray:
    """Tells in which runs the state has blown up or overflowed; one that stays 0 has not."""
    end = dataset.log_size_end
    with np.errstate(invalid="ignore"):  # of two sizes that are 0, or both infinite
        grown = end - dataset.log_size_half > math.log(BLOWN_UP)
    return grown | np.isnan(end) | (end == np.inf)


def exploded(dataset: xarray.Dataset) -> xarray.DataArray:
    """Tells in which runs ‖∂h_T/∂h_0‖ is above 1/HORIZON, or not a number."""
    return (dataset.log_norm_end > -math.log(HORIZON)) | np.isnan(dataset.log_norm_end)


def boundaries(happened: xarray.DataArray) -> np.ndarray:
    """Finds for each run the smallest gain at which it happens; infinite if it never does.

    The result is the middle between that gain of the sweep and the one before.
    """
    runs, gains = happened.transpose("run", "gain").values, happened.gain.values
    middles = (gains + np.concatenate([[0.0], gains[:-1]])) / 2
    return np.where(runs.any(axis=1), middles[runs.argmax(axis=1)], np.inf)


def blow_up(data: xarray.Dataset) -> np.ndarray:
    """Finds for each run the smallest gain at which its state blows up."""
    return boundaries(blown_up(data))


def row(data: xarray.Dataset) -> dict[str, str]:
    """Gives the gains from which the state blows up and the gradient explodes, for a table."""
    return {
        "state blows up from gain": text(blow_up(data)),
        "gradient explodes from gain": text(boundaries(exploded(data))),
    }


def text(gains: np.ndarray) -> str:
    """Writes the mean of the finite boundaries, and in how many runs there is one."""
    there = gains[np.isfinite(gains)]
    runs = f"{len(there)} of {len(gains)} runs"
    return f"{statistics.estimate(there):z.2f}, {runs}" if len(there) else f"none, {runs}"


def draw_fractions(
    ax: Axes, dataset: xarray.Dataset, looks: Iterable[tuple[str, dict[str, Any]]], mark: float
) -> None:
    """Draws the fraction of runs that have blown up by gain and activation; a line at one gain."""
    fraction = blown_up(dataset).mean("run")
    for name, look in looks:
        ax.plot(dataset.gain, fraction.sel(activation=name), **look)
    ax.axvline(mark, color="#808080", lw=0.8, ls=(0, (1, 1)))
    ax.set(xlabel="gain", ylabel="fraction of runs", title="State blown up", ylim=(-0.05, 1.15))
