"""Which clipping of gradients lets SGD learn a task, each at its own best learning rate.

A tanh network with a linear readout is trained by SGD with momentum, from the same seeds and on the
same sequences, without clipping and under each kind of clipping at three thresholds (tight, middle,
loose). Measured are whether and when the task is solved, the norms of the gradient along training,
at which fraction of the updates the clipping acts, and the cosine between the gradient before and
after it. With g the gradient::

    global_norm   g <- g · min(1, c / ‖g‖)                 the direction stays
    per_leaf      the same for each array of parameters
    value         each entry into [-c, c]
    pascanu       global_norm with c a multiple of the average norm so far
    agc           for the row of each unit, c times the norm of its weights
    adjoint       ∂L/∂s_t inside the recurrence, before the backward pass continues
    normalise     g <- c · g / ‖g‖, whether it is large or small

Every kind and threshold, and no clipping as well, has its own learning rate, the best of five on
validation seeds: a smaller rate can take the place of clipping. The claim, for each task: with the
global norm clipped at its middle threshold the final loss is smaller than without clipping, each at
its best rate; the 95 % interval over seeds of the log ratio lies below 0.

Source: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, algorithm 1 and Fig. 7.

    python experiments/clipping.py
    python experiments/clipping.py --full
    python experiments/clipping.py --clippings=none,adjoint --num_updates=3000

Takes about six minutes on two cores at the defaults, and hours, by estimate, with ``--full``. A
killed run resumes from its last evaluation.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray
from _kit import cells, curves, decisions, fields, outcomes, trained, tuning

from gradflow import statistics, study
from gradflow.spec import check_name, parse_spec, split_specs
from gradflow.study.figure import Axes, Figure
from gradflow.tasks import resolve_task
from gradflow.train import Progress, Schedule, Training
from gradflow.train.clipping import check_thresholds

THRESHOLDS: dict[str, tuple[float, ...]] = {
    "none": (),
    "global_norm": (0.3, 1.0, 3.0),
    "per_leaf": (0.1, 0.3, 1.0),
    "value": (0.01, 0.03, 0.1),
    "pascanu": (0.5, 1.0, 5.0),
    "agc": (0.03, 0.1, 0.3),
    "adjoint": (0.01, 0.03, 0.1),
    "normalise": (0.1, 0.3, 1.0),
}
"""The tight, middle and loose threshold of each kind, in the units of what it bounds."""

LEVELS = {"tight": ("v", "#0072B2"), "middle": ("o", "#D55E00"), "loose": ("^", "#009E73")}
"""The marker and the colour of each level of the threshold."""

NO_CLIPPING = ("D", "#000000")

CLAIMED = THRESHOLDS["global_norm"][1]
"""The threshold of the global norm that the claim is about."""

HIGHEST = 1e3
"""The highest ratio of final loss to baseline in the figure; larger ones are drawn there."""

METRICS = ("loss", "accuracy", "grad_norm", "clip_share", "clip_cosine", "clip_ratio")


@dataclass(frozen=True)
class Config(study.Config):
    """Which clippings, on which tasks."""

    num_seeds: int = fields.num_seeds(5)
    num_validation: int = fields.num_validation(2)
    precision: Literal["float64", "float32"] = fields.training_precision()
    clippings: str = study.field(
        ",".join(THRESHOLDS), help="Kinds of clipping, separated by commas; none is one of them."
    )
    cell: str = fields.cell("rnn(recurrent_init='normal(radius=1.2)')")
    optimiser: str = fields.optimiser("sgd(momentum=0.9)")
    learning_rates: tuple[float, ...] = fields.positive(
        (0.003, 0.01, 0.03, 0.1, 0.3),
        help="Learning rates that are tried; the best on validation seeds is taken.",
    )
    batch_size: int = fields.batch_size(16)
    eval_every: int = fields.eval_every(50)
    eval_size: int = fields.eval_size(128)
    tasks: str = fields.tasks("temporal_order(num_steps=20),adding(num_steps=10)")
    hidden_size: int = fields.hidden_size(32)
    num_updates: int = fields.num_updates(2000)

    @property
    def schedule(self) -> Schedule:
        """How long, and when there is an evaluation."""
        return Schedule(self.num_updates, self.eval_every, early_stop=False)


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Trains under each kind; dimensions task, setting (a kind and threshold), seed, update."""
    tasks = split_specs(config.tasks)
    if not tasks:
        raise ValueError(f"Expected the name of a task, got {config.tasks!r}. Try adding.")
    units = {(t, k): _training(config, t, k) for t in tasks for k in _kinds(config)}
    _ = config.schedule  # numbers that do not divide are reported before anything is trained
    parts: dict[str, list[xarray.Dataset]] = {task: [] for task in tasks}
    for (task, kind), training in study.progress(list(units.items()), "task and clipping"):
        name = f"task={task},clipping={kind}"
        parts[task].append(trained.unit(once, name, _train, config, task, kind, training))
    how: dict[str, Any] = {"data_vars": "all", "join": "exact"}
    by_task = [xarray.concat(of_task, dim="setting", **how) for of_task in parts.values()]
    return xarray.concat(by_task, dim="task", **how)


