"""Where the state of a net blows up and its gradient explodes, as its recurrent weights grow.

W_h = gain · W for each gain of a sweep. A run has blown up where the size of its state at T, the
root mean square of h_T, is more than ten times the largest of its first half, or has overflowed.
"""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from gradflow import Cell, flow, statistics, unroll
from gradflow.devices import map_runs
from gradflow.flow.summary import HORIZON

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

    from gradflow import Params

BLOWN_UP = 10.0
"""How many times the largest size of its first half a state that has blown up is at T."""


def log_rms(outputs: jax.Array) -> jax.Array:
    """log of the root mean square of the units at each step; scaled, so that none overflows."""
    largest = jnp.max(jnp.abs(outputs), axis=-1)
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return jnp.log(scale) + 0.5 * jnp.log(jnp.mean((outputs / scale[:, None]) ** 2, axis=-1))


def sweep(
    cell: Cell, params: "Params", inputs: jax.Array, gains: np.ndarray
) -> dict[str, np.ndarray]:
    """Sizes of the state, and ‖∂h_T/∂h_0‖, of each run at each gain: arrays (run, gain) by name.

    Args:
      cell: One whose parameters are ``{"net": {"W_h": ..., ...}, ...}``.
      params: With an axis of runs in front.
      inputs: A sequence for each run, (run, T, input).
      gains: What W_h is multiplied by.
    """
    half = inputs.shape[1] // 2

    def one(params: "Params", x: jax.Array, gain: jax.Array) -> tuple[jax.Array, ...]:
        net = params["net"] | {"W_h": gain * params["net"]["W_h"]}
        params = params | {"net": net}
        sizes = log_rms(unroll(cell, params, x).outputs)
        norms = flow.log_norms(cell, params, x, norm="frobenius")
        return jnp.max(sizes[:half]), sizes[-1], norms[-1]

    def of_run(params: "Params", x: jax.Array) -> tuple[jax.Array, ...]:
        return jax.lax.map(lambda gain: one(params, x, gain), jnp.asarray(gains, x.dtype))

    found = jax.jit(map_runs(of_run))(params, inputs)
    names = ("log_size_half", "log_size_end", "log_norm_end")
    return {name: np.asarray(values) for name, values in zip(names, found, strict=True)}


ATTRS: Mapping[str, Mapping[str, str]] = {
    "log_size_half": {"units": "nats", "of": "largest for t <= T/2"},
    "log_size_end": {"units": "nats", "of": "RMS of h_T"},
    "log_norm_end": {"units": "nats", "norm": "frobenius"},
}
"""What each array of `sweep` is."""


def blown_up(dataset: "xarray.Dataset") -> "xarray.DataArray":
    """In which runs of the sweep the state has blown up: grown tenfold in the second half.

    One that has overflowed counts; one that stays 0 does not.
    """
    end = dataset.log_size_end
    with np.errstate(invalid="ignore"):  # of two sizes that are 0, or both infinite
        grown = end - dataset.log_size_half > math.log(BLOWN_UP)
    return grown | np.isnan(end) | (end == np.inf)


def exploded(dataset: "xarray.Dataset") -> "xarray.DataArray":
    """In which runs of the sweep ‖∂h_T/∂h_0‖ is above 1/HORIZON, or not a number."""
    return (dataset.log_norm_end > -math.log(HORIZON)) | np.isnan(dataset.log_norm_end)


def boundaries(happened: "xarray.DataArray") -> np.ndarray:
    """For each run, the smallest gain at which it happens; inf if it does at none.

    It is the middle between that gain of the sweep and the one before.
    """
    runs, gains = happened.transpose("run", "gain").values, happened.gain.values
    middles = (gains + np.concatenate([[0.0], gains[:-1]])) / 2
    return np.where(runs.any(axis=1), middles[runs.argmax(axis=1)], np.inf)


def blow_up(data: "xarray.Dataset") -> np.ndarray:
    """For each run, the smallest gain at which its state blows up."""
    return boundaries(blown_up(data))


def row(data: "xarray.Dataset") -> dict[str, str]:
    """From which gain the state blows up and the gradient explodes."""
    return {
        "state blows up from gain": said(blow_up(data)),
        "gradient explodes from gain": said(boundaries(exploded(data))),
    }


def said(gains: np.ndarray) -> str:
    """The mean of the boundaries that there are, and in how many runs there is one."""
    there = gains[np.isfinite(gains)]
    runs = f"{len(there)} of {len(gains)} runs"
    return f"{statistics.estimate(there):z.2f}, {runs}" if len(there) else f"none, {runs}"


def draw_shares(
    ax: "Axes", dataset: "xarray.Dataset", looks: Iterable[tuple[str, dict[str, Any]]], mark: float
) -> None:
    """The share of runs that have blown up, by gain, for each activation; a line at a gain."""
    share = blown_up(dataset).mean("run")
    for name, look in looks:
        ax.plot(dataset.gain, share.sel(activation=name), **look)
    ax.axvline(mark, color="#808080", lw=0.8, ls=(0, (1, 1)))
    ax.set(xlabel="gain", ylabel="share of runs", title="State blown up", ylim=(-0.05, 1.15))
