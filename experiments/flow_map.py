"""Whether the flow of the gradient is the same all along a sequence: ‖∂h_t/∂h_k‖ for every pair.

A map of log10 ‖∂h_t/∂h_k‖ over k and t, from the product of the step Jacobians on the whole
carry, ∂s_t/∂s_k = J_t J_{t-1} ... J_{k+1}, of which the block from source to target is taken
last; and two cuts through it: against the lag t - k, over all pairs of a lag, and along the time
t at a few lags. The claim: once the carry has forgotten where it started, what counts is the
lag alone, and the decay per step is as fast late in a sequence as it is early.

Source: Bengio, Simard, Frasconi 1994, doi:10.1109/72.279181; Pascanu, Mikolov, Bengio 2013,
arXiv:1211.5063.

    python experiments/flow_map.py --cell=lstm
    python experiments/flow_map.py --cell='gru(recurrent_init="orthogonal(gain=0.9)")'
    python experiments/flow_map.py --cell=path/to/mine.py:my_cell --inputs=digits --num_steps=64

Takes about ten seconds on two cores at the defaults.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np

from gradflow import flow, study
from gradflow.cells import resolve
from gradflow.flow.norm_map import log_norm_map
from gradflow.structure import check_structure
from gradflow.tasks.inputs import make_inputs

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CUT = "#b0b0b0"
"""The colour of an exact zero: a grey, which the colour map does not have."""

LAG_COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7")


@dataclass(frozen=True)
class Config(study.Config):
    """What is measured, on what."""

    cell: str = study.field(
        "lstm",
        help="One cell: a name, name(option=value), path/to/file.py:factory or "
        "package.module:factory.",
    )
    hidden_size: int = study.field(32, help="Hidden units.", positive=True)
    input_size: int = study.field(16, help="Channels of inputs that can have any number.")
    num_steps: int = study.field(100, help="Steps T of the sequence.", positive=True)
    num_sequences: int = study.field(1, help="Input sequences for each seed.", positive=True)
    inputs: str = study.field(
        "gaussian",
        help="gaussian, constant, impulse, adding, digits, text:PATH, series:PATH:COLUMN or "
        "npy:PATH, the first five with options.",
    )
    source: str = study.field("h", help="Block of s_k: h, carry, or a field such as c.")
    target: str = study.field("h", help="Block of s_t.")
    norm: Literal["spectral", "frobenius"] = study.field("spectral", help="Which norm.")
    lags: tuple[int, ...] = study.field(
        (1, 10, 50), help="Lags that are drawn along time.", positive=True
    )


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Measures every pair; dimensions run (seeds times sequences), later (t), earlier (k)."""
    if max(config.lags) >= config.num_steps:
        raise ValueError(
            f"lags below num_steps={config.num_steps} are expected, got lags={config.lags}; "
            "leave the longer ones out"
        )
    return once(f"cell={config.cell}", partial(_measure, config))