def _kinds(config: Config) -> list[str]:
    kinds = list(dict.fromkeys(split_specs(config.clippings)))
    for kind in kinds:
        check_name("clipping of this study", kind, THRESHOLDS)
    if "none" not in kinds:
        raise ValueError(
            f"Expected none among --clippings, to compare with, got {', '.join(kinds)}. Add none."
        )
    return kinds


def _training(config: Config, task_spec: str, kind: str) -> Training:
    task = resolve_task(task_spec)
    cell = cells.factory(config.cell)(task.input_size, config.hidden_size)
    return trained.setup(config, cell, task, optimiser=config.optimiser, clipping=kind)


def _train(
    config: Config, task: str, kind: str, training: Training, folder: Path | None
) -> xarray.Dataset:
    """All seeds and thresholds of one task and kind, each threshold at its best learning rate."""
    levels, grid = THRESHOLDS[kind], config.learning_rates
    thresholds = check_thresholds(kind, levels) if levels else (np.inf,)
    what = {"task": task, "kind": kind}
    settings = list(itertools.product(grid, thresholds))
    found = tuning.final_losses(config, training, settings, folder=folder, **what)
    tried = np.moveaxis(found.reshape(len(grid), len(thresholds), -1), 0, 1)
    last = trained.to_end(
        training,
        trained.begin(
            training,
            tuning.keys(config)[0],
            list(zip(tuning.best(tried, grid), thresholds, strict=True)),
        ),
        config.schedule,
        folder=folder,
        identity=trained.identity(config, **what),
    )
    names = [f"{kind} {threshold:g}" for threshold in thresholds] if levels else [kind]
    data = _dataset(config, last, names, thresholds)
    chosen = tuning.variables(tried, grid, "setting")
    return data.assign(chosen).assign(baseline=training.task.baseline).expand_dims(task=[task])


def _dataset(
    config: Config, progress: Progress, names: list[str], thresholds: tuple[float, ...]
) -> xarray.Dataset:
    sizes = {"setting": len(names), "seed": config.num_seeds}
    return xarray.Dataset(
        {
            **trained.curves(progress, METRICS, sizes),
            **trained.events(progress, sizes),
            "threshold": ("setting", list(thresholds)),
        },
        coords={
            "setting": names,
            "seed": np.arange(config.num_seeds),
            "update": ("update", config.schedule.evaluations, {"units": "updates"}),
        },
    )


def kind_of(setting: str) -> str:
    """Gives the kind of clipping of a setting such as ``global_norm 1``."""
    return setting.partition(" ")[0]


def level_of(setting: str) -> str | None:
    """Tells whether the threshold of a setting is tight, middle or loose; None without one."""
    kind, _, threshold = setting.partition(" ")
    names = [f"{level:g}" for level in THRESHOLDS[kind]]
    return list(LEVELS)[names.index(threshold)] if threshold else None


def mean_effect(data: xarray.Dataset, name: str) -> float:
    """Computes the mean of what the clipping does, over updates and seeds; NaN if unknown."""
    return float(np.nanmean(data[name])) if np.isfinite(data[name]).any() else np.nan


def final_losses(data: xarray.Dataset) -> np.ndarray:
    """Gives the last finite loss of each seed in one setting."""
    return trained.last_finite(data.loss.transpose("seed", "update").values)


def gain(data: xarray.Dataset, setting: str) -> np.ndarray:
    """Tells of each seed whether it was solved in a setting, less whether it was with none."""
    solved = np.isfinite(data.solved_at)
    return (solved.sel(setting=setting).astype(int) - solved.sel(setting="none")).values


def figure(dataset: xarray.Dataset) -> Figure:
    """For each task which seeds solve it and the final loss, by clipping; the norms below."""
    tasks = [str(task) for task in dataset.task.values]
    fig = study.figure.empty(max(4.0, 1.2 + 2.9 * len(tasks)), 6.4)
    upper, lower = fig.subfigures(2, 1, height_ratios=(1.7, 1), squeeze=False)[:, 0]
    panels = upper.subplots(1, 2 * len(tasks), sharey=True, squeeze=False)[0]
    for solved, loss, task in zip(panels[::2], panels[1::2], tasks, strict=True):
        _draw_settings(solved, loss, dataset.sel(task=task))
        solved.set_title(curves.task_title(task))
    study.figure.legend_above(upper, panels[0])
    panels = lower.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for ax, task in zip(panels, tasks, strict=True):
        _draw_norms(ax, dataset.sel(task=task))
        ax.set_title(curves.task_title(task))
    panels[0].set_ylabel("norm of the gradient")
    study.figure.legend_above(lower, panels[0])
    return fig


