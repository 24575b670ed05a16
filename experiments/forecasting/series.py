"""Forecasts of real series from rolling origins."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from forecasting.arima import arima
from forecasting.config import Config
from forecasting.forecasters import Forecaster
from forecasting.parts import (
    AHEAD,
    COLORS,
    MARKERS,
    WINDOWS,
    Folder,
    coverage,
    fit,
    horizon,
    interval,
    lags_of,
    log_norms,
    plan_of,
    probed,
    save_cell,
    together,
)
from forecasting.training import Forecasting
from gradflow import statistics, study
from gradflow.data.published_series import PUBLISHED, read_published
from gradflow.data.series import Series, read_series
from gradflow.tasks import forecasting as f

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

TRUTH = {"color": "#000000", "lw": 1.0}

SHOWN = 12
"""Origins of a real series' test that are drawn, one behind the other."""


class Real(NamedTuple):
    """A real series.

    Attributes:
      series: The values and their dates.
      name: What to call it.
      unit: Of the values.
      step: What lies between two of them.
      period: Steps in a season, if it has any.
    """

    series: Series
    name: str
    unit: str = "units of the file"
    step: str = "step"
    period: int | None = None


def real(config: Config) -> Real:
    """Reads the series that the configuration names; of Bitcoin the years 2014 to 2019."""
    if config.series is not None:
        path, _, column = config.series.rpartition(":")
        if not Path(path).expanduser().is_file():
            raise ValueError(
                f"Expected PATH:COLUMN of a CSV file, got {config.series!r}. There is no such file."
            )
        series = read_series(Path(path).expanduser(), column)
        return Real(series, f"{Path(path).stem}: {column}", period=config.period)
    series, known = read_published(config.data, config.data_dir), PUBLISHED[config.data]
    if config.data == "bitcoin" and series.times is not None:
        years = series.times.astype("datetime64[Y]").astype(int) + 1970
        kept = (2014 <= years) & (years <= 2019)
        series = Series(series.values[kept], series.times[kept])
    period = config.period or known.period
    return Real(series, config.data, known.unit, known.step, period)


def views(config: Config, found: Real) -> dict[str, tuple[np.ndarray, str]]:
    """Returns what is forecast, with its unit: values, and for prices log returns in per cent."""
    values = found.series.values
    kept = {"level": (values, found.unit)}
    if config.returns or config.data == "bitcoin":
        if values.min() <= 0:
            raise ValueError(
                f"Expected positive values for returns, got {values.min():g}. Remove --returns."
            )
        kept["returns"] = (100 * np.diff(np.log(values)), "%")
    return kept


class Scaled:
    """A series scaled to mean 0 and standard deviation 1 of its first part, and its windows."""

    def __init__(self, values: np.ndarray, num_steps: int, are_changes: bool) -> None:
        self.fitted, self.chosen = (int(len(values) * s) for s in np.cumsum(f.SPLIT))
        self.mean = 0.0 if are_changes else values[: self.fitted].mean()
        self.std = values[: self.fitted].std()
        if not self.std > 0:
            raise ValueError(
                f"Expected a series that varies, got {values[0]} throughout its first part."
            )
        self.values = (values - self.mean) / self.std
        self.are_changes, self.first = are_changes, self.chosen - 1
        self.parts = f.split_in_time(self.values, num_steps, AHEAD)


def run_real(config: Config, nets: dict[str, Forecaster], once: study.Once) -> "xarray.Dataset":
    import xarray

    found, parts = real(config), []
    for view, (values, unit) in views(config, found).items():
        data = Scaled(values, config.num_steps, view == "returns")
        rows = []
        for name in study.progress(config.names, f"models, {view}"):
            unit_name = f"view={view},model={name}"
            measure = partial(_measure_real, config, name, nets.get(name), data, found.period)
            rows.append(once(unit_name, partial(measure, folder=once.folder, view=view)))
        part = xarray.concat(rows, dim="model", join="outer", coords="minimal")
        truth = np.lib.stride_tricks.sliding_window_view(values[data.first + 1 :], AHEAD)
        offset = len(found.series.values) - len(values)  # the first value has no return
        part = part.assign(truth=(("origin", "lead"), truth))
        part = part.assign_coords(origin=part.origin + offset)
        parts.append(part.expand_dims(view=[view]).assign(unit=("view", [unit])))
    whole = xarray.concat(parts, dim="view", join="outer", coords="minimal")
    about = {"kind": "real", "series": found.name, "step": found.step}
    times = found.series.times
    if times is not None:
        whole = whole.assign(time=("origin", times[whole.origin.values].astype(str)))
    return whole.assign(value=("index", found.series.values)).assign_attrs(about)


