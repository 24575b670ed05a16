"""What clipping buys, and which kind: training with gradients that explode now and then.

A tanh net with a linear readout, trained by SGD with momentum from the same seeds and on the same
sequences under each kind of clipping at three thresholds (tight, middle, loose), and without any:
whether a task is solved and after how many updates, the norms of the gradient along training, at
how many updates the clipping acts, and the cosine between the gradient before and after. With g
the gradient::

    global_norm   g <- g · min(1, c / ‖g‖)                 the direction stays
    per_leaf      the same for each array of parameters
    value         each entry into [-c, c]
    pascanu       global_norm with c a multiple of the average norm so far
    agc           for the row of each unit, c times the norm of its weights
    adjoint       ∂L/∂s_t inside the recurrence, before it goes on back
    normalise     g <- c · g / ‖g‖, whether it is large or small

The claim: at a learning rate that is as large as a task wants it, the gradients that explode throw
SGD off, and clipping of the global norm, which keeps the direction, is the cure. The learning rates
come from runs that explored where that happens. The rule, set before the run that is shown: on each
task the final loss under global_norm at its middle threshold is below that without clipping, the
95 % interval of the log ratio over seeds being below 0. The shares of seeds that solve a task are
told beside it.

Source: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, algorithm 1 and Fig. 7.

    python experiments/clipping.py
    python experiments/clipping.py --full
    python experiments/clipping.py --clippings=none,adjoint --num_updates=3000

Takes two minutes on two cores at the defaults, hours, by estimate, in full. A killed run
goes on from its last evaluation.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from _kit import trained

from gradflow import statistics, study
from gradflow.cells import resolve
from gradflow.spec import check_name, parse_spec, split_specs
from gradflow.structure import check_structure
from gradflow.tasks import resolve_task
from gradflow.train.clipping import check_thresholds, resolve_clipping
from gradflow.train.driver import Progress, Schedule
from gradflow.train.optimisers import resolve_optimiser
from gradflow.train.runs import begin
from gradflow.train.training import Training

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
"""Tight, middle and loose; each in the units of what it bounds."""

LEVELS = ("tight", "middle", "loose")
LOOKS = (("v", "#0072B2"), ("o", "#D55E00"), ("^", "#009E73"))
"""Of the levels: marker and colour."""

ALONE = ("D", "#000000")
"""The look of no clipping."""

HIGHEST = 1e3
"""A final loss over the baseline is drawn here at most."""

METRICS = ("loss", "accuracy", "grad_norm", "clip_share", "clip_cosine", "clip_ratio")


@dataclass(frozen=True)
class Config(study.Config):
    """Which clippings, on what."""

    num_seeds: int = study.field(5, help="Nets, each trained under every clipping.", positive=True)
    precision: Literal["float64", "float32"] = study.field("float32", help="Of the training.")
    clippings: str = study.field(
        ",".join(THRESHOLDS), help="Kinds of clipping, separated by commas; none is one of them."
    )
    cell: str = study.field(
        "rnn(recurrent_init='normal(radius=1.2)')", help="The cell, with options or without."
    )
    optimiser: str = study.field(
        "sgd(momentum=0.9)", help="One of optax's, with its options as literals."
    )
    learning_rate: tuple[float, ...] = study.field(
        (0.03, 0.05), help="Of the optimiser: one for each task.", positive=True
    )
    batch_size: int = study.field(16, help="Sequences an update.", positive=True)
    eval_every: int = study.field(50, help="Updates between two evaluations.", positive=True)
    eval_size: int = study.field(128, help="Fresh sequences an evaluation.", positive=True)
    tasks: str = study.field(
        "temporal_order(num_steps=20),adding(num_steps=10)",
        help="Tasks, separated by commas, with options or without.",
    )
    hidden_size: int = study.field(32, help="Hidden units.", positive=True)
    num_updates: int = study.field(2000, help="The most updates of a run.", positive=True)


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Trains under each kind; dimensions task, setting (a kind and threshold), seed, update."""
    import xarray

    kinds = _kinds(config)
    tasks = split_specs(config.tasks)
    if not tasks:
        raise ValueError(f"the name of a task is expected, got {config.tasks!r}; try adding")
    if len(config.learning_rate) != len(tasks):
        raise ValueError(
            f"one learning rate for each of {len(tasks)} tasks is expected, "
            f"got {config.learning_rate}"
        )
    rates = dict(zip(tasks, config.learning_rate, strict=True))
    _schedule(config)
    units = {(t, k): _training(config, t, k) for t in tasks for k in kinds}
    parts: dict[tuple[str, str], xarray.Dataset] = {}
    for (task, kind), training in study.progress(list(units.items()), "task and clipping"):
        name = f"task={task},clipping={kind}"
        folder = partial(once.folder, name)
        thunk = partial(_train, config, (task, kind, rates[task]), training, folder)
        parts[task, kind] = once(name, thunk)
    how: dict[str, Any] = {"data_vars": "all", "join": "exact"}
    by_task = [xarray.concat([parts[t, k] for k in kinds], dim="setting", **how) for t in tasks]
    return xarray.concat(by_task, dim="task", **how)