def _measure(config: Config) -> "xarray.Dataset":
    import xarray

    k_params, k_inputs = (jax.random.fold_in(jax.random.key(config.seed), i) for i in range(2))
    inputs = make_inputs(
        config.inputs,
        k_inputs,
        num_sequences=config.num_seeds * config.num_sequences,
        num_steps=config.num_steps,
        input_size=config.input_size,
    )
    factory = resolve(config.cell)
    check_structure(factory)
    cell = factory(inputs.shape[-1], config.hidden_size)
    kind = {"source": config.source, "target": config.target, "norm": config.norm}
    measure = jax.jit(partial(log_norm_map, cell, **kind))
    params = [cell.init(key) for key in jax.random.split(k_params, config.num_seeds)]
    maps = [
        np.asarray(measure(params[i // config.num_sequences], x))
        for i, x in study.progress(list(enumerate(inputs)), "runs")
    ]
    steps = np.arange(maps[0].shape[-1])
    return xarray.Dataset(
        {"log_norm": (("run", "later", "earlier"), np.stack(maps), {"units": "nats", **kind})},
        coords={
            "later": ("later", steps, {"units": "steps"}),
            "earlier": ("earlier", steps, {"units": "steps"}),
        },
        attrs={
            "cell": config.cell,
            "lags": sorted(set(config.lags)),
            "num_networks": config.num_seeds,
        },
    )


def at_lag(dataset: "xarray.Dataset", lag: int) -> np.ndarray:
    """Log norms of all pairs of one lag, of shape (run, t - lag)."""
    return np.diagonal(dataset.log_norm.values, -lag, axis1=1, axis2=2)


def figure(dataset: "xarray.Dataset") -> "Figure":
    """The map; below it the norm against lag, and along time."""
    from matplotlib.figure import Figure

    names = dataset.log_norm.attrs
    block = rf"\partial {names['target']}_t/\partial {names['source']}_k"
    size = rf"$\log_{{10}}\,\|{block}\|$"
    fig = Figure(figsize=(5.2, 6.2))
    top, bottom = fig.subfigures(2, 1, height_ratios=(5, 3), squeeze=False)[:, 0]
    _draw_map(top.subplots(), dataset, size)
    left, right = bottom.subplots(1, 2, sharey=True)
    _draw_against_lag(left, dataset)
    left.set(xlabel="lag t − k (steps)", ylabel=size, title="All pairs of a lag")
    _draw_along_time(right, dataset)
    right.set(xlabel="later step t", title="Along time, by lag")
    return fig


def _draw_map(ax: "Axes", dataset: "xarray.Dataset", size: str) -> None:
    from matplotlib.colors import ListedColormap

    decades = np.median(dataset.log_norm.values, axis=0) / np.log(10)
    look: Any = {"origin": "lower", "interpolation": "nearest"}
    image = ax.imshow(np.where(np.isfinite(decades), decades, np.nan), cmap="viridis", **look)
    cut = np.where(np.isneginf(decades), 1.0, np.nan)
    ax.imshow(cut, cmap=ListedColormap([CUT]), **look)
    ax.figure.colorbar(image, ax=ax, label=size, shrink=0.9)
    ax.grid(False)
    title = f"{dataset.attrs['cell']}: median over runs"
    ax.set(xlabel="earlier step k", ylabel="later step t", title=title)
    note = "no pair:\nk > t" + ("\n\ngrey: exactly 0" if np.isneginf(decades).any() else "")
    ax.text(0.95, 0.08, note, transform=ax.transAxes, ha="right", fontsize=8, color="#606060")


def _draw_against_lag(ax: "Axes", dataset: "xarray.Dataset") -> None:
    lags = dataset.later.values
    with np.errstate(invalid="ignore"):  # between two infinities lies nan, which is a gap
        quantiles = [np.quantile(at_lag(dataset, lag), [0.1, 0.5, 0.9]) for lag in lags]
    low, middle, high = np.where(np.isfinite(quantiles), quantiles, np.nan).T / np.log(10)
    ax.plot(lags, middle, color="#000000", label="median")
    ax.fill_between(lags, low, high, color="#000000", alpha=0.2, lw=0, label="10–90 %")
    ax.set_xlim(0, lags[-1])
    ax.legend()


def _draw_along_time(ax: "Axes", dataset: "xarray.Dataset") -> None:
    for index, lag in enumerate(np.atleast_1d(dataset.attrs["lags"])):
        decades = at_lag(dataset, lag) / np.log(10)
        color = LAG_COLORS[index % len(LAG_COLORS)]
        line = study.figure.band(ax, dataset.later[lag:], decades, 0, color=color)
        line.set_label(f"{lag}")
    ax.set_xlim(0, dataset.sizes["later"] - 1)
    ax.legend(title="lag", ncols=len(np.atleast_1d(dataset.attrs["lags"])), handlelength=1.2)


def mean_by_lag(dataset: "xarray.Dataset", first: int, last: int) -> np.ndarray:
    """The mean log norm over the pairs first <= k <= t <= last, (network, sequence, lag)."""
    part = dataset.isel(later=slice(first, last + 1), earlier=slice(first, last + 1))
    curves = [at_lag(part, lag).mean(axis=1) for lag in range(last - first + 1)]
    return np.stack(curves, axis=1).reshape(dataset.attrs["num_networks"], -1, len(curves))


def summary(dataset: "xarray.Dataset") -> str:
    """The decay per step within the first half against that within the second half."""
    num_steps = dataset.sizes["later"] - 1
    half = num_steps // 2
    early = mean_by_lag(dataset, 0, half)
    late = mean_by_lag(dataset, num_steps - half, num_steps)
    rows = [
        _row(f"0 to {half}", flow.summary(early)),
        _row(f"{num_steps - half} to {num_steps}", flow.summary(late)),
    ]
    # A slope is linear in its curve: that of the difference is the difference of the slopes.
    with np.errstate(invalid="ignore"):
        change = flow.summary(late - early)
    one = dataset.attrs["num_networks"] == 1 < dataset.sizes["run"]
    over = "\n(intervals over the input sequences of one network)" if one else ""
    return f"{study.table(rows)}\n{_verdict(change)}{over}"


def _row(steps: str, s: flow.Summary) -> dict[str, str]:
    return {"steps": steps, "decay per step": f"{s.decay:.4f}"}


def _verdict(change: flow.Summary) -> str:
    ratio = change.decay
    if not np.isfinite([ratio.low, ratio.high]).all():
        return "late over early: undecided; it takes two runs, and no exact zeros"
    word = "stationary in time" if ratio.low <= 1 <= ratio.high else "not stationary in time"
    return f"late over early: {ratio:.4f}, {word}"


EXPERIMENT = study.Experiment(
    name="flow_map",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    section="flow",
    order=3,
    gallery={"flow_map": study.Picture()},
    quick={"hidden_size": 8, "num_steps": 20, "num_seeds": 3, "lags": (1, 5, 10)},
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
