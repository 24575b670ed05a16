"""What truncated backpropagation through time loses, against how far it goes back.

Two tasks whose dependency has a known length L: the delayed copy, where what is to be said at step
t was read at t - d, L = d + 1 steps with its own; and the adding problem, where the first marked
value lies between half and all of the T steps before the end. A net is trained by TBPTT(k, k),
windows of k steps with the carry kept from one to the next and the gradient cut between them
(where the loss sits at the last step alone, the last k steps), and by the full gradient::

    bias      cosine and ratio of norms, truncated over full, of the cell's gradient: at birth,
              and at the end of the training with that window
    success   which seeds solve the task, against k / L
    cost      seconds an update, and the memory of its temporaries, against k

The claim: a task is lost where the gradient is cut before its dependency, and no bias measured at
birth tells that, because what a net at birth hears of the past lies within a few steps. Two parts,
each supported by a rule fixed beforehand: on the delayed copy no seed solves it with k < L, while
as many as with the full gradient do with k ≥ 2 L; and at birth the cosine at the longest k < L is
above 0.9 in the mean over seeds.

Source: Williams & Peng 1990, doi:10.1162/neco.1990.2.4.490; Tallec & Ollivier 2017,
arXiv:1705.08209 (that truncation is biased).

    python experiments/truncation.py
    python experiments/truncation.py --full
    python experiments/truncation.py --cell=lstm --delay=5

Takes about 100 seconds on two cores at the defaults, an hour, by estimate, in full. The seconds in
the record are of the machine that it ran on, and no two runs have the same.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _kit import trained

from gradflow import statistics, study
from gradflow.cells import resolve
from gradflow.devices import map_runs
from gradflow.structure import check_structure
from gradflow.tasks import resolve_task
from gradflow.train.clipping import resolve_clipping
from gradflow.train.direction import Comparison, compare
from gradflow.train.driver import Progress, Schedule
from gradflow.train.gradient import full_gradient, tbptt_gradient
from gradflow.train.optimisers import resolve_optimiser
from gradflow.train.runs import Runs, advance, begin
from gradflow.train.training import Training

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

    from gradflow import Params

LOOKS: dict[str, dict[str, Any]] = {
    "delayed_copy": {"color": "#0072B2", "linestyle": "-", "marker": "s"},
    "adding": {"color": "#D55E00", "linestyle": "--", "marker": "o"},
}
"""Of the tasks, in every panel."""

STAGES = ("birth", "trained")
HIGH_COSINE = 0.9
"""From which on the truncated gradient at birth looks right."""

TIMED = 3
"""Chunks of updates of which the fastest is the time."""


class Problem(NamedTuple):
    """A task with the steps that its gradient has to go back.

    Attributes:
      spec: Its name and options.
      num_steps: T.
      needed: L, the most that a dependency needs.
      at_end: Whether the loss sits at the last step alone.
    """

    spec: str
    num_steps: int
    needed: int
    at_end: bool


@dataclass(frozen=True)
class Config(study.Config):
    """Which net, how far back."""

    num_seeds: int = study.field(5, help="Nets, each trained for every k.", positive=True)
    precision: Literal["float64", "float32"] = study.field("float32", help="Of the training.")
    cell: str = study.field("gru", help="The cell, with options or without.")
    hidden_size: int = study.field(24, help="Hidden units.", positive=True)
    delay: int = study.field(7, help="d of the delayed copy.", positive=True)
    num_steps: int = study.field(32, help="T of both tasks.", positive=True)
    ratios: tuple[float, ...] = study.field(
        (0.25, 0.5, 0.875, 1.0, 1.5, 2.0), help="k over L, as far as T allows.", positive=True
    )
    learning_rate: float = study.field(0.01, help="Of Adam.", positive=True)
    batch_size: int = study.field(16, help="Sequences an update.", positive=True)
    num_updates: int = study.field(1000, help="The most updates of a run.", positive=True)
    eval_every: int = study.field(50, help="Updates between two evaluations.", positive=True)
    eval_size: int = study.field(128, help="Fresh sequences an evaluation.", positive=True)


def problems(config: Config) -> dict[str, Problem]:
    """The two tasks by name.

    Raises:
      ValueError: If the delay leaves no step to say anything at.
    """
    delay, num_steps = config.delay, config.num_steps
    if delay >= num_steps:
        raise ValueError(f"a delay below num_steps={num_steps} is expected, got {delay}")
    copied = f"delayed_copy(delay={delay}, num_steps={num_steps})"
    added = f"adding(num_steps={num_steps})"
    return {
        "delayed_copy": Problem(copied, num_steps, delay + 1, at_end=False),
        "adding": Problem(added, num_steps, num_steps, at_end=True),
    }


def windows(config: Config, problem: Problem) -> list[int]:
    """The k that are tried, ascending; the last is T, where nothing is cut."""
    tried = {max(1, round(ratio * problem.needed)) for ratio in config.ratios}
    return [*sorted(k for k in tried if k < problem.num_steps), problem.num_steps]


def truncation(problem: Problem, k: int) -> tuple[int, int] | None:
    """k1 and k2 for a window of k steps; None for the full gradient.

    A loss at the last step alone goes back k2 steps from there whatever k1 is, and T is cheapest.
    """
    if k == problem.num_steps:
        return None
    return (problem.num_steps, k) if problem.at_end else (k, k)


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Trains with each window; dimensions task, window (by number), seed, update, stage."""
    import xarray

    check_structure(resolve(config.cell))
    _schedule(config)
    units = {
        (name, k): _training(config, problem, k)
        for name, problem in problems(config).items()
        for k in windows(config, problem)
    }
    parts: dict[str, list[xarray.Dataset]] = {}
    for (name, k), training in study.progress(list(units.items()), "windows"):
        unit = f"task={name},k={k}"
        thunk = partial(_measure, config, name, k, training, partial(once.folder, unit))
        parts.setdefault(name, []).append(once(unit, thunk))
    found = {name: xarray.concat(of_task, dim="window") for name, of_task in parts.items()}
    return xarray.concat(list(found.values()), dim="task", join="outer")


