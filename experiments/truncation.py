"""What truncated backpropagation loses depends on whether the weights are learnt within a window.

Three tasks whose dependency has a known length L: the delayed copy, where the target at step t was
the input at t - d, so that L = d + 1 steps; the adding problem, where the first marked value lies
between half and all of the T steps before the end and the second one after it; and the same problem
without its second mark, where the target is the first marked value alone. A network is trained by
TBPTT(k, k), that is in windows of k steps between which the carry is kept and the gradient cut
(with a loss at the last step alone: the last k steps), and by the full gradient::

    bias      cosine and ratio of norms, truncated over full gradient of the cell: at initialisation
              and at the end of the training with that window
    success   which seeds solve the task, against k / L
    cost      seconds per update, and the memory of its temporaries, against k

Four claims. (1) The delayed copy is lost if the gradient is cut before its dependency: no seed
solves it with k < L, while with k ≥ 2 L as many do as with the full gradient. (2) The adding
problem is solved though the gradient is cut before the first mark: with the longest k ≤ T/2, which
the first mark is never in, as many seeds solve it as with the full gradient. (3) The second mark
teaches the weights that the first one needs, because they are the same: without it no seed solves
the problem with k ≤ T/2, but seeds do with the full gradient. (4) The bias at initialisation does
not reveal the loss of the delayed copy: the cosine at the longest k < L is above 0.9 there, by its
95 % interval over seeds, because a network at initialisation remembers only a few steps.

Source: Williams & Peng 1990, doi:10.1162/neco.1990.2.4.490; Tallec & Ollivier 2017,
arXiv:1705.08209 (that truncation is biased).

    python experiments/truncation.py
    python experiments/truncation.py --full
    python experiments/truncation.py --cell=lstm --delay=5

Takes about two minutes on two cores at the defaults, and an hour, by estimate, with ``--full``. The
seconds in the record are those of the machine that it ran on, and differ between any two runs.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import cells, decisions, fields, outcomes, runs, trained

from gradflow import Params, statistics, study
from gradflow.cell import Key
from gradflow.devices import map_runs
from gradflow.study.figure import Figure
from gradflow.tasks import Batch, Task, resolve_task
from gradflow.tasks.task import at_end
from gradflow.train import Progress, Runs, Schedule, Training, advance
from gradflow.train.direction import Comparison, compare
from gradflow.train.gradient import full_gradient, tbptt_gradient

LOOKS: dict[str, dict[str, Any]] = {
    "delayed_copy": {"color": "#0072B2", "linestyle": "-", "marker": "s"},
    "adding": {"color": "#D55E00", "linestyle": "--", "marker": "o"},
    "first_mark": {"color": "#009E73", "linestyle": "-.", "marker": "^"},
}
"""The style of each task in every panel."""

STAGES = {"initialisation": {}, "trained": {"markerfacecolor": "white"}}
"""When the bias is measured, with the style of its markers."""

HIGH_COSINE = 0.9
"""The cosine above which a truncated gradient looks like the full one."""

TIMED = 3
"""Chunks of updates that are timed; the fastest one counts."""


class Problem(NamedTuple):
    """A task and the length of its dependency.

    Attributes:
      task: The task.
      needed: L, the largest number of steps that a dependency spans.
      at_end: Whether the loss is at the last step alone.
    """

    task: Task
    needed: int
    at_end: bool

    @property
    def num_steps(self) -> int:
        """T."""
        return self.task.num_steps


@dataclass(frozen=True)
class Config(study.Config):
    """Which network, and which windows."""

    num_seeds: int = fields.num_seeds(5)
    precision: Literal["float64", "float32"] = fields.training_precision()
    cell: str = fields.cell("gru")
    hidden_size: int = fields.hidden_size(24)
    delay: int = fields.positive(7, help="Delay d of the delayed copy, in steps.")
    num_steps: int = fields.positive(32, help="Time steps T of both tasks.")
    ratios: tuple[float, ...] = fields.positive(
        (0.25, 0.5, 0.875, 1.0, 1.5, 2.0),
        help="Windows k to try, as multiples of L; those beyond T are left out.",
    )
    learning_rate: float = fields.learning_rate(0.01)
    batch_size: int = fields.batch_size(16)
    num_updates: int = fields.num_updates(1000)
    eval_every: int = fields.eval_every(50)
    eval_size: int = fields.eval_size(128)

    @property
    def schedule(self) -> Schedule:
        """How long, and when there is an evaluation."""
        return Schedule(self.num_updates, self.eval_every)


def problems(config: Config) -> dict[str, Problem]:
    """Gives the three tasks by name.

    Raises:
      ValueError: If the delay is as long as the sequence.
    """
    delay, num_steps = config.delay, config.num_steps
    if delay >= num_steps:
        raise ValueError(
            f"Expected a delay below num_steps={num_steps}, got {delay}. "
            "Decrease --delay or increase --num_steps."
        )
    copied = resolve_task(f"delayed_copy(delay={delay}, num_steps={num_steps})")
    added = resolve_task(f"adding(num_steps={num_steps})")
    return {
        "delayed_copy": Problem(copied, delay + 1, at_end=False),
        "adding": Problem(added, num_steps, at_end=True),
        "first_mark": Problem(first_mark(added), num_steps, at_end=True),
    }


def first_mark(added: Task) -> Task:
    """Makes of the adding problem the one without a second mark: the target is the first value.

    The best prediction without memory is 1/2; its loss is the variance of the target, 1/12.
    """
    early = jnp.arange(added.num_steps)[:, None] < added.num_steps // 2

    def sample(key: Key, batch_size: int) -> Batch:
        inputs = added.sample(key, batch_size).inputs
        inputs = inputs.at[..., 1].multiply(early)
        target = jnp.sum(inputs[..., 0] * inputs[..., 1], axis=0)
        return at_end(inputs, target[:, None])

    return added._replace(sample=sample, baseline=1 / 12)


def windows(config: Config, problem: Problem) -> list[int]:
    """Gives the windows k to try, ascending; the last is T, the full gradient."""
    tried = {max(1, round(ratio * problem.needed)) for ratio in config.ratios}
    return [*sorted(k for k in tried if k < problem.num_steps), problem.num_steps]


def truncation(problem: Problem, k: int) -> tuple[int, int] | None:
    """Gives k1 and k2 for a window of k steps; None for the full gradient.

    With a loss at the last step alone the gradient goes back k2 steps from there for every k1, and
    k1 = T is the cheapest.
    """
    if k == problem.num_steps:
        return None
    return (problem.num_steps, k) if problem.at_end else (k, k)


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Trains with each window; dimensions task, window (by number), seed, update, stage."""
    units = {
        (name, k): _training(config, problem, k)
        for name, problem in problems(config).items()
        for k in windows(config, problem)
    }
    _ = config.schedule  # numbers that do not divide are reported before anything is trained
    parts: dict[str, list[xarray.Dataset]] = {}
    for (name, k), training in study.progress(list(units.items()), "windows"):
        part = trained.unit(once, f"task={name},k={k}", _measure, config, name, k, training)
        parts.setdefault(name, []).append(part)
    found = [xarray.concat(of_task, dim="window") for of_task in parts.values()]
    return xarray.concat(found, dim="task", join="outer")


