"""A ReLU network that starts at the identity carries its gradient over a long sequence.

Networks h_t = φ(W_x x_t + W_h h_{t-1} + b) that differ in how W_h starts, and an LSTM beside them::

    irnn             ReLU, W_h = I, with W_x ~ N(0, 0.001²): the paper's
    identity         ReLU, W_h = I, with W_x from LeCun's law, as all others have it
    scaled_identity  ReLU, W_h = 0.01 I: the paper's, for tasks without long dependencies
    orthogonal       ReLU, uniform among the orthogonal matrices
    glorot           ReLU, U(±√(3/n))
    sparse           ReLU, 15 connections a unit, spectral radius 0.95
    critical         ReLU, N(0, 2/n), on the line of mean-field theory
    tanh             tanh, orthogonal
    lstm             with a forget bias of 1

Measured are the norm ‖∂h_T/∂h_k‖ against the lag at initialisation and after some updates, and
learning curves on the adding problem. Each network has its own learning rate, the best of five on
validation seeds. The claims are about the irnn: its norm over nine tenths of the steps lies within
0.1 and 10 at initialisation; so it does after the training, both by the 95 % interval over seeds of
the mean log; and its final loss is below that of each other network, a claim each, by the 95 %
interval of the log ratio. (The first tenth of the steps is left out, because images begin blank:
where W_x x_t = 0 and h = 0, ReLU has slope 0 and the norm is exactly 0.)

Source: Le, Jaitly, Hinton 2015, arXiv:1504.00941 (T = 150 to 400, 100 units, and an LSTM, a tanh
and a ReLU network beside the irnn); Saxe, McClelland, Ganguli 2014, arXiv:1312.6120 (orthogonal);
Chen, Pennington, Schoenholz 2018, arXiv:1806.05394 (critical).

    python experiments/identity_init.py
    python experiments/identity_init.py --full
    python experiments/identity_init.py --networks=irnn,orthogonal --tasks=digits
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import xarray
from _kit import curves, decisions, fields, outcomes, trained, tuning

from gradflow import statistics, study
from gradflow.cells import resolve
from gradflow.spec import check_name, split_specs
from gradflow.study.figure import Axes, Figure
from gradflow.tasks import Task, resolve_task
from gradflow.train import Probing, Schedule
from gradflow.train.probes import probe

KEPT = 10.0
"""The factor of 1, to either side, within which a norm counts as carried."""

OVER = 0.9
"""The fraction of the steps over which the gradient is to be carried."""

FLOOR = -12
"""The log10 norm at the lower edge of a panel."""


class Network(NamedTuple):
    """A network of the comparison: the spec of its cell, and the style of its lines."""

    spec: str
    color: str
    linestyle: Any

    @property
    def look(self) -> dict[str, Any]:
        """The style of its lines."""
        return {"color": self.color, "linestyle": self.linestyle}


def _relu(recurrent: str, color: str, linestyle: Any, more: str = "") -> Network:
    return Network(f"rnn(activation='relu', recurrent_init={recurrent!r}{more})", color, linestyle)


NETWORKS = {
    "irnn": _relu("identity", "#0072B2", "-", ", input_init='normal(std=0.001)'"),
    "identity": _relu("identity", "#56B4E9", (0, (5, 1))),
    "scaled_identity": _relu("scaled_identity", "#999999", ":"),
    "orthogonal": _relu("orthogonal", "#D55E00", "-."),
    "glorot": _relu("glorot", "#009E73", "--"),
    "sparse": _relu("sparse", "#E69F00", (0, (3, 1, 1, 1, 1, 1))),
    "critical": _relu("critical(activation='relu')", "#882255", (0, (1, 1))),
    "tanh": Network("rnn", "#000000", "--"),
    "lstm": Network("lstm", "#CC79A7", "-"),
}


@dataclass(frozen=True)
class Config(study.Config):
    """Which networks, what they learn, and the budget of each learning rate and seed."""

    num_seeds: int = fields.num_seeds(3)
    num_validation: int = fields.num_validation(1)
    precision: Literal["float64", "float32"] = fields.training_precision()
    networks: tuple[str, ...] = study.field(
        ("irnn", "orthogonal", "glorot", "tanh", "lstm"),
        help="Of irnn, identity, scaled_identity, orthogonal, glorot, sparse, critical, tanh, "
        "lstm.",
    )
    tasks: str = fields.tasks("adding(num_steps=150)")
    hidden_size: int = fields.hidden_size(64)
    learning_rates: tuple[float, ...] = fields.learning_rates()
    clip: float = fields.clip(1.0)
    batch_size: int = fields.batch_size(16)
    num_updates: int = fields.num_updates(6000)
    eval_every: int = fields.eval_every(200)
    early: int = fields.positive(
        200, help="Update after which norms are measured, as at initialisation and at the end."
    )

    @property
    def schedule(self) -> Schedule:
        """How long, and when there is an evaluation."""
        return Schedule(self.num_updates, self.eval_every, early_stop=False)

    @property
    def measured_at(self) -> list[int]:
        """The updates after which norms are measured."""
        return [0, self.early, self.num_updates]


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Trains every network; dimensions task, network, seed, update, measured_at, lag."""
    tasks = {spec: resolve_task(spec) for spec in split_specs(config.tasks)}
    _check(config, tasks)
    parts = [_on_task(config, spec, task, once) for spec, task in tasks.items()]
    return xarray.concat(parts, dim="task", join="outer", data_vars="all")