def _kinds(config: Config) -> list[str]:
    kinds = list(dict.fromkeys(split_specs(config.clippings)))
    for kind in kinds:
        check_name("clipping of this study", kind, THRESHOLDS)
    if "none" not in kinds:
        raise ValueError(f"none among the clippings is expected, to compare with, got {kinds}")
    return kinds


def _schedule(config: Config) -> Schedule:
    return Schedule(config.num_updates, config.eval_every)


def _training(config: Config, task_spec: str, kind: str) -> Training:
    check_structure(resolve(config.cell))
    task = resolve_task(task_spec)
    return Training(
        resolve(config.cell)(task.input_size, config.hidden_size),
        task,
        resolve_optimiser(config.optimiser),
        resolve_clipping(kind),
        batch_size=config.batch_size,
        eval_size=config.eval_size,
    )


def _train(
    config: Config, unit: tuple[str, str, float], training: Training, folder: Any
) -> "xarray.Dataset":
    """All seeds and thresholds of one task and kind at a learning rate, in one program."""
    task, kind, rate = unit
    levels = THRESHOLDS[kind]
    thresholds = check_thresholds(kind, levels) if levels else (np.inf,)
    # A seed draws the same parameters and sequences in every setting.
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    runs = begin(
        training,
        jnp.tile(keys, len(thresholds)),
        jnp.full(len(thresholds) * config.num_seeds, rate),
        jnp.repeat(jnp.asarray(thresholds, float), config.num_seeds),
    )
    place, identity = folder(), {**dataclasses.asdict(config), "task": task, "kind": kind}
    last = trained.to_end(training, runs, _schedule(config), folder=place, identity=identity)
    names = [f"{kind} {threshold:g}" for threshold in thresholds] if levels else [kind]
    found = _dataset(config, last, names, thresholds)
    return found.assign(baseline=training.task.baseline).expand_dims(task=[task])


def _dataset(
    config: Config, progress: Progress, names: list[str], thresholds: tuple[float, ...]
) -> "xarray.Dataset":
    import xarray

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
            "update": ("update", _schedule(config).evaluations, {"units": "updates"}),
        },
    )


def kind_of(setting: str) -> str:
    """The kind of clipping of a setting such as ``global_norm 1``."""
    return setting.partition(" ")[0]


def level_of(setting: str) -> str | None:
    """Whether the threshold of a setting is the tight, middle or loose one; None without."""
    kind, _, threshold = setting.partition(" ")
    return LEVELS[[f"{t:g}" for t in THRESHOLDS[kind]].index(threshold)] if threshold else None


def outcome(data: "xarray.Dataset") -> dict[str, float]:
    """What the seeds of one setting on one task came to."""
    solved_at, last = data.solved_at.values, final_losses(data)
    solved = np.isfinite(solved_at)
    means = {
        name: float(np.nanmean(data[name])) if np.isfinite(data[name]).any() else np.nan
        for name in ("clip_share", "clip_cosine", "clip_ratio")
    }
    return {
        "solved": float(solved.mean()),
        "updates": float(np.median(solved_at[solved])) if solved.any() else np.nan,
        "loss": float(np.median(last)),
        "dead": float(np.isfinite(data.died_at.values).sum()),
        **means,
    }


def final_losses(data: "xarray.Dataset") -> np.ndarray:
    """The last loss of each seed in one setting that was finite; there is one before training."""
    return trained.last_finite(data.loss.transpose("seed", "update").values)


def gain(data: "xarray.Dataset", setting: str) -> np.ndarray:
    """Of each seed, whether it was solved in a setting, less whether it was without clipping."""
    solved = np.isfinite(data.solved_at)
    return (solved.sel(setting=setting).astype(int) - solved.sel(setting="none")).values


def figure(dataset: "xarray.Dataset") -> "Figure":
    """A column for each task: success, updates, what the clipping does; and the norms."""
    from matplotlib.figure import Figure

    tasks = [str(task) for task in dataset.task.values]
    fig = Figure(figsize=(max(4.0, 0.6 + 3.2 * len(tasks)), 9.0))
    upper, lower = fig.subfigures(2, 1, height_ratios=(6, 2), squeeze=False)[:, 0]
    rows = upper.subplots(5, len(tasks), sharex=True, sharey="row", squeeze=False)
    for column, task in enumerate(tasks):
        _draw_settings(rows[:, column], dataset.sel(task=task))
        rows[0, column].set_title(task.replace("num_steps=", "T = "))
    labels = ("seeds solved", "updates\nto solve", "final loss /\nbaseline", "acted", "cosine")
    for ax, label in zip(rows[:, 0], labels, strict=True):
        ax.set_ylabel(label)
    handles = _handles(dataset)
    upper.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    panels = lower.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for ax, task in zip(panels, tasks, strict=True):
        _draw_norms(ax, dataset.sel(task=task))
    panels[0].set_ylabel("‖gradient‖")
    shown = panels[0].get_legend_handles_labels()
    lower.legend(*shown, loc="outside upper center", ncols=len(shown[0]))
    return fig


