"""The figure of the study: of generated series, or of a real one."""

from typing import Any

import numpy as np
import xarray
from _kit import curves, outcomes, probes

from forecasting.generated import COLUMNS, EXAMPLES
from forecasting.measuring import AHEAD
from forecasting.ratios import ratios
from forecasting.reach import curves_of
from forecasting.results import best, published_for
from gradflow import study
from gradflow.flow.summary import HORIZON
from gradflow.study.figure import Axes, Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")

MARKERS = ("o", "s", "^", "v", "D")

TRUTH = {"color": "#000000", "lw": 1.0}

SHOWN = 12
"""Test origins of a real series that are drawn, one behind the other."""


def figure(dataset: xarray.Dataset) -> Figure:
    """Forecasts over the truth, the models' errors, the flow through the networks, the probes."""
    data = dataset if dataset.attrs["kind"] == "generated" else dataset.isel(view=0)
    heights = (2.6, 3.8, *(probes.ROW_HEIGHT for _ in probes.rows(data)))
    fig = study.figure.empty(7.2, sum(heights))
    parts: Any = fig.subfigures(len(heights), 1, height_ratios=heights)
    upper, lower, *rest = parts
    _draw_probes(rest, data)
    left, right = lower.subplots(1, 2, width_ratios=(3, 2))
    if dataset.attrs["kind"] == "generated":
        panels: Any = upper.subplots(1, EXAMPLES, sharey=True)
        _draw_examples(panels, dataset)
        _draw_errors(left, dataset)
        _draw_flow(right, dataset)
        return fig
    _draw_origins(upper.subplots(), data)
    _draw_ratios(left, dataset)
    _draw_flow(right, data)
    return fig


def _draw_examples(panels: Any, dataset: xarray.Dataset) -> None:
    model, column = best(dataset)
    data = dataset.sel(model=model)
    steps = dataset.sizes["step"]
    future = steps - 1 + dataset.lead.values
    for index, ax in enumerate(panels):
        history = data.history.isel(example=index).values
        ax.plot(np.arange(steps)[-25:], history[-25:], **TRUTH)
        truth = data.truth.isel(example=index).values
        ax.plot(future, truth, "x", color="#000000", ms=4, label="truth")
        for way, color, line in ((column, COLORS[0], "-"), ("iterated", COLORS[1], "--")):
            at = data.forecast.sel(column=way).isel(example=index).values
            low, high = at + data.offset.sel(column=way).values
            label = "at once" if way == column else way
            ax.plot(future, at, color=color, ls=line, lw=1.2, label=label)
            ax.fill_between(future, low, high, color=color, alpha=0.2, lw=0)
        ax.set_xlabel("step")
    panels[0].set_ylabel("value (dimensionless)")
    panels[0].set_title(f"Test series, {model} ({column})")
    panels[1].legend(loc="upper left", fontsize=7, handlelength=1.5)


def _draw_errors(ax: Axes, dataset: xarray.Dataset) -> None:
    names = [str(name) for name in dataset.model.values]
    for index, column in enumerate(COLUMNS):
        values = dataset.mse.sel(column=column)
        place = np.arange(len(names)) + 0.15 * (index - 2)
        middle = values.median("seed").values
        off = np.abs(np.stack([values.min("seed").values, values.max("seed").values]) - middle)
        look = {"fmt": MARKERS[index], "color": COLORS[index], "ms": 4, "lw": 1}
        label = {"own": "seq2seq, iterated"}.get(column, column)
        ax.errorbar(middle, place, xerr=off, label=label, **look)
        published = [published_for(dataset, name, column) or np.nan for name in names]
        ax.plot(published, place, MARKERS[index], mfc="none", mec="0.4", ms=7, mew=0.7)
    ax.set(xscale="log", xlabel="mean squared error (dimensionless)")
    ax.set_title("Errors: one step and ten; open: published")
    _name_rows(ax, names, ncols=3)