def _training(config: Config, problem: Problem, k: int) -> Training:
    cell = cells.factory(config.cell)(problem.task.input_size, config.hidden_size)
    given: dict[str, Any] = {"clipping": "global_norm", "truncation": truncation(problem, k)}
    return trained.setup(config, cell, problem.task, **given)


def _begin(config: Config, training: Training) -> Runs:
    return trained.begin(training, runs.keys(config), [(config.learning_rate,)])


def _measure(
    config: Config, name: str, k: int, training: Training, folder: Path | None
) -> xarray.Dataset:
    """All seeds with one window, in one program, and the bias and the cost of its gradient."""
    problem, begun = problems(config)[name], _begin(config, training)
    first = jax.tree.map(jnp.copy, begun.params)  # the training reuses the memory of its runs
    last = trained.to_end(
        training,
        begun,
        config.schedule,
        folder=folder,
        identity=trained.identity(config, task=name, k=k),
    )
    bias = _bias(config, training)
    biases = [jax.device_get(bias(params)) for params in (first, last.state.params)]
    seconds, size = _cost(config, training)
    found = _dataset(config, last, biases).assign(
        seconds=((), seconds, {"units": "s"}),
        temporaries=((), size, {"units": "bytes"}),
        k=((), float(k), {"units": "steps"}),
        needed=((), float(problem.needed), {"units": "steps"}),
        num_steps=((), float(problem.num_steps), {"units": "steps"}),
    )
    return found.expand_dims(task=[name], window=[windows(config, problem).index(k)])


