"""Whether tanh or ReLU keeps its gradient longer depends on the scale of the inputs.

Plain networks h_t = φ(W_x x_t + W_h h_{t-1} + b) with the same W_h, for each initialiser, with each
activation φ, on x ~ N(0, σ²). Measured are the rate of log ‖∂h_T/∂h_k‖ per step against σ, the size
of the state along time, learning curves on the adding problem, each activation at its own learning
rate, and a sweep of the gain, W_h = gain · W, with W from the first initialiser. With
D_t = diag(1 where φ'(a_t) ≠ 0) and A the pattern of W_h (see `relu_vs_tanh.paths`)::

    ∂h_T/∂h_k = diag(φ'(a_T)) W_h ... diag(φ'(a_{k+1})) W_h
    fraction of live paths = 1ᵀ D_T A ... D_{k+1} A 1 / 1ᵀ A ... A 1

If no path is live, ∂h_T/∂h_k = 0 and its log norm is -inf: the fraction of such runs is recorded.

The claims, each decided by the 95 % interval over seeds of the difference in nats per step. From an
orthogonal W_h: where inputs are small, at the smallest σ, tanh is nearly linear and keeps its
gradient longer than ReLU, half of whose units are dead at each step; where they are large, at the
largest σ, tanh saturates and ReLU keeps it longer. From the identity ReLU keeps it longer at every
σ, because its units do not die. And the state of ReLU blows up from a gain of √2 on, and that of
tanh never: half of ReLU's runs have blown up (see `_kit.gain_sweep`) at a gain within 10 % of √2,
and none of tanh's.

Source: Le, Jaitly, Hinton 2015, arXiv:1504.00941; Glorot, Bordes, Bengio 2011 (dead and live
paths of rectifiers); Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063 (slopes of 1 and of 1/4).

    python experiments/relu_vs_tanh
    python experiments/relu_vs_tanh --full
    python experiments/relu_vs_tanh --activations=tanh,relu,elu,gelu --inits=normal,glorot

Takes some two minutes on two cores at the defaults, and half an hour, by estimate, with ``--full``.
"""

import math
from functools import partial

import numpy as np
import xarray
from _kit import curves, decisions, gain_sweep, rates, trained, tuning

from gradflow import statistics, study
from gradflow.cells.activations import resolve_activation
from gradflow.spec import split_specs
from gradflow.tasks import resolve_task
from relu_vs_tanh.config import Config
from relu_vs_tanh.figure import figure
from relu_vs_tanh.measuring import measure, measure_scales, sweep, train