def _handles(dataset: "xarray.Dataset") -> list[Any]:
    from matplotlib.lines import Line2D

    names = {level_of(str(name)) for name in dataset.setting.values}
    looks = {None: ALONE, **dict(zip(LEVELS, LOOKS, strict=True))}
    return [
        Line2D([], [], marker=marker, color=color, ls="", label=level or "none")
        for level, (marker, color) in looks.items()
        if level in names
    ]


def _draw_settings(column: Any, data: "xarray.Dataset") -> None:
    """Each setting at its kind's place along the axis, the tight to the left of the loose."""
    names = [str(name) for name in data.setting.values]
    kinds = list(dict.fromkeys(map(kind_of, names)))
    success, updates, loss, acted, cosine = column
    for name in names:
        level = level_of(name)
        number = None if level is None else LEVELS.index(level)
        marker, color = ALONE if number is None else LOOKS[number]
        x = kinds.index(kind_of(name)) + (0 if number is None else 0.24 * (number - 1))
        look: dict[str, Any] = {"marker": marker, "color": color, "ls": "", "ms": 4.5}
        one, found = data.sel(setting=name), outcome(data.sel(setting=name))
        success.plot([x], [found["solved"]], **look)
        at = one.solved_at.values[np.isfinite(one.solved_at.values)]
        if len(at):
            updates.plot([x, x], [at.min(), at.max()], color=color, lw=1)
            updates.plot([x], [found["updates"]], **look)
        loss.plot([x], [min(found["loss"] / float(one.baseline), HIGHEST)], **look)
        acted.plot([x], [found["clip_share"]], **look)
        cosine.plot([x], [found["clip_cosine"]], **look)
    success.set(ylim=(-0.08, 1.08))
    updates.set(yscale="log")
    loss.set(yscale="log")
    loss.axhline(1, color="#808080", lw=0.8, ls=(0, (1, 1)))
    acted.set(ylim=(-0.08, 1.08))
    for ax in column:
        ax.grid(False, axis="x")
    cosine.set_xticks(range(len(kinds)), [k.replace("_", " ") for k in kinds], rotation=35)


def _middle(data: "xarray.Dataset") -> str | None:
    """The setting that the claim is about, if it was measured."""
    names = [str(name) for name in data.setting.values]
    wanted = f"global_norm {THRESHOLDS['global_norm'][1]:g}"
    return wanted if wanted in names else None


def _draw_norms(ax: "Axes", data: "xarray.Dataset") -> None:
    """The mean norm between evaluations, of every seed, with the threshold."""
    shown = [("none", ALONE[1], "-")]
    middle = _middle(data)
    if middle is not None:
        shown.append((middle, LOOKS[1][1], "--"))
        threshold = float(data.threshold.sel(setting=middle))
        ax.axhline(threshold, color="#808080", lw=1.2, ls=(0, (1, 1)), label="its threshold")
    for name, color, line in shown:
        norms = data.grad_norm.sel(setting=name).transpose("update", "seed")
        lines = ax.plot(data["update"], norms, color=color, ls=line, lw=0.9, alpha=0.75)
        lines[0].set_label(name.replace("_", " "))
    ax.set(yscale="log", xlabel="update")


def summary(dataset: "xarray.Dataset") -> str:
    """The table of all settings, and whether clipping bought success."""
    tasks = [str(task) for task in dataset.task.values]
    rows = [
        _row(dataset.sel(task=task, setting=name)) for task in tasks for name in dataset.setting
    ]
    return "\n".join([study.table(rows), "", *(_verdict(dataset.sel(task=t)) for t in tasks)])


def _row(data: "xarray.Dataset") -> dict[str, str]:
    found, seeds = outcome(data), data.sizes["seed"]
    return {
        "task": parse_spec(str(data.task.values))[0],
        "clipping": str(data.setting.values),
        "solved": f"{round(found['solved'] * seeds)} of {seeds}",
        "updates to solve": f"{found['updates']:.0f}" if np.isfinite(found["updates"]) else "-",
        "final loss": f"{found['loss']:.3g}",
        "acted": f"{found['clip_share']:.2f}",
        "cosine": f"{found['clip_cosine']:.3f}",
        "norm ratio": f"{found['clip_ratio']:.2g}",
        "NaN runs": f"{found['dead']:.0f}",
    }


def _verdict(data: "xarray.Dataset") -> str:
    task, middle = str(data.task.values), _middle(data)
    if middle is None:
        return f"{task}: whether clipping buys success was not measured, without global_norm"
    clipped, plain = (final_losses(data.sel(setting=name)) for name in (middle, "none"))
    ratio = statistics.estimate(np.log10(clipped / plain))
    more = statistics.estimate(gain(data, middle))
    return (
        f"{task}: clipping the global norm at {THRESHOLDS['global_norm'][1]:g} learns better than "
        f"none: {study.verdict(ratio.high < 0)} (log10 ratio of final losses {ratio:+.2f}; "
        f"share of seeds solved {more:+.2f})"
    )


EXPERIMENT = study.Experiment(
    name="clipping",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
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
