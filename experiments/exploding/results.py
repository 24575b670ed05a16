"""What the sweeps came to: critical gains, tails, roughness, and the claims about them."""

import math

import numpy as np
import xarray
from _kit import curves, decisions, rates

from gradflow import statistics, study

TOLERANCE = 0.1
"""The relative distance to the theory up to which a measured critical gain counts as equal."""


HEAVY = 2.0
"""The ratio of mean to median from which on a distribution of norms counts as heavy-tailed."""


ROUGH = 10.0
"""The factor over the roughness below the critical gain from which on a line counts as rough."""


def log_excess(log_norms: np.ndarray) -> float:
    """Computes log10 of the mean over the median of norms, from their natural logarithms.

    Where the norms spread over orders of magnitude, rare large ones that no sample contains
    dominate the mean: for 200 lognormal norms with sigma = 3 this is 0.3 too small, and an interval
    covers the truth 0.64 of the time. Its lower end is a bound all the same.
    """
    log_mean = np.logaddexp.reduce(log_norms) - math.log(len(log_norms))
    return float((log_mean - np.median(log_norms)) / curves.NATS)


def roughness(slopes: np.ndarray) -> np.ndarray:
    """Computes log10 of the steepest slope over the median one, along the last axis."""
    steepness = np.abs(slopes)
    return np.log10(steepness.max(axis=-1) / np.median(steepness, axis=-1))


def critical_gains(data: xarray.Dataset) -> np.ndarray:
    """Finds the measured critical gain of each run of one network at each size, (run, size)."""
    gains = float(data.critical) * data.ratio.values
    exponents = data.sized_exponent.transpose("run", "size", "ratio").values
    return np.array([[rates.crossing(gains, of_size) for of_size in run] for run in exponents])


def extrapolated(data: xarray.Dataset) -> np.ndarray:
    """Extrapolates each run's critical gain to infinitely many units, by a line through 1/N."""
    found, sizes = critical_gains(data), data["size"].values
    if len(sizes) == 1:
        return found[:, 0]
    # A line of least squares is linear in the gains, so that runs can be fitted one by one.
    return np.array([np.polyfit(1 / sizes, run, 1)[1] for run in found])


def critical_gain_of(data: xarray.Dataset) -> statistics.Estimate:
    """Estimates the measured critical gain of one network of infinitely many units."""
    return statistics.estimate(extrapolated(data))


def tail_of(data: xarray.Dataset) -> statistics.Estimate:
    """Estimates log10 of mean over median of one network's gradient norms at the last factor."""
    return statistics.estimate(data.log_gradient.isel(factor=-1).values, log_excess)


def roughening(dataset: xarray.Dataset) -> statistics.Estimate:
    """Estimates how much larger log10 of the roughness is at the last factor than at the first."""
    found = roughness(dataset.slope.values)
    return statistics.estimate(found[:, -1] - found[:, 0])


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """The critical gain and the tail of each network, and the roughness of the loss."""
    cells = {str(name): dataset.sel(cell=name) for name in dataset.cell.values}
    return [
        *(_critical_claim(name, data) for name, data in cells.items()),
        *(_tail_claim(name, data) for name, data in cells.items()),
        _rough_claim(dataset),
    ]


def _critical_claim(name: str, data: xarray.Dataset) -> study.Claim:
    theory, found = float(data.critical), critical_gain_of(data)
    sizes, by_size = data["size"].values, critical_gains(data)
    at_sizes = {
        f"at {size} units": statistics.estimate(gains)
        for size, gains in zip(sizes, by_size.T, strict=True)
    }
    return study.claim(
        f"critical-gain-{name}",
        f"The gradient of the {name} network explodes from the gain that theory gives, for many "
        "units.",
        decisions.within(found.map(lambda gain: gain / theory), 1 - TOLERANCE, 1 + TOLERANCE),
        measured={"extrapolated": found, "theory": theory, **at_sizes},
        criterion="the 95 % interval of the gain, extrapolated by a line through 1/N, lies within "
        f"{TOLERANCE:.0%} of the theory's",
    )


def _tail_claim(name: str, data: xarray.Dataset) -> study.Claim:
    return study.claim(
        f"heavy-tail-{name}",
        f"Above its critical gain the gradient norms of the {name} network are heavy-tailed.",
        decisions.above(excess := tail_of(data), math.log10(HEAVY)),
        measured={"log10 of mean over median": excess},
        criterion=f"the mean over initialisations is more than {HEAVY:g} times the median, by the "
        "95 % interval",
    )


def _rough_claim(dataset: xarray.Dataset) -> study.Claim:
    change = roughening(dataset)
    return study.claim(
        "rough-loss",
        "Above the critical gain the loss along a line in parameter space is rough.",
        decisions.above(change, math.log10(ROUGH)),
        measured={"log10 of the roughness over that below": change},
        criterion=f"steepest over median slope is more than {ROUGH:g} times that below the "
        "critical gain, by the 95 % interval",
    )
