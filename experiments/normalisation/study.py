"""Whether normalisation, dropout and zoneout help or hurt the flow of the gradient.

‖∂h_T/∂h_k‖ against the lag T - k, from a carry after a warm-up: with layer normalisation within the
step of an LSTM and a GRU; in a stack of two LSTMs, from the lower h to the upper, plain, with the
upper one's input normalised, or within both; under dropout of h in W_h (m ∘ h), with one mask for
the sequence (variational) or one for each step; under zoneout, sampled. And ‖∂L/∂h_k‖ of a
batch-normalised network, by γ::

    H_t = tanh(γ N(H_{t-1} W_hᵀ) + γ_x N(X_t W_xᵀ) + b)     N normalises over the batch

with the statistics of the batch at each step: the whole batch is the carry of one cell, so that
paths from one example to another, through mean and variance, count. L = Σ u ∘ H_T, u random. In a
wide network with a large batch log ‖∂L/∂h_k‖ changes per step by (γ_x = γ or γ/10,
z ~ N(0, γ² + γ_x²))::

    log γ + ½ log E tanh'(z)² - ½ log E tanh(z)²

The claims, each with its rule: layer normalisation within the step and zoneout slow the decay, and
dropout per step speeds it up against variational dropout (the 95 % interval of the paired
difference is on that side); layer normalisation between layers does not change the decay (by more
than 10 %); and a smaller γ slows the decay (in order over the γ).

Source: Ba, Kiros, Hinton 2016, arXiv:1607.06450; Cooijmans et al. 2017, arXiv:1603.09025, Fig. 1
(a) and (b), on sequential MNIST; Gal & Ghahramani 2016, arXiv:1512.05287; Krueger et al. 2016,
arXiv:1606.01305.

    python experiments/normalisation
    python experiments/normalisation --hidden_size=128 --gammas=0.1,1,3 --num_seeds=5

Takes about a minute on two cores at the defaults.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import xarray
from _kit import decisions, rates

from gradflow import statistics, study
from normalisation.figure import figure
from normalisation.measuring import (
    Config,
    measure_batch,
    measure_dropout,
    measure_net,
    measure_zoneout,
)
from normalisation.networks import networks

SAME = 0.1
"""The relative change of a decay up to which it counts as unchanged."""


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures each network; dimensions net, or rate, or gamma, and run, lag."""
    for name in ("dropout", "zoneout"):
        if not all(0 <= rate < 1 for rate in getattr(config, name)):
            raise ValueError(
                f"Expected rates in [0, 1), got {name}={getattr(config, name)}. Change --{name}."
            )
    if list(config.gammas) != sorted(set(config.gammas)):
        raise ValueError(f"Expected gammas in ascending order, got {config.gammas}. Sort --gammas.")
    cells = networks(config.input_size, config.hidden_size)
    parts = [
        once(f"net={name}", partial(measure_net, config, name, cell))
        for name, cell in study.progress(cells.items(), "networks")
    ]
    rest = {"dropout": measure_dropout, "zoneout": measure_zoneout, "batch": measure_batch}
    more = [once(name, partial(measure, config)) for name, measure in rest.items()]
    joined = xarray.concat(parts, dim="net", join="exact")
    return xarray.merge([joined, *more], join="exact", compat="no_conflicts")


class Change(NamedTuple):
    """A change to a network, with the slope of each run before and after it.

    Attributes:
      id: That of the claim.
      statement: What the change is claimed to do.
      expected: The change of the decay: slower, faster or the same.
      before: Nats per step, by run.
      after: The same with the change, from the same seeds.
    """

    id: str
    statement: str
    expected: str
    before: np.ndarray
    after: np.ndarray

    @property
    def difference(self) -> statistics.Estimate:
        """The paired difference of the slopes."""
        return statistics.estimate(self.after - self.before)

    @property
    def holds(self) -> bool | None:
        """Whether the change is the expected one, by the interval of the difference."""
        if self.expected == "the same":
            bound = SAME * abs(self.before.mean())
            return decisions.within(self.difference, -bound, bound)
        decide = decisions.above if self.expected == "slower" else decisions.below
        return decide(self.difference)