def _dataset(config: Config, progress: Progress, biases: list[Comparison]) -> xarray.Dataset:
    sizes = {"seed": config.num_seeds}
    by_stage = {
        name: (("stage", "seed"), np.stack(values).astype(float))
        for name, values in zip(Comparison._fields, zip(*biases, strict=True), strict=True)
    }
    return xarray.Dataset(
        {
            **trained.curves(progress, ("loss", "accuracy"), sizes),
            **by_stage,
            "solved_at": trained.events(progress, sizes)["solved_at"],
        },
        coords={
            "stage": list(STAGES),
            "seed": np.arange(config.num_seeds),
            "update": ("update", config.schedule.evaluations, {"units": "updates"}),
        },
    )


def _bias(config: Config, training: Training) -> Callable[[Params], Comparison]:
    """Of the parameters of all seeds: the cell's truncated gradient against the full one."""
    task, cell = training.task, training.cell
    batch = task.sample(jax.random.fold_in(jax.random.key(config.seed), 1), config.eval_size)

    def one(params: Params) -> Comparison:
        exact = full_gradient(task.loss, cell, params, batch)
        if training.truncation is None:
            return compare(exact.value["cell"], exact.value["cell"])
        k1, k2 = training.truncation
        cut = tbptt_gradient(task.loss, cell, params, batch, k1=k1, k2=k2)
        return compare(cut.value["cell"], exact.value["cell"])

    return jax.jit(map_runs(one))


def _cost(config: Config, training: Training) -> tuple[float, float]:
    """Seconds per update of all seeds, without compilation, and the bytes of its temporaries."""
    number = config.eval_every
    update = jax.jit(advance, static_argnums=(0, 2), donate_argnums=1)
    compiled = update.lower(training, _begin(config, training), number).compile()
    times = []
    for _ in range(TIMED):
        begun = jax.block_until_ready(_begin(config, training))
        start = time.perf_counter()
        jax.block_until_ready(compiled(begun))
        times.append(time.perf_counter() - start)
    memory = compiled.memory_analysis()  # which some backends do not give
    return min(times) / number, float(getattr(memory, "temp_size_in_bytes", np.nan))


def of_task(dataset: xarray.Dataset, task: str) -> xarray.Dataset:
    """Selects one task, without the windows that only another task has."""
    return dataset.sel(task=task).dropna("window", subset=["k"])


def relative_window(data: xarray.Dataset) -> np.ndarray:
    """Computes k / L of the windows of one task."""
    return (data.k / data.needed).values


def success(data: xarray.Dataset) -> np.ndarray:
    """Computes the fraction of seeds that solved one task, by window."""
    return np.isfinite(data.solved_at.transpose("window", "seed").values).mean(axis=1)


def figure(dataset: xarray.Dataset) -> Figure:
    """Bias, success and cost against k / L."""
    fig = study.figure.empty(7.0, 4.8)
    panels = fig.subplots(2, 3, sharex=True)
    for task in map(str, dataset.task.values):
        _draw(panels, of_task(dataset, task), {**LOOKS[task], "markevery": 1})
    titles = (
        ("cosine to full gradient", "norm / norm of full", "fraction of seeds solved"),
        ("updates to solve", "time per update (ms)", "temporaries (MiB)"),
    )
    for ax, title in zip(panels.flat, sum(titles, ()), strict=True):
        ax.set_title(title)
        ax.axvline(1, **outcomes.REFERENCE)
    panels[0, 2].set_ylim(-0.06, 1.06)
    for ax in panels[1]:
        ax.set_ylim(bottom=0)
    fig.supxlabel("window k / length of the dependency L (dotted: k = L)", fontsize=9)
    fig.legend(handles=_handles(dataset), loc="outside upper center", ncols=3)
    return fig


def _handles(dataset: xarray.Dataset) -> list[Any]:
    tasks = [
        study.figure.handle(**LOOKS[task], label=f"{task.replace('_', ' ')}, L = {needed:.0f}")
        for task in map(str, dataset.task.values)
        for needed in [float(of_task(dataset, task).needed[0])]
    ]
    grey: dict[str, Any] = {"color": "#606060", "ls": "", "marker": "o"}
    labels = ("at initialisation", "trained with that window")
    stages = [
        study.figure.handle(**grey, **look, label=label)
        for look, label in zip(STAGES.values(), labels, strict=True)
    ]
    return tasks + stages


def _draw(panels: np.ndarray, data: xarray.Dataset, look: dict[str, Any]) -> None:
    (cosine, ratio, solved), (updates, seconds, memory) = panels
    at = relative_window(data)
    for stage, extra in STAGES.items():
        for ax, name in ((cosine, "cosine"), (ratio, "norm_ratio")):
            values = data[name].sel(stage=stage).transpose("seed", "window")
            study.figure.band(ax, at, values, "seed", **look, **extra)
    solved.plot(at, success(data), **look)
    first = data.solved_at.transpose("window", "seed").values
    updates.plot(at, [outcomes.median_update(row) for row in first], **look)
    seconds.plot(at, 1e3 * data.seconds, **look)
    memory.plot(at, data.temporaries / 2**20, **look)


