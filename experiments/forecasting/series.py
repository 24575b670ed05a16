"""Forecasts of real series from rolling origins."""

import os
from functools import partial
from typing import NamedTuple

import numpy as np
import xarray

from forecasting import measuring
from forecasting.arima import arima
from forecasting.config import Config
from forecasting.forecasters import Forecaster
from forecasting.measuring import AHEAD, WINDOWS, Folder
from forecasting.training import Forecasting
from gradflow import study
from gradflow.data.published_series import PUBLISHED, read_published
from gradflow.data.series import Series, read_series
from gradflow.paths import user_path
from gradflow.tasks import forecasting as f


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


def files(config: Config) -> list[str]:
    """Lists the file of a real series."""
    if config.series is not None:
        return [config.series.rpartition(":")[0]]
    if config.data_dir is None or not config.is_real:
        return []
    return [os.path.join(config.data_dir, PUBLISHED[config.data].file)]


def real(config: Config) -> Real:
    """Reads the series that the configuration names; of Bitcoin the years 2014 to 2019."""
    if config.series is not None:
        place, _, column = config.series.rpartition(":")
        path = user_path(place)
        if not path.is_file():
            raise ValueError(
                f"Expected PATH:COLUMN of a CSV file, got {config.series!r}. There is no such file."
            )
        return Real(read_series(path, column), f"{path.stem}: {column}", period=config.period)
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


def run_real(config: Config, nets: dict[str, Forecaster], once: study.Once) -> xarray.Dataset:
    """Forecasts a real series by every model; dimensions view, model, origin, lead."""
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
        whole = whole.assign(time=("index", times.astype(str)))
    return whole.assign(value=("index", found.series.values)).assign_attrs(about)


def _measure_real(
    config: Config,
    name: str,
    net: Forecaster | None,
    data: Scaled,
    period: int | None,
    folder: Folder,
    view: str,
) -> xarray.Dataset:
    """Forecasts from every origin, and measures the flow through the model."""
    norms, measured = np.full((1, 1), np.nan), {}
    if net is None:
        found = _plain_forecasts(name, data, period)
    else:
        found, norms, measured = _trained(config, name, net, data, folder, view)
    targets = [part.targets[:, -1] for part in data.parts]
    train, valid, test = found
    offset = measuring.interval(valid, targets[1])
    squares = np.mean((test - targets[2]) ** 2, axis=0) * data.std**2
    on_train = np.sqrt(np.nanmean((train[..., 0] - targets[0][:, 0]) ** 2)) * data.std
    own = {
        "square": (("model", "origin", "lead"), squares[None]),
        "forecast": (("model", "origin", "lead"), (test[0] * data.std + data.mean)[None]),
        "offset": (("model", "end", "lead"), (offset * data.std)[None]),
        "coverage": (("model",), [measuring.coverage(test, targets[2], offset)]),
        "rmse_train": (("model",), [on_train]),
    }
    whole = measuring.record(config, name, net, norms, measured, own)
    return whole.assign_coords(origin=data.first + np.arange(len(squares)))


def _trained(
    config: Config, name: str, net: Forecaster, data: Scaled, folder: Folder, view: str
) -> tuple[list[np.ndarray], np.ndarray, dict[str, np.ndarray]]:
    """Trains a network: its forecasts on the three parts, the flow through it, its probes."""
    task = "seq2seq" if net.cell else "direct"
    training = Forecasting(net, {task: data.parts}, measuring.plan_of(config))
    fitted, measured = measuring.fit(config, training, folder, f"view={view},model={name},fit")
    params = fitted[task]
    place = folder(f"view={view},model={name}")
    measuring.save_cell(config, name, net, params, place and study.params_folder(place) / view)
    inputs = data.parts.test.inputs
    norms = measuring.log_norms(net, params, inputs[:: -(-len(inputs) // WINDOWS)])
    return [training.forecast(params, part.inputs) for part in data.parts], norms, measured


def _plain_forecasts(name: str, data: Scaled, period: int | None) -> list[np.ndarray]:
    """Forecasts of a model without a gradient on the three parts, with an axis of one seed."""
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
