"""Whether the flow of the gradient is the same all along a sequence: ‖∂h_t/∂h_k‖ for every pair.

A map of log10 ‖∂h_t/∂h_k‖ over k and t, from the product of the step Jacobians on the whole
carry, ∂s_t/∂s_k = J_t J_{t-1} ... J_{k+1}, of which the block from source to target is taken
last; and two cuts through it: against the lag t - k, over all pairs of a lag, and along the time
t at a few lags. The claim: the factor per step is as large late in a sequence as it is early, so
that the lag alone determines the size of the gradient.

Source: Bengio, Simard, Frasconi 1994, doi:10.1109/72.279181; Pascanu, Mikolov, Bengio 2013,
arXiv:1211.5063.

    python experiments/flow_map.py --cell=lstm
    python experiments/flow_map.py --cell='gru(recurrent_init="orthogonal(gain=0.9)")'
    python experiments/flow_map.py --cell=path/to/mine.py:my_cell --inputs=digits --num_steps=64

Takes about ten seconds on two cores at the defaults.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import numpy as np
import xarray
from _kit import cells, curves, decisions, fields, rates, runs, subjects

from gradflow import flow, study
from gradflow.flow.norm_map import log_norm_map
from gradflow.statistics import Estimate
from gradflow.study.figure import Axes, Figure

SAME = 0.05
"""The relative change of the factor per step up to which the flow counts as stationary."""


@dataclass(frozen=True)
class Config(study.Config):
    """What is measured, on what."""

    cell: str = fields.cell("lstm")
    hidden_size: int = fields.hidden_size(32)
    input_size: int = fields.input_size(16)
    num_steps: int = fields.num_steps(100)
    num_sequences: int = fields.num_sequences(1)
    inputs: str = fields.inputs("gaussian")
    source: str | None = fields.source()
    target: str | None = fields.target()
    norm: Literal["spectral", "frobenius"] = fields.norm()
    lags: tuple[int, ...] = fields.lags((1, 10, 50))


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures every pair; dimensions run (seeds times sequences), later (t), earlier (k)."""
    if max(config.lags) >= config.num_steps:
        raise ValueError(
            f"Expected lags below num_steps={config.num_steps}, got lags={config.lags}. "
            "Remove the longer ones or raise --num_steps."
        )
    return once(f"cell={config.cell}", partial(_measure, config))


