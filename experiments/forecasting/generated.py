"""Forecasts of the generated series."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import xarray

from forecasting import measuring
from forecasting.config import Config
from forecasting.forecasters import Forecaster
from forecasting.measuring import AHEAD, WINDOWS, Folder
from forecasting.training import TASKS, Forecasting, Plan
from gradflow import study
from gradflow.tasks import forecasting as f

COLUMNS = ("one", "iterated", "direct", "seq2seq", "own")
"""How a network forecasts: own is the seq2seq network that runs autoregressively."""

EXAMPLES = 3
"""Generated test series in the figure."""


def generated(num_steps: int) -> dict[str, f.Split]:
    """Makes the notebook's windows, 7,000 / 2,000 / 1,000; each task has its own series."""
    sets = {}
    for task in TASKS:
        ahead = 1 if task == "one" else AHEAD
        whole = f.windows(f.two_sines(10_000, num_steps + ahead), ahead)
        cuts = (slice(0, 7000), slice(7000, 9000), slice(9000, None))
        sets[task] = f.Split(*(f.Windows(whole.inputs[c], whole.targets[c]) for c in cuts))
    return sets


def run_generated(config: Config, nets: dict[str, Forecaster], once: study.Once) -> xarray.Dataset:
    """Forecasts the generated series by every model; dimensions model, column, seed."""
    data = generated(config.num_steps)
    parts = []
    for name in study.progress(config.names, "models"):
        measure = partial(_measure_generated, config, name, nets.get(name), data)
        parts.append(once(f"model={name}", partial(measure, once.folder)))
    found = xarray.concat(parts, dim="model", join="outer", coords="minimal")
    last = data["direct"].test
    return found.assign(
        history=(("example", "step"), last.inputs[:EXAMPLES].astype(float)),
        truth=(("example", "lead"), last.targets[:EXAMPLES, -1].astype(float)),
    ).assign_attrs(kind="generated", published=int(config.published))


def _measure_generated(
    config: Config,
    name: str,
    net: Forecaster | None,
    data: dict[str, f.Split],
    folder: Folder,
) -> xarray.Dataset:
    """Forecasts in each way that a model can, and measures the flow through it."""
    ways, norms, measured = _ways(config, name, net, data, folder)
    errors = np.full((len(COLUMNS), config.num_seeds), np.nan)
    covered = np.full(len(COLUMNS), np.nan)
    forecasts = np.full((len(COLUMNS), EXAMPLES, AHEAD), np.nan)
    offsets = np.full((len(COLUMNS), 2, AHEAD), np.nan)
    for index, column in enumerate(COLUMNS):
        if column not in ways:
            continue
        part = data["one" if column == "one" else "direct"]
        (valid, y), (test, y_test) = (
            (ways[column](p), p.targets[:, -1].astype(float)) for p in (part.valid, part.test)
        )
        errors[index] = np.mean((valid - y) ** 2, axis=(1, 2))
        offset, ahead = measuring.interval(valid, y), y.shape[1]
        covered[index] = measuring.coverage(test, y_test, offset)
        forecasts[index, :, :ahead], offsets[index, :, :ahead] = test[0, :EXAMPLES], offset
    own = {
        "mse": (("model", "column", "seed"), errors[None]),
        "coverage": (("model", "column"), covered[None]),
        "forecast": (("model", "column", "example", "lead"), forecasts[None]),
        "offset": (("model", "column", "end", "lead"), offsets[None]),
    }
    found = measuring.record(config, name, net, norms, measured, own)
    return found.assign_coords(column=list(COLUMNS))


def _ways(
    config: Config,
    name: str,
    net: Forecaster | None,
    data: dict[str, f.Split],
    folder: Folder,
) -> tuple[dict[str, Callable[[f.Windows], np.ndarray]], np.ndarray, dict[str, np.ndarray]]:
    """The forecasting functions of a model by column, the flow through it, and its probes."""
    if net is None:
        return _plain_ways(name, data, config.num_seeds), np.full((1, 1), np.nan), {}
    trained, along = {}, {}
    for group, plan in _groups(config, name, net):
        training = Forecasting(net, {task: data[task] for task in group}, plan)
        fitted, found = measuring.fit(
            config, training, folder, f"model={name},tasks={'+'.join(group)}"
        )
        along |= found
        trained |= {task: (training, params) for task, params in fitted.items()}

    def way(task: str, iterated: bool = False) -> Callable[[f.Windows], np.ndarray]:
        training, params = trained[task]
        ahead = 1 if task == "one" and not iterated else AHEAD
        return lambda p: training.forecast(params, p.inputs, iterated=iterated)[..., :ahead]

    ways = {task: way(task) for task in trained} | {"iterated": way("one", iterated=True)}
    if "seq2seq" in trained:
        ways["own"] = way("seq2seq", iterated=True)
        params = trained["seq2seq"][1]
        place = folder(f"model={name}")
        measuring.save_cell(config, name, net, params, place and study.params_folder(place))
        return ways, measuring.log_norms(net, params, data["seq2seq"].test.inputs[:WINDOWS]), along
    return ways, np.full((1, 1), np.nan), along


def _groups(config: Config, name: str, net: Forecaster) -> Iterator[tuple[tuple[str, ...], Plan]]:
    """The tasks that are trained side by side, and their plan."""
    tasks = TASKS if net.cell is not None else TASKS[:2]
    if not config.published or config.learning_rate is not None:
        yield tasks, measuring.plan_of(config)
        return
    yield TASKS[:2], measuring.plan_of(config, learning_rate=0.001, falls=False)
    if net.cell is not None:
        rate = 0.01 if name in ("rnn", "deep_rnn", "batch_norm") else 0.001
        yield TASKS[2:], measuring.plan_of(config, learning_rate=rate, falls=False)


def _plain_ways(
    name: str, data: dict[str, f.Split], num_seeds: int
) -> dict[str, Callable[[f.Windows], np.ndarray]]:
    """Those of a model without a gradient; all seeds have the same."""

    def seeds(values: np.ndarray) -> np.ndarray:
        return np.repeat(values[None].astype(float), num_seeds, axis=0)

    if name == "naive":
        return {
            "one": lambda p: seeds(f.naive(p.inputs, 1)),
            "direct": lambda p: seeds(f.naive(p.inputs, AHEAD)),
        }
    if name != "linear":
        raise ValueError(f"{name} needs a real series, and this one is generated. Remove {name}.")
    fits = {
        task: f.least_squares(data[task].train.inputs, data[task].train.targets[:, -1])
        for task in TASKS[:2]
    }

    def iterated(part: f.Windows) -> np.ndarray:
        x, steps = part.inputs, []
        for _ in range(AHEAD):
            steps.append(f.linear(fits["one"], x))
            x = np.concatenate([x[:, 1:], steps[-1]], axis=1)
        return seeds(np.concatenate(steps, axis=1))

    return {
        "one": lambda p: seeds(f.linear(fits["one"], p.inputs)),
        "direct": lambda p: seeds(f.linear(fits["direct"], p.inputs)),
        "iterated": iterated,
    }