def _on_task(config: Config, spec: str, task: Task, once: study.Once) -> xarray.Dataset:
    parts = [
        trained.unit(once, f"task={spec},{name}", _train, config, spec, task, name)
        for name in study.progress(config.networks, spec)
    ]
    about = {"baseline": task.baseline, "num_steps": task.num_steps}
    return xarray.concat(parts, dim="network").assign(about).expand_dims(task=[spec])


def _check(config: Config, tasks: dict[str, Task]) -> None:
    if not tasks:
        raise ValueError(f"Expected the name of a task, got {config.tasks!r}. Try adding.")
    if not config.networks:
        raise ValueError("Expected at least one network, got none. Try irnn.")
    for name in config.networks:
        check_name("network of this study", name, NETWORKS)
    _ = config.schedule  # numbers that do not divide are reported before anything is trained
    if config.early % config.eval_every or config.early >= config.num_updates:
        raise ValueError(
            f"Expected --early to be a multiple of eval_every={config.eval_every} below "
            f"num_updates={config.num_updates}, got {config.early}. Try {config.eval_every}."
        )


def _train(config: Config, spec: str, task: Task, name: str, folder: Path | None) -> xarray.Dataset:
    """Chooses the learning rate of one network on one task, and trains its seeds at that rate."""
    cell = resolve(NETWORKS[name].spec)(task.input_size, config.hidden_size)
    clipping = f"global_norm(threshold={config.clip})"
    training = trained.setup(config, cell, task, clipping=clipping)
    rates, what = config.learning_rates, {"task": spec, "network": name}
    tried = tuning.final_losses(config, training, [(r,) for r in rates], folder=folder, **what)
    begun = trained.begin(training, tuning.keys(config)[0], [tuning.best(tried, rates)])
    probing = Probing(("log_norms",), jax.random.fold_in(jax.random.key(config.seed), 2))
    norms, metrics = [], {}
    for progress in trained.evaluations(training, begun, config.schedule):
        if progress.update in config.measured_at:
            found = probe(training.cell, task, progress.state.params, probing)["log_norms"]
            norms.append(found[:, ::-1])
        metrics = progress.metrics
    found = _dataset(config, metrics, np.stack(norms))
    return found.assign(tuning.variables(tried, rates)).expand_dims(network=[name])


def _dataset(config: Config, metrics: dict[str, np.ndarray], norms: np.ndarray) -> xarray.Dataset:
    return xarray.Dataset(
        {
            **{name: (("seed", "update"), metrics[name].T) for name in ("loss", "accuracy")},
            "log_norm": (("measured_at", "seed", "lag"), norms, {"units": "nats"}),
        },
        coords={
            "update": ("update", config.schedule.evaluations, {"units": "updates"}),
            "measured_at": ("measured_at", config.measured_at, {"units": "updates"}),
            "lag": ("lag", np.arange(norms.shape[-1]), {"units": "steps"}),
        },
    )


def figure(dataset: xarray.Dataset) -> Figure:
    """A row for each task: norms against the lag at initialisation and trained; losses."""
    fig = study.figure.empty(7.0, 0.6 + 2.5 * dataset.sizes["task"])
    rows = fig.subplots(dataset.sizes["task"], 3, squeeze=False)
    for row, task in zip(rows, dataset.task.values, strict=True):
        data = dataset.sel(task=task)
        for ax, at in zip(row, (0, -1), strict=False):
            _draw_norms(ax, data.isel(measured_at=at))
        row[0].set_ylabel(curves.NORM)
        _draw_losses(row[2], data)
        row[2].set_title(curves.task_title(str(task)))
    study.figure.legend_above(fig, rows[0][0], ncols=5, handlelength=3.2)
    return fig


def _looks(data: xarray.Dataset) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in map(str, data.network.values):
        yield name, NETWORKS[name].look


def _draw_norms(ax: Axes, data: xarray.Dataset) -> None:
    num_steps = int(data.num_steps)
    lags = data.lag[: num_steps + 1]
    for name, look in _looks(data):
        norms = data.log_norm.sel(network=name, lag=lags).rename(seed="run")
        curves.draw_norms(ax, lags, norms, label=name.replace("_", " "), **look)
    update = int(data["measured_at"])
    ax.set(xlim=(0, num_steps), ylim=(FLOOR, -FLOOR / 3), xlabel=curves.LAG)
    ax.set_title(f"After {update} updates" if update else "At initialisation")


