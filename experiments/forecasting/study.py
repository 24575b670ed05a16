"""Forecasting: recurrent networks against baselines, and the gradient flow of the trained cells.

A network reads a window of a series and forecasts the next values: one step ahead (and ten,
autoregressively: iterated), ten at once from the last step (direct), or ten from every step
(seq2seq, where the loss is at every step). Series are Géron's generated ones, whose published
table stands beside ours, or a real one: then every model is fitted once, to the first 70 % of the
series, chosen by the next 10 %, and moved from origin to origin through the last 20 %, beside the
naive forecast, that of a season before, and ARIMA. The claims: a net that is asked for ten values
at once does better than one that goes on from its own; on real series something beats the naive
forecast. At the end, log ‖∂h_T/∂h_k‖ through the trained nets, on windows of the test.

Intervals are 95 %: over seeds for generated series, by the block bootstrap over origins for real
ones. Forecasts are drawn with 80 %: quantiles, at each lead, of the errors on the validation part.

Source: Géron 2019, Hands-On Machine Learning, 2nd ed., chapter 15, and its notebook.

    python experiments/forecasting
    python experiments/forecasting --full
    python experiments/forecasting --data=bitcoin --data_dir=FOLDER
    python experiments/forecasting --probe=log_norms,components,gates
    python experiments/forecasting --series=path/to/series.csv:column --period=12

Takes three to four minutes on two cores at the defaults. A killed run goes on from its last model,
and with --full from its last epoch; params/ has the first seed's trained cells.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from _kit import probes

from forecasting.config import Config
from forecasting.forecasters import Forecaster, dense, forecaster
from forecasting.parts import (
    AHEAD,
    COLORS,
    MARKERS,
    NETS,
    PLAIN,
    WINDOWS,
    Folder,
    coverage,
    draw_flow,
    draw_probes,
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
from forecasting.series import TRUTH, draw_origins, draw_ratios, run_real, summary_real
from forecasting.training import TASKS, Forecasting, Plan
from gradflow import statistics, study
from gradflow.tasks import forecasting as f

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("one", "iterated", "direct", "seq2seq", "own")
"""How a net's forecast is made: own is the seq2seq net that goes on from its own next value."""

NOTEBOOK = {
    ("naive", "one"): 0.020211,
    ("naive", "direct"): 0.256974,
    ("linear", "one"): 0.00417,
    ("linear", "direct"): 0.0187,
    ("deep_rnn", "one"): 0.00262,
    ("deep_rnn", "iterated"): 0.02751,
    ("deep_rnn", "direct"): 0.0085,
    ("deep_rnn", "seq2seq"): 0.0096,
    ("batch_norm", "seq2seq"): 0.0164,
    ("deep_lstm", "seq2seq"): 0.0086,
    ("deep_gru", "seq2seq"): 0.0103,
    ("conv_deep_gru", "seq2seq"): 0.0080,
}
"""Validation errors that the notebook prints, of one run each; its linear model is trained."""

EXAMPLES = 3
"""Generated series of the test that are drawn."""


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Forecasts by every model; dimensions model, and column (generated) or view (real)."""
    names = config.names
    nets = {name: make_net(config, name) for name in names if name not in PLAIN}
    if "naive" not in names:
        raise ValueError(f"Expected naive among the models, got {names}. Add naive, the baseline.")
    return (run_real if config.is_real else _run_generated)(config, nets, once)


def make_net(config: Config, name: str) -> Forecaster:
    """Makes the network of a name."""
    if name == "dense":
        return dense(config.num_steps, config.hidden_size, AHEAD)
    return forecaster(NETS.get(name, name), config.hidden_size, AHEAD)


def generated(num_steps: int) -> dict[str, f.Split]:
    """The notebook's windows, 7,000 / 2,000 / 1,000, by task: of each task the series differ."""
    sets = {}
    for task in TASKS:
        ahead = 1 if task == "one" else AHEAD
        whole = f.windows(f.two_sines(10_000, num_steps + ahead), ahead)
        cuts = (slice(0, 7000), slice(7000, 9000), slice(9000, None))
        sets[task] = f.Split(*(f.Windows(whole.inputs[c], whole.targets[c]) for c in cuts))
    return sets