def _measure_real(
    config: Config,
    name: str,
    net: Forecaster | None,
    data: Scaled,
    period: int | None,
    folder: Folder,
    view: str,
) -> "xarray.Dataset":
    import xarray

    curves, measured = np.full((1, 1), np.nan), {}
    if net is None:
        found = _plain_forecasts(name, data, period)
    else:
        training = Forecasting(
            net, {"seq2seq" if net.cell else "direct": data.parts}, plan_of(config)
        )
        fitted, measured = fit(config, training, folder, f"view={view},model={name},fit")
        (params,) = fitted.values()
        found = [training.forecast(params, part.inputs) for part in data.parts]
        place = folder(f"view={view},model={name}")
        save_cell(config, name, net, params, place and study.params_folder(place) / view)
        inputs = data.parts.test.inputs
        curves = log_norms(net, params, inputs[:: -(-len(inputs) // WINDOWS)])
    targets = [part.targets[:, -1] for part in data.parts]
    train, valid, test = found
    offset = interval(valid, targets[1])
    squares = np.mean((test - targets[2]) ** 2, axis=0) * data.std**2
    origin = data.first + np.arange(len(squares))
    along, times = probed(config, measured)
    on_train = np.sqrt(np.nanmean((train[..., 0] - targets[0][:, 0]) ** 2)) * data.std
    return xarray.Dataset(
        {
            "square": (("model", "origin", "lead"), squares[None]),
            "forecast": (("model", "origin", "lead"), (test[0] * data.std + data.mean)[None]),
            "offset": (("model", "end", "lead"), (offset * data.std)[None]),
            "coverage": (("model",), [coverage(test, targets[2], offset)]),
            "rmse_train": (("model",), [on_train]),
            "log_norm": (("model", "curve", "lag"), curves[None], {"units": "nats"}),
            **along,
        },
        coords={
            "model": [name],
            "curve": np.arange(len(curves)),
            "origin": origin,
            "lead": np.arange(1, AHEAD + 1),
            "lag": ("lag", lags_of(net, curves), {"units": "steps of the series"}),
            **times,
        },
    )


def _plain_forecasts(name: str, data: Scaled, period: int | None) -> list[np.ndarray]:
    """Of a model without a gradient, on the three parts, with an axis for its one seed."""
    parts, steps = data.parts, data.parts.train.inputs.shape[1]
    first = (steps - 1, data.fitted - 1, data.chosen - 1)
    if name == "naive":
        still = 0 if data.are_changes else 1  # a price that stays has a return of zero
        return [f.naive(part.inputs, AHEAD)[None] * still for part in parts]
    if name == "linear":
        weights = f.least_squares(parts.train.inputs, parts.train.targets[:, -1])
        return [f.linear(weights, part.inputs)[None] for part in parts]
    if name == "arima":
        every = arima(data.values, data.fitted, data.chosen, AHEAD).forecasts
        return [
            every[start : start + len(part.inputs)][None]
            for start, part in zip(first, parts, strict=True)
        ]
    if period is None:
        raise ValueError("Expected the period of the seasonal naive forecast. Set --period=12.")
    early = max(first[0], period - 1)  # before it there is no whole season
    every = f.seasonal_naive(data.values, early, AHEAD, period)
    padded = np.concatenate([np.full((early, AHEAD), np.nan), every])
    return [
        padded[start : start + len(part.inputs)][None]
        for start, part in zip(first, parts, strict=True)
    ]


def draw_origins(ax: "Axes", dataset: "xarray.Dataset") -> None:
    ratios = {name: _ratios(dataset, name)[1] for name in map(str, dataset.model.values)}
    model = min(ratios, key=lambda name: ratios[name][0])
    data = dataset.dropna("origin", how="all", subset=["truth"])
    chosen = data.isel(origin=slice(None, None, AHEAD)).isel(origin=slice(-SHOWN, None))
    start = int(chosen.origin[0]) - 2 * AHEAD
    end = int(chosen.origin[-1]) + AHEAD + 1
    ax.plot(np.arange(start, end), dataset.value.values[start:end], **TRUTH, label="truth")
    for number, origin in enumerate(chosen.origin.values):
        at = chosen.forecast.sel(model=model, origin=origin).values
        low, high = at + chosen.offset.sel(model=model).values
        future = origin + chosen.lead.values
        look = {"color": COLORS[number % 2], "lw": 1.4}
        ax.plot(
            future, at, **look, label=f"{model}, from every tenth origin" if not number else None
        )
        ax.fill_between(future, low, high, color=COLORS[number % 2], alpha=0.25, lw=0)
    dates = ""
    if "time" in chosen:
        dates = f", {str(chosen.time.values[0])[:10]} to {str(chosen.time.values[-1])[:10]}"
    ax.set(xlabel=f"{dataset.attrs['step']} of the series", ylabel=str(dataset.unit.values))
    ax.set_title(f"{dataset.attrs['series']}: the best model, with 80 % intervals{dates}")
    ax.margins(y=0.2)
    ax.legend(fontsize=7, loc="upper left", ncols=2)


def draw_ratios(ax: "Axes", dataset: "xarray.Dataset") -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    names = [str(name) for name in dataset.model.values if str(name) != "naive"]
    sets = [(str(view), step) for view in dataset.view.values for step in (0, 1)]
    for index, (view, step) in enumerate(sets):
        rows = np.array([_ratios(dataset.sel(view=view), name)[step] for name in names])
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
    ax.set_yticks(np.arange(len(names)), [name.replace("_", " ") for name in names])
    ax.invert_yaxis()
    below = {"loc": "upper center", "bbox_to_anchor": (0.4, -0.13), "ncols": 2}
    ax.legend(fontsize=7, handlelength=1.2, **below)


def _ratios(
    dataset: "xarray.Dataset", name: str, *, to: str = "naive"
) -> list[tuple[float, float, float]]:
    """Squared error over that of another model, at one step and over all, with its interval."""
    found = []
    data = dataset.square.dropna("origin", how="all")
    for leads in ([1], data.lead.values):
        own, other = (data.sel(model=m, lead=leads).mean("lead").values for m in (name, to))
        low, high = statistics.block_bootstrap(own, other, 4 * AHEAD)
        found.append((float(own.mean() / other.mean()), low, high))
    return found


PUBLISHED_BITCOIN = (
    "published, of other dates and prices and so for scale alone: Raju & Tarif 2020 give an RMSE "
    "of 198.448 USD\nfor an LSTM that reads prices, 197.515 for one that reads more, and 209.263 "
    "for ARIMA; none for the naive forecast"
)


def summary_real(dataset: "xarray.Dataset") -> str:
    """The table of each view, and what beats the naive forecast."""
    views = [_summary_view(dataset.sel(view=view)) for view in dataset.view.values]
    lines = [f"{dataset.attrs['series']}, intervals by blocks of {4 * AHEAD} origins", *views]
    if dataset.attrs["series"] == "bitcoin":
        lines.append(PUBLISHED_BITCOIN)
    return "\n\n".join(lines)


def _summary_view(data: "xarray.Dataset") -> str:
    names, rows = [str(name) for name in data.model.values], []
    for name in names:
        one, all_steps = _ratios(data, name)
        own = data.sel(model=name)
        row = {
            str(data.view.values): name,
            "RMSE train": f"{float(own.rmse_train):.5g}",
            "RMSE test": f"{np.sqrt(float(own.square.sel(lead=1).mean())):.5g}",
            "MSE / naive": _shown(one),
            f"RMSE 1-{AHEAD}": f"{np.sqrt(float(own.square.mean())):.5g}",
            f"MSE / naive, 1-{AHEAD}": _shown(all_steps),
            "in 80 %": f"{float(own.coverage):.2f}",
            "horizon": horizon(data, name)[1],
        }
        if str(data.view.values) == "returns":
            row["as price"] = f"{_price_error(data, name):.5g}"
        rows.append(row)
    unit = str(data.unit.values)
    horizons = np.array([horizon(data, name)[0] for name in names])
    errors = np.array([float(data.square.sel(model=name).mean()) for name in names])
    return "\n".join(
        [
            f"RMSE one step ahead, in {unit}",
            study.table(rows),
            *_beaten(data, names),
            together(horizons, errors),
        ]
    )


def _beaten(data: "xarray.Dataset", names: list[str]) -> Iterator[str]:
    """What is better than the naive forecasts, and whether anything is."""
    others = {"naive": "the naive forecast", "seasonal": "that of a season before"}
    others = {other: words for other, words in others.items() if other in names}
    better = {
        other: [
            {name for name in names if name != other and _ratios(data, name, to=other)[step][2] < 1}
            for step in (0, 1)
        ]
        for other in others
    }
    for other, words in others.items():
        for what, found in zip(
            ("one step ahead", f"over {AHEAD} steps"), better[other], strict=True
        ):
            listed = ", ".join(name for name in names if name in found) or "nothing"
            yield f"better than {words} {what}, the whole interval below 1: {listed}"
    one, ten = (
        study.verdict(bool(set.intersection(*step))) for step in zip(*better.values(), strict=True)
    )
    yield (
        f"something beats {' and '.join(others.values())} of {data.view.values}: "
        f"one step {one}, {AHEAD} steps {ten}"
    )


def _price_error(data: "xarray.Dataset", name: str) -> float:
    """RMSE in the unit of the prices of the first seed's next price, from its next return."""
    found = data.forecast.sel(model=name, lead=1).dropna("origin")
    at, prices = found.origin.values, data.value.values
    return float(np.sqrt(np.mean((prices[at] * np.exp(found.values / 100) - prices[at + 1]) ** 2)))


def _shown(ratio: tuple[float, float, float]) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*ratio)