def summary(dataset: xarray.Dataset) -> str:
    """A table of all windows."""
    by_task = {task: of_task(dataset, task) for task in map(str, dataset.task.values)}
    return study.table(
        [
            _row(task, data.isel(window=i))
            for task, data in by_task.items()
            for i in range(data.sizes["window"])
        ]
    )


def _row(task: str, data: xarray.Dataset) -> dict[str, str]:
    biases = {
        f"{title}, {stage}": f"{statistics.estimate(data[name].sel(stage=stage).values):.3f}"
        for stage in STAGES
        for name, title in (("cosine", "cosine"), ("norm_ratio", "norm ratio"))
    }
    return {
        "task": task,
        "k": f"{float(data.k):.0f}",
        "k / L": f"{float(data.k / data.needed):.2f}",
        **outcomes.row(data.solved_at),
        **biases,
        "ms per update": f"{1e3 * float(data.seconds):.2f}",
        "MiB": f"{float(data.temporaries) / 2**20:.2f}",
    }


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """Which task is lost with short windows, which is not and why, and what the bias reveals."""
    copied, added, first = (of_task(dataset, task) for task in LOOKS)
    is_short = bool((relative_window(copied) < 1).any())
    return [
        _lost(copied),
        _solved(added),
        _taught(first),
        *([_not_revealed(copied)] if is_short else []),
    ]


def _lost(data: xarray.Dataset) -> study.Claim:
    at, fraction = relative_window(data), success(data)
    below, above = fraction[at < 1], fraction[(at >= 2) | (data.k == data.num_steps).values]
    full = fraction[-1]
    # Without a window below L, or a seed that solves the task at all, there is nothing to lose.
    decided = len(below) > 0 and full > 0
    return study.claim(
        "lost-below-dependency",
        "The delayed copy is lost if the gradient is cut before its dependency.",
        bool((below == 0).all() and (above >= full).all()) if decided else None,
        measured={
            "largest fraction of seeds solved with k < L": float(below.max(initial=0)),
            "smallest with k from 2 L on": float(above.min()),
            "with the full gradient": float(full),
        },
        criterion="no seed solves the delayed copy with k < L, and with every k from 2 L on as "
        "many do as with the full gradient",
    )


def _before_first_mark(data: xarray.Dataset) -> tuple[np.ndarray, dict[str, float]]:
    """The fractions of seeds solved with windows that the first mark is never in; the numbers."""
    before, fraction = (data.k <= data.num_steps / 2).values, success(data)
    longest = f"fraction of seeds solved with k = {float(data.k[before].max()):.0f}"
    measured = {longest: float(fraction[before][-1]), "with the full gradient": float(fraction[-1])}
    return fraction[before], measured


def _solved(data: xarray.Dataset) -> study.Claim:
    before, measured = _before_first_mark(data)
    full = success(data)[-1]
    return study.claim(
        "adding-solved",
        "The adding problem is solved though the gradient is cut before its first mark.",
        bool(before[-1] >= full) if full > 0 else None,
        measured=measured,
        criterion="with the longest k up to T/2 as many seeds solve it as with the full gradient",
    )


def _taught(data: xarray.Dataset) -> study.Claim:
    before, measured = _before_first_mark(data)
    full = success(data)[-1]
    return study.claim(
        "second-mark-teaches",
        "Without the second mark, which teaches the weights that both need, the problem is lost.",
        bool((before == 0).all()) if full > 0 else None,
        measured=measured,
        criterion="no seed solves it with k up to T/2, and seeds do with the full gradient",
    )


def _not_revealed(data: xarray.Dataset) -> study.Claim:
    longest = int(np.flatnonzero(relative_window(data) < 1)[-1])
    cosine = statistics.estimate(data.cosine.sel(stage="initialisation").isel(window=longest))
    k = f"{float(data.k[longest]):.0f}"
    return study.claim(
        "bias-does-not-reveal",
        "The bias of the truncated gradient at initialisation does not reveal the loss.",
        decisions.above(cosine, HIGH_COSINE),
        measured={f"cosine to the full gradient at k = {k}": cosine},
        criterion=f"at the longest k < L the cosine at initialisation is above {HIGH_COSINE:g}, by "
        "its 95 % interval",
    )


EXPERIMENT = study.Experiment(
    name="truncation",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
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