def _run_generated(
    config: Config, nets: dict[str, Forecaster], once: study.Once
) -> "xarray.Dataset":
    import xarray

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
) -> "xarray.Dataset":
    import xarray

    ways, curves, found = _ways(config, name, net, data, folder)
    along, times = probed(config, found)
    shape = {"mse": (config.num_seeds,), "coverage": ()}
    rows = {key: np.full((len(COLUMNS), *size), np.nan) for key, size in shape.items()}
    drawn = np.full((len(COLUMNS), EXAMPLES, AHEAD), np.nan)
    offsets = np.full((len(COLUMNS), 2, AHEAD), np.nan)
    for index, column in enumerate(COLUMNS):
        if column not in ways:
            continue
        part = data["one" if column == "one" else "direct"]
        (valid, y), (test, y_test) = (
            (ways[column](p), p.targets[:, -1].astype(float)) for p in (part.valid, part.test)
        )
        rows["mse"][index] = np.mean((valid - y) ** 2, axis=(1, 2))
        offset = interval(valid, y)
        rows["coverage"][index] = coverage(test, y_test, offset)
        ahead = y.shape[1]
        drawn[index, :, :ahead], offsets[index, :, :ahead] = test[0, :EXAMPLES], offset
    return xarray.Dataset(
        {
            "mse": (("model", "column", "seed"), rows["mse"][None]),
            "coverage": (("model", "column"), rows["coverage"][None]),
            "forecast": (("model", "column", "example", "lead"), drawn[None]),
            "offset": (("model", "column", "end", "lead"), offsets[None]),
            "log_norm": (("model", "curve", "lag"), curves[None], {"units": "nats"}),
            **along,
        },
        coords={
            "model": [name],
            "curve": np.arange(len(curves)),
            "column": list(COLUMNS),
            "lead": np.arange(1, AHEAD + 1),
            "lag": ("lag", lags_of(net, curves), {"units": "steps of the series"}),
            **times,
        },
    )


def _ways(
    config: Config,
    name: str,
    net: Forecaster | None,
    data: dict[str, f.Split],
    folder: Folder,
) -> tuple[dict[str, Callable[[f.Windows], np.ndarray]], np.ndarray, dict[str, np.ndarray]]:
    """The ways in which a model forecasts windows, by column, the flow through it, its probes."""
    if net is None:
        return _plain_ways(name, data, config.num_seeds), np.full((1, 1), np.nan), {}
    trained, along = {}, {}
    for group, plan in _groups(config, name, net):
        training = Forecasting(net, {task: data[task] for task in group}, plan)
        fitted, found = fit(config, training, folder, f"model={name},tasks={'+'.join(group)}")
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
        save_cell(config, name, net, params, place and study.params_folder(place))
        return ways, log_norms(net, params, data["seq2seq"].test.inputs[:WINDOWS]), along
    return ways, np.full((1, 1), np.nan), along


def _groups(config: Config, name: str, net: Forecaster) -> Iterator[tuple[tuple[str, ...], Plan]]:
    """Tasks that are trained side by side, and how."""
    tasks = TASKS if net.cell is not None else TASKS[:2]
    if not config.published or config.learning_rate is not None:
        yield tasks, plan_of(config)
        return
    yield TASKS[:2], plan_of(config, learning_rate=0.001, falls=False)
    if net.cell is not None:
        rate = 0.01 if name in ("rnn", "deep_rnn", "batch_norm") else 0.001
        yield TASKS[2:], plan_of(config, learning_rate=rate, falls=False)


def _plain_ways(
    name: str, data: dict[str, f.Split], num_seeds: int
) -> dict[str, Callable[[f.Windows], np.ndarray]]:
    """Those of a model without a gradient; all seeds are alike."""

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


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Forecasts over the truth, the models' errors, the flow through the nets, and the probes."""
    from matplotlib.figure import Figure

    data = dataset if dataset.attrs["kind"] == "generated" else dataset.isel(view=0)
    heights = (2.6, 3.8, *(probes.ROW_HEIGHT for _ in probes.rows(data)))
    fig = Figure(figsize=(7.2, sum(heights)))
    parts: Any = fig.subfigures(len(heights), 1, height_ratios=heights)
    upper, lower, *rest = parts
    draw_probes(rest, data)
    left, right = lower.subplots(1, 2, width_ratios=(3, 2))
    if dataset.attrs["kind"] == "generated":
        panels: Any = upper.subplots(1, EXAMPLES, sharey=True)
        _draw_examples(panels, dataset)
        _draw_errors(left, dataset)
        draw_flow(right, dataset)
        return fig
    draw_origins(upper.subplots(), data)
    draw_ratios(left, dataset)
    draw_flow(right, data)
    return fig


def best(dataset: "xarray.Dataset") -> tuple[str, str]:
    """The model, and the column, of the lowest error over ten steps."""
    errors = dataset.mse.sel(column=["direct", "seq2seq"]).mean("seed")
    place = np.unravel_index(np.nanargmin(errors.values), errors.shape)
    return str(errors.model.values[place[0]]), str(errors.column.values[place[1]])


def _draw_examples(panels: Any, dataset: "xarray.Dataset") -> None:
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
            label = f"{'at once' if way == column else way}"
            ax.plot(future, at, color=color, ls=line, lw=1.2, label=label)
            ax.fill_between(future, low, high, color=color, alpha=0.2, lw=0)
        ax.set_xlabel("step")
    panels[0].set_ylabel("value (dimensionless)")
    panels[0].set_title(f"Series of the test, {model} ({column})")
    panels[1].legend(loc="upper left", fontsize=7, handlelength=1.5)