TOLERANCE = 0.1
"""The relative distance from √2 up to which the gain from which ReLU blows up counts as equal."""


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures, sweeps and trains; dimensions activation, init, run, and lag, gain or update."""
    _check(config)
    task = resolve_task(config.task)
    parts = [
        once("flow", partial(measure, config)),
        once("scales", partial(measure_scales, config)),
        once("gains", partial(sweep, config)),
        trained.unit(once, "training", train, config, task),
    ]
    return xarray.merge(parts, join="exact", compat="no_conflicts", combine_attrs="no_conflicts")


def _check(config: Config) -> None:
    for name in config.activations:
        resolve_activation(name)
    if not config.activations or not split_specs(config.inits):
        raise ValueError(
            f"Expected an activation and an initialiser, got activations={config.activations} and "
            f"inits={config.inits!r}. Try --activations=tanh --inits=orthogonal."
        )
    if list(config.input_stds) != sorted(set(config.input_stds)):
        raise ValueError(
            f"Expected input_stds in ascending order, got {config.input_stds}. Sort them."
        )
    _ = config.schedule  # numbers that do not divide are reported before anything is measured


def summary(dataset: xarray.Dataset) -> str:
    """Rate, dead paths, blow-up and loss of each activation."""
    rows = [
        _row(dataset.sel(activation=a, init=i)) for i in dataset.init for a in dataset.activation
    ]
    gains = [_row_of_activation(dataset.sel(activation=a)) for a in dataset.activation.values]
    return "\n".join([study.table(rows), "", study.table(gains), tuning.note(dataset)])


def _row(data: xarray.Dataset) -> dict[str, str]:
    live, size = data.log_live.isel(lag=-1).values, data.log_size.isel(step=-1).values
    slopes = rates.slopes(data.log_norm.transpose("run", "lag"))
    return {
        "W_h": str(data.init.values),
        "φ": str(data.activation.values),
        "nats per step": f"{statistics.estimate(slopes):z.3f}",
        "log10 live paths at T": f"{statistics.estimate(live / curves.NATS):z.1f}",
        "runs at -inf": f"{cut_fraction(data.log_norm):.0%}",
        "log10 RMS of h_T": f"{statistics.estimate(size / curves.NATS):z.2f}",
    }


def _row_of_activation(data: xarray.Dataset) -> dict[str, str]:
    return {
        "φ": str(data.activation.values),
        **gain_sweep.row(data),
        "rate": tuning.text(data),
        "final loss": f"{statistics.estimate(data.loss.isel(update=-1).values):z.4f}",
    }


def cut_fraction(log_norms: xarray.DataArray) -> float:
    """Computes the fraction of runs whose gradient is exactly 0 at the longest lag."""
    return float(np.isneginf(log_norms.isel(lag=-1)).mean())


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """Which of tanh and ReLU keeps its gradient longer, and which blows up, if both are there."""
    if not {"tanh", "relu"} <= {str(name) for name in dataset.activation.values}:
        return []
    stds = dataset.input_std.values
    asked = [
        ("tanh", "orthogonal", stds[:1]),
        ("ReLU", "orthogonal", stds[-1:]),
        ("ReLU", "identity", stds),
    ]
    return [*(_kept(dataset, *one) for one in asked if one[1] in dataset.init), _blows_up(dataset)]


def _kept(dataset: xarray.Dataset, longer: str, init: str, stds: np.ndarray) -> study.Claim:
    """Whether tanh or ReLU keeps its gradient longer at each of these scales of the inputs."""
    rate = dataset.rate.sel(init=init)
    more = rate.sel(activation="tanh") - rate.sel(activation="relu")
    found = [statistics.estimate(more.sel(input_std=std).values) for std in stds]
    side, other = (decisions.above, "ReLU") if longer == "tanh" else (decisions.below, "tanh")
    inputs = ", ".join(f"{std:g}" for std in stds)
    return study.claim(
        decisions.identifier(longer, "longer from", init),
        f"Initialised {init}, with inputs of standard deviation {inputs}, {longer} keeps its "
        f"gradient longer than {other}.",
        decisions.every(map(side, found)),
        measured={
            f"rate of tanh less that of ReLU at {std:g}": one
            for std, one in zip(stds, found, strict=True)
        },
        unit="nats per step",
        criterion="the 95 % interval of the difference in nats per step lies "
        f"{side.__name__} 0 at each of them",
    )


def _blows_up(dataset: xarray.Dataset) -> study.Claim:
    of_relu, of_tanh = (
        gain_sweep.blow_up(dataset.sel(activation=name)) for name in ("relu", "tanh")
    )
    near = abs(np.median(of_relu) / math.sqrt(2) - 1) <= TOLERANCE
    return study.claim(
        "relu-blows-up",
        "The state of ReLU blows up from a gain of √2 on, and that of tanh never.",
        bool(near and np.isinf(of_tanh).all()),
        measured={
            "gain from which half of ReLU's runs blow up": float(np.median(of_relu)),
            "fraction of tanh runs that blow up": float(np.isfinite(of_tanh).mean()),
        },
        criterion=f"half of ReLU's runs have blown up at a gain within {TOLERANCE:.0%} of √2, and "
        "none of tanh's at any gain",
    )


EXPERIMENT = study.Experiment(
    name="relu_vs_tanh",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    section="training",
    order=5,
    gallery={"relu_vs_tanh": study.Picture()},
    quick={
        "activations": ("tanh", "relu", "identity"),
        "inits": "orthogonal,identity",
        "input_stds": (0.01, 1.0),
        "learning_rates": (0.001, 0.01),
        "hidden_size": 6,
        "input_size": 2,
        "num_steps": 12,
        "num_gains": 6,
        "task": "adding(num_steps=6)",
        "num_updates": 10,
        "eval_every": 5,
        "batch_size": 4,
        "num_seeds": 2,
    },
    full={
        "hidden_size": 64,
        "num_steps": 200,
        "num_gains": 120,
        "task": "adding(num_steps=100)",
        "num_validation": 2,
        "num_updates": 3000,
    },
    doc=__doc__,
)
