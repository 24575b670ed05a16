"""When the gradient explodes, and what that looks like: a sweep of the gain through criticality.

W_h = gain · W with W_ij ~ N(0, 1/n) in a linear, a ReLU and a tanh network, an LSTM and a GRU,
driven by x ~ N(0, input_std²). The claims: the largest Lyapunov exponent λ, the growth of ∂s_t/∂s_0
in nats per step, changes its sign at the gain that theory gives; above it the norms of gradients
over initialisations are heavy-tailed, and the loss along a line in parameter space is rough. The
theory::

    λ = log gain                                                                   linear
    λ = ½ log(gain² E φ'(√q z)²),  q = gain² E φ(√q z)² + input_std²,  z ~ N(0, 1)   ReLU, tanh
    λ = log(σ(1) + gain/4)  LSTM,  λ = log(½ + gain/4)  GRU:  at rest, where h is nearly 0

Each claim is supported by a rule fixed beforehand: the measured critical gain lies within 10 % of
the theory's; the mean of the gradient norms is more than twice their median; the steepest slope on
the line over the median slope is ten times what it is below the critical gain.

Source: Sompolinsky, Crisanti, Sommers 1988, doi:10.1103/PhysRevLett.61.259; Pascanu, Mikolov,
Bengio 2013, arXiv:1211.5063 (cliffs); Chen, Pennington, Schoenholz 2018, arXiv:1806.05394 (mean
field).

    python experiments/exploding
    python experiments/exploding --cells=tanh,gru --input_std=1 --num_gains=80 --max_gain=4

Takes about a minute on two cores at the defaults.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from _kit import curves, decisions

from exploding.figure import figure
from exploding.measuring import Config, measure, measure_line
from exploding.networks import NETS
from gradflow import statistics, study
from gradflow.spec import check_name

if TYPE_CHECKING:
    import xarray

TOLERANCE = 0.1
"""The relative distance to the theory up to which a measured critical gain counts as equal."""


HEAVY = 2.0
"""The ratio of mean to median from which on a distribution of norms counts as heavy-tailed."""


ROUGH = 10.0
"""The factor over the roughness below the critical gain from which on a line counts as rough."""


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Measures each cell; dimensions cell, run, gain or factor, and lag, draw or place."""
    import xarray

    for name in config.cells:
        check_name("network of this study", name, NETS)
    if config.burn_in >= config.num_steps:
        raise ValueError(
            f"Expected burn_in below num_steps={config.num_steps}, got {config.burn_in}. "
            "Lower --burn_in or raise --num_steps."
        )
    parts = [
        once(f"cell={name}", partial(measure, config, name))
        for name in study.progress(config.cells, "cells")
    ]
    line = once("line", partial(measure_line, config))
    cells = xarray.concat(parts, dim="cell", join="outer")
    return xarray.merge([cells, line], join="exact", compat="no_conflicts")


def crossing(gains: np.ndarray, exponents: np.ndarray) -> float:
    """Finds the first gain at which the exponent exceeds 0, between points of the sweep; or NaN."""
    above = np.flatnonzero(exponents > 0)
    if not len(above) or above[0] == 0:
        return math.nan
    low, high = exponents[above[0] - 1 : above[0] + 1]
    part = -low / (high - low) if np.isfinite(low) else 1.0
    before, after = gains[above[0] - 1 : above[0] + 1]
    return float(before + part * (after - before))


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


def critical_gain_of(data: "xarray.Dataset") -> statistics.Estimate:
    """Estimates the measured critical gain of one network over its runs."""
    found = [crossing(data.gain.values, run) for run in data.exponent.values]
    return statistics.estimate(np.array(found))


def tail_of(data: "xarray.Dataset") -> statistics.Estimate:
    """Estimates log10 of mean over median of one network's gradient norms at the last factor."""
    return statistics.estimate(data.log_gradient.isel(factor=-1).values, log_excess)


def roughening(dataset: "xarray.Dataset") -> statistics.Estimate:
    """Estimates how much larger log10 of the roughness is at the last factor than at the first."""
    found = roughness(dataset.slope.values)
    return statistics.estimate(found[:, -1] - found[:, 0])


def summary(dataset: "xarray.Dataset") -> str:
    """The critical gain and the tail of each network, and the roughness of the loss."""
    rows = [_row(str(name), dataset.sel(cell=name)) for name in dataset.cell.values]
    first, last = dataset.factor.values[[0, -1]]
    return (
        f"{study.table(rows)}\nLoss of the tanh network on the line: log10 of the steepest over "
        f"the median slope is {roughening(dataset):.2f} larger at {last:g} than at {first:g} of "
        "the critical gain."
    )


def _row(name: str, data: "xarray.Dataset") -> dict[str, str]:
    excess = tail_of(data)
    return {
        "cell": name,
        "critical gain, theory": f"{float(data.critical):.3f}",
        "measured": f"{critical_gain_of(data):.3f}",
        "log10 of mean over median norm": f"{excess.value:.1f}, at least {excess.low:.1f}",
    }


def claims(dataset: "xarray.Dataset") -> list[study.Claim]:
    """The critical gain and the tail of each network, and the roughness of the loss."""
    cells = {str(name): dataset.sel(cell=name) for name in dataset.cell.values}
    return [
        *(_critical_claim(name, data) for name, data in cells.items()),
        *(_tail_claim(name, data) for name, data in cells.items()),
        _rough_claim(dataset),
    ]


def _critical_claim(name: str, data: "xarray.Dataset") -> study.Claim:
    theory, found = float(data.critical), critical_gain_of(data)
    measured = [study.Measured.of("measured", found), study.Measured("theory", theory)]
    return study.claim(
        f"critical-gain-{name}",
        f"The gradient of the {name} network explodes from the gain that theory gives.",
        decisions.within(found.map(lambda gain: gain / theory), 1 - TOLERANCE, 1 + TOLERANCE),
        measured=measured,
        criterion=f"the 95 % interval lies within {TOLERANCE:.0%} of the theory's gain",
    )


def _tail_claim(name: str, data: "xarray.Dataset") -> study.Claim:
    return study.claim(
        f"heavy-tail-{name}",
        f"Above its critical gain the gradient norms of the {name} network are heavy-tailed.",
        decisions.above(excess := tail_of(data), math.log10(HEAVY)),
        measured=study.Measured.of("log10 of mean over median", excess),
        criterion=f"the mean over initialisations is more than {HEAVY:g} times the median, by the "
        "95 % interval",
    )


def _rough_claim(dataset: "xarray.Dataset") -> study.Claim:
    change = roughening(dataset)
    return study.claim(
        "rough-loss",
        "Above the critical gain the loss along a line in parameter space is rough.",
        decisions.above(change, math.log10(ROUGH)),
        measured=study.Measured.of("log10 of the roughness over that below", change),
        criterion=f"steepest over median slope is more than {ROUGH:g} times that below the "
        "critical gain, by the 95 % interval",
    )


EXPERIMENT = study.Experiment(
    name="exploding",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    section="flow",
    order=6,
    gallery={"exploding": study.Picture()},
    quick={
        "cells": ("linear", "tanh"),
        "hidden_size": 16,
        "num_steps": 30,
        "burn_in": 10,
        "num_gains": 9,
        "num_seeds": 5,
        "num_draws": 20,
        "num_points": 21,
    },
    doc=__doc__,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the study; returns the exit code."""
    return study.main(EXPERIMENT, argv)