def _draw_errors(ax: "Axes", dataset: "xarray.Dataset") -> None:
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
    ax.set_yticks(np.arange(len(names)), [name.replace("_", " ") for name in names])
    ax.invert_yaxis()
    below = {"loc": "upper center", "bbox_to_anchor": (0.4, -0.13), "ncols": 3}
    ax.legend(fontsize=7, handlelength=1.2, **below)


def summary(dataset: "xarray.Dataset") -> str:
    """The table, whether the claims hold, and the flow beside the accuracy."""
    is_real = dataset.attrs["kind"] == "real"
    return summary_real(dataset) if is_real else _summary_generated(dataset)


def _summary_generated(dataset: "xarray.Dataset") -> str:
    names, rows = [str(name) for name in dataset.model.values], []
    for name in names:
        row = {"model": name}
        for column in COLUMNS:
            value = float(dataset.mse.sel(model=name, column=column).median())
            published = published_for(dataset, name, column)
            told = f"{value:.{6 if name == 'naive' else 5}f}" if np.isfinite(value) else ""
            row[column] = f"{told} ({published})" if published else told
        coverage = dataset.coverage.sel(
            model=name, column="seq2seq" if row["seq2seq"] else "direct"
        )
        rows.append(
            {**row, "in 80 %": f"{float(coverage):.2f}", "horizon": horizon(dataset, name)[1]}
        )
    horizons = np.array([horizon(dataset, name)[0] for name in names])
    errors = dataset.mse.sel(column="seq2seq").mean("seed").values
    lines = [
        "validation error, median over seeds (published)",
        study.table(rows),
        *_numbers(dataset),
    ]
    return "\n".join([*lines, *_iterated(dataset), together(horizons, errors)])


def published_for(dataset: "xarray.Dataset", name: str, column: str) -> float | None:
    """What the notebook prints, where the windows are its own."""
    return NOTEBOOK.get((name, column)) if dataset.sizes["step"] == 50 else None


def _numbers(dataset: "xarray.Dataset") -> Iterator[str]:
    """The numbers that are to be reached."""
    medians = dataset.mse.median("seed")
    naive = [float(medians.sel(model="naive", column=column)) for column in ("one", "direct")]
    exact = np.abs(np.array(naive) - [NOTEBOOK["naive", "one"], NOTEBOOK["naive", "direct"]])
    yield (
        f"the naive forecast as published, one and ten steps: "
        f"{'yes' if exact.max() < 1e-6 else 'no'} ({naive[0]:.6f}, {naive[1]:.6f})"
    )
    limits = (
        ("linear", ["one"], 0.00295, "least squares, one step, 0.0029 or less to two digits"),
        ("deep_rnn", ["one"], 0.0033, "deep RNN, one step, 0.0033 or less"),
        (None, ["direct", "seq2seq"], 0.012, "ten steps at once, the best net, 0.012 or less"),
    )
    for name, columns, limit, words in limits:
        if name is not None and name not in medians.model:
            continue
        part = medians if name is None else medians.sel(model=[name])
        found = float(part.sel(column=columns).min())
        if np.isfinite(found):
            yield f"{words}: {'yes' if found <= limit else 'no'} ({found:.5f})"


def _iterated(dataset: "xarray.Dataset") -> Iterator[str]:
    """Error of going on from own forecasts over that of ten at once: of other nets, of the same."""
    pairs = (
        ("iterated", "direct", "nets trained for one step"),
        ("own", "seq2seq", "the same nets"),
    )
    for slow, fast, words in pairs:
        logs = np.log(dataset.mse.sel(column=slow) / dataset.mse.sel(column=fast))
        logs = logs.dropna("model", how="all").drop_sel(model="linear", errors="ignore")
        if not logs.size:
            continue
        ratio = statistics.estimate(logs.mean("model").values).map(np.exp)
        least = float(np.exp(logs.mean("seed").min()))
        yield (
            f"ten at once is better than ten iterated, {words}: {study.verdict(ratio.low > 1)} "
            f"(error iterated / at once {ratio:.2f}, least {least:.2f})"
        )


EXPERIMENT = study.Experiment(
    name="forecasting",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    section="sequences",
    order=1,
    gallery={
        "forecasting": study.Picture(),
        "forecasting_bitcoin": study.Picture(
            ("--data=bitcoin", "--data_dir=data"), ("data/coin_Bitcoin.csv",)
        ),
        "forecasting_sunspots": study.Picture(
            ("--data=sunspots", "--data_dir=data"), ("data/SN_m_tot_V2.0.csv",)
        ),
    },
    quick={
        "models": "naive,linear,dense,rnn,conv_gru,batch_norm",
        "hidden_size": 4,
        "num_steps": 20,
        "num_windows": 128,
        "num_epochs": 1,
        "num_seeds": 2,
    },
    full={"published": True},
    doc=__doc__,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the study; returns the exit code."""
    return study.main(EXPERIMENT, argv)