def _schedule(config: Config) -> Schedule:
    return Schedule(config.num_updates, config.eval_every)


def _training(config: Config, problem: Problem, k: int) -> Training:
    task = resolve_task(problem.spec)
    return Training(
        resolve(config.cell)(task.input_size, config.hidden_size),
        task,
        resolve_optimiser("adam"),
        resolve_clipping("global_norm"),
        truncation=truncation(problem, k),
        batch_size=config.batch_size,
        eval_size=config.eval_size,
    )


def _begin(config: Config, training: Training) -> Runs:
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    return begin(training, keys, jnp.full(config.num_seeds, config.learning_rate))


def _measure(
    config: Config, name: str, k: int, training: Training, folder: Any
) -> "xarray.Dataset":
    """All seeds with one window, in one program, and what its gradient lacks."""
    problem = problems(config)[name]
    place, identity = folder(), {**dataclasses.asdict(config), "task": name, "k": k}
    runs = _begin(config, training)
    born = jax.tree.map(jnp.copy, runs.params)
    last = trained.to_end(training, runs, _schedule(config), folder=place, identity=identity)
    bias = _bias(config, training), (born, last.state.params)
    found = _dataset(config, last, [jax.device_get(bias[0](params)) for params in bias[1]])
    seconds, size = _cost(config, training)
    return found.assign(
        seconds=((), seconds, {"units": "s"}),
        temporaries=((), size, {"units": "bytes"}),
        k=((), float(k), {"units": "steps"}),
        needed=((), float(problem.needed), {"units": "steps"}),
        num_steps=((), float(problem.num_steps), {"units": "steps"}),
    ).expand_dims(task=[name], window=[windows(config, problem).index(k)])