def changes(dataset: xarray.Dataset) -> list[Change]:
    """All changes that are claimed to do something, with their slopes."""
    net = {str(name): rates.slopes(dataset.log_norm.sel(net=name)) for name in dataset.net.values}
    variational, per_step = rates.slopes(dataset.log_norm_dropout)[..., -1]
    zoned = rates.slopes(dataset.log_norm_zoneout)
    within = "Layer normalisation within the step slows the decay of the gradient in {}."
    dropout, zoneout = (float(dataset[name][-1]) for name in ("dropout", "zoneout"))
    return [
        Change("layer-norm-lstm", within.format("an LSTM"), "slower",
               net["lstm"], net["lstm_layer_norm"]),
        Change("layer-norm-gru", within.format("a GRU"), "slower",
               net["gru"], net["gru_layer_norm"]),
        Change("layer-norm-stack", within.format("a stack"), "slower",
               net["stack"], net["stack_within"]),
        Change("layer-norm-between", "Layer normalisation between layers does not change the decay "
               "of the gradient.", "the same", net["stack"], net["stack_between"]),
        Change("dropout-per-step", f"At a rate of {dropout:g}, dropout per step makes the gradient "
               "decay faster than variational dropout.", "faster", variational, per_step),
        Change("zoneout", f"Zoneout at a rate of {zoneout:g} slows the decay of the gradient.",
               "slower", zoned[:, 0], zoned[:, -1]),
    ]  # fmt: skip


def summary(dataset: xarray.Dataset) -> str:
    """What each change does to the log factor per step, paired by run, and the growth by γ."""
    rows = [
        {
            "change": change.id,
            "nats per step": f"{change.before.mean():+.4f}",
            "with it": f"{change.after.mean():+.4f}",
            "difference": f"{change.difference:+.4f}",
        }
        for change in changes(dataset)
    ]
    by_gamma = [_gamma_row(dataset, at) for at in range(dataset.sizes["input_factor"])]
    return f"{study.table(rows)}\n\n{study.table(by_gamma)}"


def _gamma_row(dataset: xarray.Dataset, at: int) -> dict[str, str]:
    found, theory = rates.slopes(dataset.log_adjoint[:, at]), dataset.theory.values[at]
    return {
        "batch norm": f"gamma_x = {float(dataset.input_factor[at]):g} gamma",
        **{
            f"nats per step at gamma {float(dataset.gamma[end]):g}": (
                f"{statistics.estimate(found[:, end]):+.4f}"
            )
            for end in (0, -1)
        },
        "off theory by up to": f"{np.abs(found.mean(axis=0) - theory).max():.3f}",
    }


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """What each change does to the decay of the gradient."""
    factors = dataset.input_factor.values
    return [*map(_claim, changes(dataset)), *(_gamma_claim(dataset, float(f)) for f in factors)]


def _claim(change: Change) -> study.Claim:
    same = f"the 95 % interval of the paired difference lies within {SAME:.0%} of the decay"
    side = "above" if change.expected == "slower" else "below"
    return study.claim(
        change.id,
        change.statement,
        change.holds,
        measured={"difference": change.difference},
        unit="nats per step",
        criterion=same
        if change.expected == "the same"
        else f"the 95 % interval of the paired difference in nats per step lies {side} 0",
    )


def _gamma_claim(dataset: xarray.Dataset, factor: float) -> study.Claim:
    means = rates.slopes(dataset.log_adjoint.sel(input_factor=factor)).mean(axis=0)
    return study.claim(
        f"small-gamma-input-{factor:g}".replace(".", "-"),
        f"With γ_x = {factor:g} γ, a smaller γ of batch normalisation slows the decay.",
        bool((np.diff(means) < 0).all()),
        measured={
            f"γ = {gamma:g}": float(mean)
            for gamma, mean in zip(dataset.gamma.values, means, strict=True)
        },
        unit="nats per step",
        criterion="the mean growth per step falls from each γ to the next",
    )


EXPERIMENT = study.Experiment(
    name="normalisation",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    section="flow",
    order=9,
    gallery={"normalisation": study.Picture()},
    quick={
        "dropout": (0.0, 0.5),
        "zoneout": (0.0, 0.5),
        "gammas": (0.1, 1.0),
        "batch_size": 6,
        "hidden_size": 6,
        "input_size": 4,
        "num_steps": 16,
        "warm_up": 8,
        "num_seeds": 5,
    },
    doc=__doc__,
)