def _measure(config: Config) -> xarray.Dataset:
    inputs = runs.inputs(config)
    cell = cells.factory(config.cell)(inputs.shape[-1], config.hidden_size)
    params = runs.initialise(cell, runs.keys(config))
    kind = {**subjects.blocks(config, cell, params, inputs), "norm": config.norm}
    measure = jax.jit(partial(log_norm_map, cell, **kind))
    maps = []
    for i, x in study.progress(list(enumerate(inputs)), "runs"):
        network = jax.tree.map(lambda leaf, i=i: leaf[i // config.num_sequences], params)
        maps.append(np.asarray(measure(network, x)))
    steps = np.arange(config.num_steps + 1)
    return xarray.Dataset(
        {"log_norm": (("run", "later", "earlier"), np.stack(maps), {"units": "nats", **kind})},
        coords={name: (name, steps, {"units": "steps"}) for name in ("later", "earlier")},
        attrs={
            "cell": config.cell,
            "lags": sorted(set(config.lags)),
            "num_networks": config.num_seeds,
        },
    )


def at_lag(dataset: xarray.Dataset, lag: int) -> np.ndarray:
    """Gives the log norms of all pairs of one lag, of shape (run, t - lag)."""
    return np.diagonal(dataset.log_norm.values, -lag, axis1=1, axis2=2)


def figure(dataset: xarray.Dataset) -> Figure:
    """The map; below it the norm against lag, and along time."""
    names = dataset.log_norm.attrs
    label = curves.norm_label(names["source"], names["target"], later="t")
    fig = study.figure.empty(5.2, 6.2)
    top, bottom = fig.subfigures(2, 1, height_ratios=(5, 3), squeeze=False)[:, 0]
    _draw_map(top.subplots(), dataset, label)
    left, right = bottom.subplots(1, 2, sharey=True)
    _draw_against_lag(left, dataset)
    left.set(xlabel="lag t − k (steps)", ylabel=label, title="All pairs of a lag")
    _draw_along_time(right, dataset)
    right.set(xlabel="later step t", title="Along time, by lag")
    return fig


def _draw_map(ax: Axes, dataset: xarray.Dataset, label: str) -> None:
    from matplotlib.colors import ListedColormap

    values = np.median(dataset.log_norm.values, axis=0) / curves.NATS
    cut = np.isneginf(values)
    look: Any = {"origin": "lower", "interpolation": "nearest"}
    image = ax.imshow(np.where(np.isfinite(values), values, np.nan), cmap="viridis", **look)
    ax.imshow(np.where(cut, 1.0, np.nan), cmap=ListedColormap([curves.CUT]), **look)
    ax.figure.colorbar(image, ax=ax, label=label, shrink=0.9)
    ax.grid(False)
    title = f"{dataset.attrs['cell']}: median over runs"
    ax.set(xlabel="earlier step k", ylabel="later step t", title=title)
    note = "no pair:\nk > t" + ("\n\ngrey: exactly 0" if cut.any() else "")
    ax.text(0.95, 0.08, note, transform=ax.transAxes, ha="right", fontsize=8, color="#606060")


def _draw_against_lag(ax: Axes, dataset: xarray.Dataset) -> None:
    lags = dataset.later.values
    with np.errstate(invalid="ignore"):  # between two infinities lies a NaN, which is a gap
        quantiles = [np.quantile(at_lag(dataset, lag), [0.1, 0.5, 0.9]) for lag in lags]
    low, middle, high = np.where(np.isfinite(quantiles), quantiles, np.nan).T / curves.NATS
    ax.plot(lags, middle, color="#000000", label="median")
    ax.fill_between(lags, low, high, color="#000000", alpha=0.2, lw=0, label="10–90 %")
    ax.set_xlim(0, lags[-1])
    ax.legend()


def _draw_along_time(ax: Axes, dataset: xarray.Dataset) -> None:
    lags = np.atleast_1d(dataset.attrs["lags"])
    for index, lag in enumerate(lags):
        values = at_lag(dataset, lag) / curves.NATS
        color = curves.SHADES[index % len(curves.SHADES)]
        study.figure.band(ax, dataset.later[lag:], values, 0, color=color, label=f"{lag}")
    ax.set_xlim(0, dataset.sizes["later"] - 1)
    ax.legend(title="lag", ncols=len(lags), handlelength=1.2)


def mean_by_lag(dataset: xarray.Dataset, first: int, last: int) -> np.ndarray:
    """Averages log norms over the pairs first <= k <= t <= last, (network, sequence, lag)."""
    part = dataset.isel(later=slice(first, last + 1), earlier=slice(first, last + 1))
    means = [at_lag(part, lag).mean(axis=1) for lag in range(last - first + 1)]
    return np.stack(means, axis=1).reshape(dataset.attrs["num_networks"], -1, len(means))


def halves(dataset: xarray.Dataset) -> dict[str, np.ndarray]:
    """The curves within the first half of the steps, and within the second, by the steps."""
    num_steps = dataset.sizes["later"] - 1
    half = num_steps // 2
    ends = ((0, half), (num_steps - half, num_steps))
    return {f"{first} to {last}": mean_by_lag(dataset, first, last) for first, last in ends}


def late_over_early(dataset: xarray.Dataset) -> Estimate:
    """The ratio of the factors per step, that of the second half over that of the first."""
    early, late = halves(dataset).values()
    # A slope is linear in its curve: that of the difference is the difference of the slopes.
    with np.errstate(invalid="ignore"):
        return flow.summary(late - early).decay


def summary(dataset: xarray.Dataset) -> str:
    """The factor per step within the first half and within the second half of the steps."""
    rows = [
        {"steps": steps, "factor per step": f"{flow.summary(found).decay:.4f}"}
        for steps, found in halves(dataset).items()
    ]
    ratio = late_over_early(dataset)
    sentence = f"Factor per step late in the sequence over that early in it: {ratio:.4f}."
    return f"{study.table(rows)}\n{sentence}{rates.note(dataset)}"


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """Whether the flow is stationary in time."""
    ratio = late_over_early(dataset)
    return [
        study.claim(
            "stationary",
            "The factor per step is as large late in a sequence as it is early.",
            decisions.within(ratio, 1 - SAME, 1 + SAME),
            measured={"late over early": ratio},
            criterion=f"the 95 % interval of the ratio lies within {SAME:.0%} of 1",
        )
    ]


EXPERIMENT = study.Experiment(
    name="flow_map",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    section="flow",
    order=3,
    gallery={"flow_map": study.Picture()},
    quick={"hidden_size": 8, "num_steps": 20, "num_seeds": 3, "lags": (1, 5, 10)},
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