def _dataset(config: Config, progress: Progress, biases: list[Comparison]) -> "xarray.Dataset":
    import xarray

    sizes = {"seed": config.num_seeds}
    metrics = trained.curves(progress, ("loss", "accuracy"), sizes)
    by_stage = {
        name: (("stage", "seed"), np.stack(values).astype(float))
        for name, values in zip(Comparison._fields, zip(*biases, strict=True), strict=True)
    }
    return xarray.Dataset(
        {
            **metrics,
            **by_stage,
            "solved_at": trained.events(progress, sizes)["solved_at"],
        },
        coords={
            "stage": list(STAGES),
            "seed": np.arange(config.num_seeds),
            "update": ("update", _schedule(config).evaluations, {"units": "updates"}),
        },
    )


def _bias(config: Config, training: Training) -> "Callable[[Params], Comparison]":
    """Of the parameters of all seeds: the cell's gradient, truncated, beside the full one."""
    task, cell = training.task, training.cell
    batch = task.sample(jax.random.fold_in(jax.random.key(config.seed), 1), config.eval_size)

    def one(params: "Params") -> Comparison:
        exact = full_gradient(task.loss, cell, params, batch)
        if training.truncation is None:
            return compare(exact.value["cell"], exact.value["cell"])
        k1, k2 = training.truncation
        cut = tbptt_gradient(task.loss, cell, params, batch, k1=k1, k2=k2)
        return compare(cut.value["cell"], exact.value["cell"])

    return jax.jit(map_runs(one))


def _cost(config: Config, training: Training) -> tuple[float, float]:
    """Seconds that an update of all seeds takes, compiled, and the bytes of its temporaries."""
    number = config.eval_every
    update = jax.jit(advance, static_argnums=(0, 2), donate_argnums=1)
    compiled = update.lower(training, _begin(config, training), number).compile()
    times = []
    for _ in range(TIMED):
        runs = jax.block_until_ready(_begin(config, training))
        start = time.perf_counter()
        jax.block_until_ready(compiled(runs))
        times.append(time.perf_counter() - start)
    memory = compiled.memory_analysis()  # which not every backend gives
    return min(times) / number, float(getattr(memory, "temp_size_in_bytes", np.nan))


def of_task(dataset: "xarray.Dataset", task: str) -> "xarray.Dataset":
    """The windows of one task, those that another has more of left out."""
    return dataset.sel(task=task).dropna("window", subset=["k"])


def reach(data: "xarray.Dataset") -> np.ndarray:
    """k over L of the windows of one task."""
    return (data.k / data.needed).values


def success(data: "xarray.Dataset") -> np.ndarray:
    """The share of seeds that solved one task, by window."""
    return np.isfinite(data.solved_at.transpose("window", "seed").values).mean(axis=1)


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Bias, success and cost against k over L."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7.0, 4.8))
    panels = fig.subplots(2, 3, sharex=True)
    for task in map(str, dataset.task.values):
        _draw(panels, of_task(dataset, task), {**LOOKS[task], "markevery": 1})
    labels = (
        ("cosine to full gradient", "norm / norm of full", "seeds solved"),
        ("updates to solve", "time an update (ms)", "temporaries (MiB)"),
    )
    for row, names in zip(panels, labels, strict=True):
        for ax, name in zip(row, names, strict=True):
            ax.set_title(name)
            ax.axvline(1, color="#808080", lw=0.8, ls=(0, (1, 1)))
    panels[0, 2].set_ylim(-0.06, 1.06)
    panels[1, 0].set_ylim(bottom=0)
    for ax in panels[1, 1:]:
        ax.set_ylim(bottom=0)
    fig.supxlabel("window k / steps that the dependency needs L (dotted: k = L)", fontsize=9)
    fig.legend(handles=_handles(dataset), loc="outside upper center", ncols=4)
    return fig


def _handles(dataset: "xarray.Dataset") -> list[Any]:
    from matplotlib.lines import Line2D

    tasks = [
        Line2D([], [], **LOOKS[task], label=f"{task.replace('_', ' ')}, L = {needed:.0f}")
        for task in map(str, dataset.task.values)
        for needed in [float(of_task(dataset, task).needed[0])]
    ]
    grey: dict[str, Any] = {"color": "#606060", "ls": "", "marker": "o"}
    stages = [
        Line2D([], [], **grey, label="at birth"),
        Line2D([], [], **grey, markerfacecolor="white", label="after its training"),
    ]
    return tasks + stages


