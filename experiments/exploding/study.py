"""When the gradient explodes, and what that looks like: a sweep of the gain through criticality.

W_h = gain · W with W_ij ~ N(0, 1/N) in a linear, a ReLU and a tanh network, an LSTM and a GRU,
driven by x ~ N(0, input_std²). The claims: the largest Lyapunov exponent λ, the growth of ∂s_t/∂s_0
in nats per step, changes its sign at the gain that theory gives for many units; above it the norms
of gradients over initialisations are heavy-tailed, and the loss along a line in parameter space is
rough. The theory::

    λ = log gain                                                                   linear
    λ = ½ log(gain² E φ'(√q z)²),  q = gain² E φ(√q z)² + input_std²,  z ~ N(0, 1)   ReLU, tanh
    λ = log(σ(1) + gain/4)  LSTM,  λ = log(½ + gain/4)  GRU:  at rest, where h is nearly 0

The theory is that of N -> ∞ units. The critical gain is measured at several N and extrapolated by a
line through 1/N: at N = 100 that of the tanh network, the LSTM and the GRU is up to a third larger.
Each claim is supported by a rule fixed beforehand: the extrapolated critical gain lies within 10 %
of the theory's; the mean of the gradient norms is more than twice their median; the steepest slope
on the line over the median slope is ten times what it is below the critical gain.

Source: Sompolinsky, Crisanti, Sommers 1988, doi:10.1103/PhysRevLett.61.259; Pascanu, Mikolov,
Bengio 2013, arXiv:1211.5063 (cliffs); Chen, Pennington, Schoenholz 2018, arXiv:1806.05394 (mean
field).

    python experiments/exploding
    python experiments/exploding --cells=tanh,gru --input_std=1 --num_gains=80 --max_gain=4

Takes about a minute on two cores at the defaults.
"""

from functools import partial

import xarray

from exploding.figure import figure
from exploding.measuring import Config, measure, measure_line, measure_size
from exploding.networks import NETS
from exploding.results import claims, critical_gain_of, critical_gains, roughening, tail_of
from gradflow import study
from gradflow.spec import check_name


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures each cell; dimensions cell, run, gain or factor, and lag, draw or place."""
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
    sized = xarray.concat([_sizes(config, name, once) for name in config.cells], dim="cell")
    return xarray.merge([cells, sized, line], join="exact", compat="no_conflicts")


def _sizes(config: Config, name: str, once: study.Once) -> xarray.Dataset:
    parts = [
        once(f"cell={name},size={size}", partial(measure_size, config, name, size))
        for size in study.progress(config.sizes, f"{name}, sizes")
    ]
    return xarray.concat(parts, dim="size")


def summary(dataset: xarray.Dataset) -> str:
    """The critical gain and the tail of each network, and the roughness of the loss."""
    rows = [_row(str(name), dataset.sel(cell=name)) for name in dataset.cell.values]
    first, last = dataset.factor.values[[0, -1]]
    return (
        f"{study.table(rows)}\nLoss of the tanh network on the line: log10 of the steepest over "
        f"the median slope is {roughening(dataset):.2f} larger at {last:g} than at {first:g} of "
        "the critical gain."
    )


def _row(name: str, data: xarray.Dataset) -> dict[str, str]:
    excess = tail_of(data)
    by_size = zip(data["size"].values, critical_gains(data).mean(axis=0), strict=True)
    return {
        "cell": name,
        "critical gain, theory": f"{float(data.critical):.3f}",
        "extrapolated": f"{critical_gain_of(data):.3f}",
        **{f"N = {size}": f"{gain:.3f}" for size, gain in by_size},
        "log10 of mean over median norm": f"{excess.value:.1f}, at least {excess.low:.1f}",
    }


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
        "sizes": (8, 16),
        "num_ratios": 7,
    },
    doc=__doc__,
)