def _draw_origins(ax: Axes, dataset: xarray.Dataset) -> None:
    over_all = {name: ratios(dataset, name)[1] for name in map(str, dataset.model.values)}
    model = min(over_all, key=lambda name: over_all[name].value)
    data = dataset.dropna("origin", how="all", subset=["truth"])
    chosen = data.isel(origin=slice(None, None, AHEAD)).isel(origin=slice(-SHOWN, None))
    start = int(chosen.origin[0]) - 2 * AHEAD
    end = int(chosen.origin[-1]) + AHEAD + 1
    has_dates = "time" in dataset
    at = dataset.time.values.astype("datetime64[D]") if has_dates else dataset.index.values
    ax.plot(at[start:end], dataset.value.values[start:end], **TRUTH, label="truth")
    for number, origin in enumerate(chosen.origin.values):
        forecast = chosen.forecast.sel(model=model, origin=origin).values
        low, high = forecast + chosen.offset.sel(model=model).values
        future, color = at[origin + chosen.lead.values], COLORS[number % 2]
        label = None if number else f"{model}, from every tenth origin"
        ax.plot(future, forecast, color=color, lw=1.4, label=label)
        ax.fill_between(future, low, high, color=color, alpha=0.25, lw=0)
    ax.set_ylabel(str(dataset.unit.values))
    if not has_dates:
        ax.set_xlabel(f"{dataset.attrs['step']} of the series")
    ax.set_title(f"{dataset.attrs['series'].capitalize()}: the best model, with 80 % intervals")
    ax.margins(y=0.2)
    if (dataset.value >= 0).all() and ax.get_ylim()[0] < 0:
        ax.set_ylim(
            bottom=0
        )  # the lower end of an interval is an error's quantile below a forecast
    ax.legend(fontsize=7, loc="upper left", ncols=2)


def _draw_ratios(ax: Axes, dataset: xarray.Dataset) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    names = [str(name) for name in dataset.model.values if str(name) != "naive"]
    sets = [(str(view), step) for view in dataset.view.values for step in (0, 1)]
    for index, (view, step) in enumerate(sets):
        rows = np.array([ratios(dataset.sel(view=view), name)[step] for name in names])
        place = np.arange(len(names)) + 0.18 * (index - (len(sets) - 1) / 2)
        off = np.abs(rows[:, 1:].T - rows[:, 0])
        steps = f"1 to {AHEAD} steps" if step else "1 step"
        look = {"fmt": MARKERS[index], "color": COLORS[index], "ms": 4, "lw": 1}
        label = f"{view}, {steps}" if len(dataset.view) > 1 else steps
        ax.errorbar(rows[:, 0], place, xerr=off, label=label, **look)
    ax.axvline(1, color="#000000", lw=0.8)
    ax.set(xscale="log", xlabel="squared error / that of the naive forecast")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_title("Errors on the test; 95 % over blocks of origins")
    _name_rows(ax, names, ncols=2)


def _name_rows(ax: Axes, models: list[str], ncols: int) -> None:
    """Names the rows, from the top down, with the legend below them."""
    ax.set_yticks(np.arange(len(models)), [name.replace("_", " ") for name in models])
    ax.invert_yaxis()
    _legend_below(ax, ncols)


def _legend_below(ax: Axes, ncols: int) -> None:
    look: Any = {"fontsize": 7, "handlelength": 2.0, "columnspacing": 1.0}
    ax.legend(loc="upper center", bbox_to_anchor=(0.4, -0.13), ncols=ncols, **look)


def _draw_flow(ax: Axes, dataset: xarray.Dataset) -> None:
    measured = _measured(dataset)
    others = [name for name in measured if name not in study.figure.CELL_STYLES]
    for name, (lag, norms) in measured.items():
        look = study.figure.cell_style(name, others.index(name) if name in others else 0)
        every = max(1, len(lag) // study.figure.MARKERS_A_LINE)
        # Bands of seven networks would cover each other.
        median = np.median(norms, axis=0) / curves.NATS
        ax.plot(lag, median, **look, markevery=every, label=name.replace("_", " "))
    ax.axhline(np.log10(HORIZON), **outcomes.REFERENCE)
    ax.set(xlabel="lag T − k (steps of the series)", ylabel=curves.NORM)
    ax.set_title("Trained networks, median")
    ax.margins(x=0)
    if measured:
        _legend_below(ax, ncols=3)
    else:
        note = "no recurrent network\namong the models"
        ax.text(0.5, 0.5, note, ha="center", transform=ax.transAxes)


def _measured(dataset: xarray.Dataset) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The lags and the curves of each recurrent network."""
    names = map(str, dataset.model.values)
    return {name: found for name in names if (found := curves_of(dataset, name))}


def _draw_probes(parts: Any, dataset: xarray.Dataset) -> None:
    """The maps of each network, one row a probe."""
    networks = {name.replace("_", "\n"): dataset.sel(model=name) for name in _measured(dataset)}
    if len(parts):
        probes.draw_rows(parts, dataset, networks, time="epoch")