def _draw_losses(ax: Axes, data: xarray.Dataset) -> None:
    for name, look in _looks(data):
        study.figure.band(ax, data["update"], data.loss.sel(network=name), "seed", **look)
    outcomes.draw_losses(ax, float(data.baseline), ylabel="loss")


def summary(dataset: xarray.Dataset) -> str:
    """A table of all networks, each at its own learning rate."""
    rows = [
        _row(dataset.sel(task=task, network=name))
        for task in dataset.task.values
        for name in dataset.network.values
    ]
    return f"{study.table(rows)}\n{tuning.note(dataset)}"


def _row(data: xarray.Dataset) -> dict[str, str]:
    norms, last = log10_norms(data), data.isel(update=-1)
    return {
        "task": str(data.task.values),
        "network": str(data.network.values),
        "rate": tuning.text(data),
        "lag": f"{longest_lag(data)}",
        "log10 norm, initialisation": f"{statistics.estimate(norms[0]):z.1f}",
        "trained": f"{statistics.estimate(norms[-1]):z.1f}",
        "final loss": f"{statistics.estimate(last.loss):z.4f}",
        "accuracy": f"{statistics.estimate(last.accuracy):z.2f}",
    }


def longest_lag(data: xarray.Dataset) -> int:
    """Gives the lag over which the gradient is to be carried, on one task."""
    return int(OVER * int(data.num_steps))


def log10_norms(data: xarray.Dataset) -> np.ndarray:
    """Gives log10 ‖∂h_T/∂h_k‖ at that lag, of one network on one task, (measured_at, seed)."""
    norms = data.log_norm.sel(lag=longest_lag(data))
    return norms.transpose("measured_at", "seed").values / curves.NATS


def log_ratio(data: xarray.Dataset, other: str) -> statistics.Estimate:
    """Estimates log(final loss of the irnn / that of another network), paired by seed."""
    loss = np.log(data.loss.isel(update=-1))
    return statistics.estimate((loss.sel(network="irnn") - loss.sel(network=other)).values)


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """Whether the irnn, if it was trained, carries its gradient and learns more than each other."""
    if "irnn" not in dataset.network.values:
        return []
    return [claim for task in dataset.task.values for claim in _of_task(dataset.sel(task=task))]


def _of_task(data: xarray.Dataset) -> list[study.Claim]:
    when = {"at initialisation": 0, f"after {int(data['update'][-1])} updates": -1}
    others = [name for name in map(str, data.network.values) if name not in ("irnn", "identity")]
    return [
        *(_carries(data, name, at) for name, at in when.items()),
        *(_learns(data, other) for other in others),
    ]


def _carries(data: xarray.Dataset, when: str, at: int) -> study.Claim:
    task, lag = str(data.task.values), longest_lag(data)
    norm = statistics.estimate(log10_norms(data.sel(network="irnn"))[at])
    stage = "carries-trained" if at else "carries-initialised"
    room = float(np.log10(KEPT))
    return study.claim(
        decisions.identifier(stage, task),
        f"On {task} ReLU with W_h = I carries its gradient over {lag} steps {when}.",
        decisions.within(norm, -room, room),
        measured={f"log10 norm at lag {lag}": norm},
        criterion=f"the 95 % interval of the mean log10 norm lies within ±{room:g}",
    )


def _learns(data: xarray.Dataset, other: str) -> study.Claim:
    task, ratio = str(data.task.values), log_ratio(data, other)
    name = "an lstm" if other == "lstm" else f"the network {other}"
    return study.claim(
        decisions.identifier("learns-more-than", other, task),
        f"ReLU with W_h = I learns {task} better than {name}, each at its own learning rate.",
        decisions.below(ratio),
        measured={f"final loss over that of {other}": ratio.map(np.exp)},
        criterion="the 95 % interval over seeds of the ratio lies below 1",
    )


EXPERIMENT = study.Experiment(
    name="identity_init",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    section="training",
    order=4,
    gallery={"identity_init": study.Picture()},
    quick={
        "tasks": "adding(num_steps=8)",
        "networks": ("irnn", "orthogonal", "lstm"),
        "hidden_size": 5,
        "batch_size": 4,
        "learning_rates": (0.001, 0.1),
        "num_updates": 20,
        "eval_every": 5,
        "early": 10,
        "num_seeds": 2,
        "num_validation": 1,
    },
    full={
        "tasks": "adding(num_steps=150),digits",
        "networks": tuple(NETWORKS),
        "batch_size": 32,
        "num_seeds": 5,
        "num_validation": 2,
    },
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