def _draw(panels: np.ndarray, data: "xarray.Dataset", look: dict[str, Any]) -> None:
    (cosine, ratio, solved), (updates, seconds, memory) = panels
    at = reach(data)
    for stage, extra in zip(STAGES, ({}, {"markerfacecolor": "white"}), strict=True):
        for ax, name in ((cosine, "cosine"), (ratio, "norm_ratio")):
            values = data[name].sel(stage=stage).transpose("seed", "window")
            study.figure.band(ax, at, values, "seed", **look, **extra)
    solved.plot(at, success(data), **look)
    first = data.solved_at.transpose("window", "seed").values
    reached = np.isfinite(first).any(axis=1)
    if reached.any():
        median = [np.median(row[np.isfinite(row)]) for row in first[reached]]
        updates.plot(at[reached], median, **look)
    seconds.plot(at, 1e3 * data.seconds, **look)
    memory.plot(at, data.temporaries / 2**20, **look)


def summary(dataset: "xarray.Dataset") -> str:
    """The table of all windows, and both parts of the claim."""
    rows = [
        _row(task, of_task(dataset, task).isel(window=i))
        for task in map(str, dataset.task.values)
        for i in range(of_task(dataset, task).sizes["window"])
    ]
    return "\n".join([study.table(rows), "", *_verdicts(of_task(dataset, "delayed_copy"))])


def _row(task: str, data: "xarray.Dataset") -> dict[str, str]:
    at, seeds = data.solved_at.values[np.isfinite(data.solved_at.values)], data.sizes["seed"]
    biases = {
        f"{title}, {stage}": f"{statistics.estimate(data[name].sel(stage=stage).values):.3f}"
        for stage in STAGES
        for name, title in (("cosine", "cosine"), ("norm_ratio", "norm ratio"))
    }
    return {
        "task": task,
        "k": f"{float(data.k):.0f}",
        "k / L": f"{float(data.k / data.needed):.2f}",
        "solved": f"{len(at)} of {seeds}",
        "updates": f"{np.median(at):.0f}" if len(at) else "-",
        **biases,
        "ms": f"{1e3 * float(data.seconds):.2f}",
        "MiB": f"{float(data.temporaries) / 2**20:.2f}",
    }


def _verdicts(data: "xarray.Dataset") -> list[str]:
    at, share = reach(data), success(data)
    below, above = share[at < 1], share[(at >= 2) | (data.k == data.num_steps).values]
    lost = bool(len(below) and (below == 0).all() and share[-1] > 0 and (above >= share[-1]).all())
    words = [
        f"the delayed copy is lost with k < L, and not with k from 2 L on: {study.verdict(lost)} "
        f"(solved by {below.max(initial=0):.0%} of the seeds at most, "
        f"and {above.min():.0%} at least)"
    ]
    if len(below):
        cosines = data.cosine.sel(stage="birth").transpose("window", "seed").values
        cosine = statistics.estimate(cosines[at < 1][-1])
        words.append(
            "the bias at birth does not tell it: "
            f"{study.verdict(cosine.value > HIGH_COSINE)} "
            f"(cosine {cosine:.3f} at k = {float(data.k[at < 1][-1]):.0f})"
        )
    return words


EXPERIMENT = study.Experiment(
    name="truncation",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    section="training",
    order=3,
    gallery={"truncation": study.Picture()},
    quick={
        "hidden_size": 5,
        "num_seeds": 2,
        "delay": 3,
        "num_steps": 8,
        "ratios": (0.5, 1.0),
        "batch_size": 8,
        "num_updates": 20,
        "eval_every": 10,
        "eval_size": 16,
    },
    full={"delay": 15, "num_steps": 64, "num_updates": 10_000},
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