def _draw_settings(solved: Axes, loss: Axes, data: xarray.Dataset) -> None:
    """A row for each kind, the tight threshold above the loose one."""
    names = [str(name) for name in data.setting.values]
    kinds = list(dict.fromkeys(map(kind_of, names)))
    for name in names:
        level, one = level_of(name), data.sel(setting=name)
        y = kinds.index(kind_of(name)) + 0.24 * (list(LEVELS).index(level) - 1 if level else 0)
        marker, color = LEVELS[level] if level else NO_CLIPPING
        look: dict[str, Any] = {"marker": marker, "color": color, "ls": "", "ms": 4.5}
        label = f"{level} threshold" if level else "no clipping"
        is_known = label in solved.get_legend_handles_labels()[1]
        label = "_" if is_known else label  # which a legend leaves out
        solved.plot([np.isfinite(one.solved_at.values).mean()], [y], **look, label=label)
        final = np.minimum(final_losses(one) / float(one.baseline), HIGHEST)
        loss.plot([final.min(), final.max()], [y, y], color=color, lw=1)
        loss.plot([np.median(final)], [y], **look)
    solved.set_yticks(range(len(kinds)), [_tick(kind) for kind in kinds])
    solved.set(xlim=(-0.08, 1.08), ylim=(len(kinds) - 0.5, -0.5), xlabel="fraction solved")
    loss.axvline(1, **outcomes.REFERENCE)
    loss.set(xscale="log", xlabel="loss / baseline")
    for ax in (solved, loss):
        ax.grid(False, axis="y")


def _tick(kind: str) -> str:
    """The name of a kind, and its thresholds from tight to loose."""
    thresholds = ", ".join(f"{level:g}" for level in THRESHOLDS[kind])
    return f"{kind.replace('_', ' ')}\n{thresholds}" if thresholds else "no clipping"


def _claimed(data: xarray.Dataset) -> str | None:
    """The setting that the claim is about, if it was measured."""
    wanted = f"global_norm {CLAIMED:g}"
    return wanted if wanted in data.setting.values else None


def _draw_norms(ax: Axes, data: xarray.Dataset) -> None:
    """The mean norm between evaluations, of every seed, with the threshold."""
    shown = [("none", NO_CLIPPING[1], "-")]
    claimed = _claimed(data)
    if claimed is not None:
        shown.append((claimed, LEVELS["middle"][1], "--"))
        threshold = float(data.threshold.sel(setting=claimed))
        ax.axhline(
            threshold, color="#808080", lw=1.2, ls=(0, (1, 1)), label=f"threshold {threshold:g}"
        )
    for name, color, line in shown:
        norms = data.grad_norm.sel(setting=name).transpose("update", "seed")
        lines = ax.plot(data["update"], norms, color=color, ls=line, lw=0.9, alpha=0.75)
        lines[0].set_label("no clipping" if name == "none" else "clipped global norm")
    ax.set(yscale="log", xlabel="update")


def summary(dataset: xarray.Dataset) -> str:
    """A table of all settings."""
    rows = [
        _row(dataset.sel(task=t, setting=name)) for t in dataset.task for name in dataset.setting
    ]
    return f"{study.table(rows)}\n{tuning.note(dataset)}"


def _row(data: xarray.Dataset) -> dict[str, str]:
    return {
        "task": parse_spec(str(data.task.values))[0],
        "clipping": str(data.setting.values),
        "rate": tuning.text(data),
        **outcomes.row(data.solved_at),
        "final loss": f"{float(np.median(final_losses(data))):.3g}",
        "fraction clipped": f"{mean_effect(data, 'clip_share'):.2f}",
        "cosine": f"{mean_effect(data, 'clip_cosine'):.3f}",
        "norm ratio": f"{mean_effect(data, 'clip_ratio'):.2g}",
        "NaN runs": f"{np.isfinite(data.died_at.values).sum()}",
    }


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """Whether clipping the global norm helps, on each task."""
    by_task = [dataset.sel(task=task) for task in dataset.task.values]
    return [_helps(data) for data in by_task if _claimed(data) is not None]


def _helps(data: xarray.Dataset) -> study.Claim:
    task, claimed = str(data.task.values), _claimed(data)
    clipped, plain = (final_losses(data.sel(setting=name)) for name in (claimed, "none"))
    ratio = statistics.estimate(np.log10(clipped / plain))
    more = statistics.estimate(gain(data, claimed or "none"))
    return study.claim(
        decisions.identifier("clipping-helps", task),
        f"On {task} SGD learns better with the global norm clipped at {CLAIMED:g} than without "
        "clipping, each at its best learning rate.",
        decisions.below(ratio),
        measured={
            "log10 of the final loss over that without clipping": ratio,
            "fraction of seeds solved, less that without clipping": more,
        },
        criterion="the 95 % interval of the log ratio of the final losses lies below 0",
    )


EXPERIMENT = study.Experiment(
    name="clipping",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    section="training",
    order=2,
    gallery={"clipping": study.Picture()},
    quick={
        "clippings": "none,global_norm",
        "tasks": "temporal_order(num_steps=10),adding(num_steps=6)",
        "hidden_size": 6,
        "num_seeds": 3,
        "num_updates": 20,
        "eval_every": 10,
        "eval_size": 16,
        "batch_size": 8,
        "learning_rates": (0.03, 0.3),
    },
    full={
        "tasks": "temporal_order(num_steps=50),adding(num_steps=30)",
        "hidden_size": 50,
        "num_updates": 20_000,
    },
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
