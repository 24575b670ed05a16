"""How far the gradients of modern recurrences reach, at initialisation and after training.

For each cell that was published for sequence models since 2021, with the LSTM and the GRU beside
them: how the state falls into blocks that do not influence each other; and the spectral norm
‖∂s_T/∂s_k‖ against the lag T - k, at initialisation and after training on copying and on parity.
s is h, or the part of the carry that the next step reads where it does not read h. The sequences of
the measurement are those of the task, longer than in training. Each cell has its own learning rate,
chosen from one grid by its loss on new sequences; readouts are linear, and there is one layer.

Four claims. The state of every cell without a recurrent matrix falls into blocks. The norm of these
cells stays below 10 at every lag, before and after the training. Training on copying makes their
norm larger at the lag that the task needs, in the mean over cells. Of all cells, those with the
larger norm at that lag after the training have the smaller loss (rank correlation). The last three
are decided by 95 % intervals over seeds.

Source: the paper of each cell, named in its docstring.

    python experiments/modern.py
    python experiments/modern.py --cell='mamba,deltanet(negative_eigenvalues=True)'

Takes 15 minutes on two idle cores at the defaults, by estimate, most of it to compile.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import cells, curves, fields, rates, runs, trained, tuning
from _kit.decisions import below, every, positive

from gradflow import Cell, Params, flow, statistics, study
from gradflow.cell import whole_carry
from gradflow.flow.step_pattern import default_block
from gradflow.flow.structure import structure_of
from gradflow.flow.trace import trace_of
from gradflow.numerics.precision import computing_in, to_precision
from gradflow.spec import check_name, parse_spec
from gradflow.study.figure import Axes, Figure
from gradflow.tasks import Task, resolve_task

CELLS = (
    "lstm",
    "gru",
    "s4d",
    "s5",
    "lru",
    "rg_lru",
    "mingru",
    "minlstm",
    "mamba(state_size=4)",
    *(
        f"{name}(num_heads=2)"
        for name in "mamba2 retnet gla hgrn2 deltanet gated_deltanet rwkv7 ttt_linear mlstm".split()
    ),
    "slstm",
)

WITH_MATRIX = ("lstm", "gru", "slstm")
"""The cells that multiply h by a recurrent matrix; all others are called modern here."""

RECALLED = 2
"""Symbols that the copying task recalls."""

LARGEST = 10.0
"""The norm below which a gradient is claimed to stay."""

STAGES = ("initialised", "trained")

FLOOR = -8
"""The log10 norm at the lower end of the colours."""


class Problem(NamedTuple):
    """A task for sequences of any length.

    Attributes:
      spec: The task, with its length left open.
      shorter: How much shorter this length is than the sequence.
    """

    spec: str
    shorter: int = 0

    def task(self, num_steps: int) -> Task:
        """Makes the task with sequences of this many steps."""
        return resolve_task(self.spec.format(num_steps - self.shorter))


PROBLEMS = {
    "copying": Problem(f"copy(lag={{}}, num_symbols=4, num_recalled={RECALLED})", 2 * RECALLED),
    "parity": Problem("parity(num_steps={})"),
}


@dataclass(frozen=True)
class Config(study.Config):
    """Which cells, of what size, trained on what."""

    num_seeds: int = fields.num_seeds(3)
    precision: Literal["float64", "float32"] = fields.training_precision()
    cell: str = fields.cell(",".join(CELLS), several=True)
    hidden_size: int = fields.hidden_size(16)
    tasks: tuple[str, ...] = study.field(tuple(PROBLEMS), help="Of copying and parity.")
    num_steps: int = fields.positive(24, help="Steps of a training sequence.")
    measured_steps: int = fields.positive(
        100, help="Steps of a measured sequence, and so the longest lag."
    )
    learning_rates: tuple[float, ...] = fields.positive(
        (0.003, 0.01, 0.03), help="Learning rates of Adam, one of which is chosen."
    )
    clip: float = fields.clip(1.0)
    batch_size: int = fields.batch_size(32)
    num_updates: int = fields.num_updates(400)


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Trains and measures each cell on each task; dimensions task, cell, stage, run, lag."""
    for name in config.tasks:
        check_name("task", name, PROBLEMS)
    specs = cells.specs(config.cell)
    made = {(task, spec): _cell(config, task, spec) for task in config.tasks for spec in specs}
    parts = [
        trained.unit(once, f"task={task},cell={spec}", _train, config, task, spec, cell)
        for (task, spec), cell in study.progress(made.items(), "trainings")
    ]
    by_task = [
        xarray.concat(parts[at : at + len(specs)], dim="cell", data_vars="all")
        for at in range(0, len(parts), len(specs))
    ]
    # The structure of a cell is the same on all tasks, and does not get their dimension.
    alike: Any = {"data_vars": "minimal", "coords": "minimal", "compat": "equals", "join": "exact"}
    return xarray.concat(by_task, dim="task", **alike).assign_attrs(
        needed_lag=config.num_steps - RECALLED
    )


def _cell(config: Config, task: str, spec: str) -> Cell:
    size = PROBLEMS[task].task(config.num_steps).input_size
    return cells.factory(spec)(size, config.hidden_size)


def _train(config: Config, task: str, spec: str, cell: Cell, folder: Any = None) -> xarray.Dataset:
    short, long = (PROBLEMS[task].task(n) for n in (config.num_steps, config.measured_steps))
    what = {"task": task, "cell": spec}
    found = tuning.train_at_best(config, cell, short, name=spec, folder=folder, **what)
    keys = jax.vmap(partial(runs.stream, number=0))(runs.keys(config))
    stages = jax.tree.map(lambda *ends: np.concatenate(ends), found.first, found.params["cell"])
    block, structure, norms = _measured(cell, long, stages, keys)
    at = ("task", "cell")
    return xarray.Dataset(
        {
            "log_norm": (
                (*at, "stage", "run", "lag"),
                norms.reshape(1, 1, len(STAGES), config.num_seeds, -1),
                {"units": "nats", "norm": "spectral"},
            ),
            "loss": ((*at, "run"), found.losses[None, None], {"units": "nats"}),
            "learning_rate": (at, [[found.rate]]),
            "num_blocks": ("cell", [structure[0]]),
            "block_size": ("cell", [structure[1]]),
            "block": ("cell", [block]),
        },
        coords={
            "task": [task],
            "cell": [spec],
            "stage": list(STAGES),
            "lag": curves.coordinates(config.measured_steps)["lag"],
        },
    )


def _measured(
    cell: Cell, task: Task, stages: Params, keys: jax.Array
) -> tuple[str, tuple[int, int], np.ndarray]:
    """The block that is measured, number and size of the blocks of the state, and log norms.

    Args:
      cell: The cell.
      task: Where the input sequences are from, one for each run.
      stages: The parameters of the runs in one stage after the other.
      keys: One for each run.
    """
    with computing_in("float64"):
        inputs = jax.vmap(lambda key: task.sample(key, 1).inputs[:, 0])(keys)
        stages = to_precision(stages, "float64")
        first = jax.tree.map(lambda leaf: leaf[0], stages)
        block = default_block(cell, first, inputs[0])
        found = structure_of(trace_of(cell, first, inputs[0, :2]), None)
        log_norms = partial(flow.log_norms, cell, source=block, target=block)
        norms = runs.measure(log_norms, stages, jnp.concatenate([inputs] * len(STAGES)))
    if found is None:
        return block, (1, whole_carry(cell.initial_carry()).size), norms
    shapes = [group.entries.shape for group in found.groups]
    return block, (sum(n * m for n, m, _ in shapes), max(size for *_, size in shapes)), norms


def modern(dataset: xarray.Dataset) -> list[str]:
    """Names the cells without a recurrent matrix."""
    return [str(c) for c in dataset.cell.values if _name(c) not in WITH_MATRIX]


def _name(spec: Any) -> str:
    return parse_spec(str(spec))[0]


def figure(dataset: xarray.Dataset) -> Figure:
    """A map for each task and stage: the norm of each cell against the lag."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    rows = dataset.sizes["task"]
    fig = study.figure.empty(7.0, 0.6 + rows * (0.9 + 0.13 * dataset.sizes["cell"]))
    panels = fig.subplots(rows, 2, squeeze=False, sharex=True, sharey=True)
    norm = Normalize(FLOOR, 1)
    for row, task in zip(panels, map(str, dataset.task.values), strict=True):
        for ax, stage in zip(row, STAGES, strict=True):
            _draw_map(ax, dataset.log_norm.sel(task=task, stage=stage), norm)
            ax.set_title(f"{stage}, inputs of {task}" if stage == STAGES[0] else f"after {task}")
            if task == "copying":
                ax.axvline(int(dataset.needed_lag), color="white", lw=0.8, ls=":")
    for ax in panels[-1]:
        ax.set_xlabel(curves.LAG)
    label = r"$\log_{10}\,\|\partial s_T/\partial s_k\|$, median; grey: exactly 0"
    fig.colorbar(ScalarMappable(norm), ax=panels, label=label, shrink=0.6, extend="both")
    return fig


def _draw_map(ax: Axes, norms: xarray.DataArray, norm: Any) -> None:
    log10 = (norms / curves.NATS).median("run").values
    number, lags = log10.shape
    look: Any = {"aspect": "auto", "extent": (-0.5, lags - 0.5, number - 0.5, -0.5)}
    ax.set_facecolor(curves.CUT)
    ax.imshow(np.where(np.isfinite(log10), log10, np.nan), norm=norm, interpolation="none", **look)
    ax.set_yticks(range(number), [_name(spec) for spec in norms.cell.values], fontsize=7)
    ax.grid(False)


def summary(dataset: xarray.Dataset) -> str:
    """The structure of each cell, and its loss, factor per step and horizon on each task."""
    return study.table(list(_rows(dataset)))


def _rows(dataset: xarray.Dataset) -> Iterator[dict[str, str]]:
    longest = int(dataset.lag[-1])
    for task in map(str, dataset.task.values):
        for cell in dataset.cell.values:
            data = dataset.sel(task=task, cell=cell)
            found = {s: flow.summary(data.log_norm.sel(stage=s).values) for s in STAGES}
            yield {
                "task": task,
                "cell": _name(cell),
                "s": str(data.block.values),
                "blocks": f"{int(data.num_blocks)} × {int(data.block_size)}",
                "loss": f"{float(data.loss.mean()):.3f}",
                **{f"factor, {s}": f"{float(np.exp(one.rate)):.3f}" for s, one in found.items()},
                **{
                    f"horizon, {s}": rates.lag_text(one.horizon, longest)
                    for s, one in found.items()
                },
            }


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """Structure, boundedness, and what training on copying changes."""
    names = modern(dataset)
    found = [_blocks(dataset, names), _bounded(dataset, names)] if names else []
    if "copying" not in dataset.task.values:
        return found
    copying = dataset.sel(task="copying")
    at_lag = copying.log_norm.sel(lag=int(dataset.needed_lag)) / curves.NATS
    if names:
        found.append(_longer(at_lag.sel(cell=names), int(dataset.needed_lag)))
    return [*found, *([_learns(at_lag, copying)] if dataset.sizes["cell"] > 2 else [])]


def _blocks(dataset: xarray.Dataset, names: list[str]) -> study.Claim:
    numbers = {_name(n): int(dataset.num_blocks.sel(cell=n)) for n in names}
    return study.claim(
        "falls-into-blocks",
        "The state of every cell without a recurrent matrix falls into blocks that do not "
        "influence each other.",
        min(numbers.values()) > 1,
        measured={f"blocks of {name}": number for name, number in numbers.items()},
        criterion="each has more than one block",
        exact=True,
    )


def _bounded(dataset: xarray.Dataset, names: list[str]) -> study.Claim:
    largest = dataset.log_norm.sel(cell=names).max("lag") / curves.NATS
    found = {
        (name, stage): statistics.estimate(largest.sel(cell=name, stage=stage).max("task").values)
        for name in names
        for stage in STAGES
    }
    worst = {s: max((found[n, s].value, n) for n in names)[1] for s in STAGES}
    return study.claim(
        "no-explosion",
        f"The norm of no cell without a recurrent matrix exceeds {LARGEST:g}, before and after the "
        "training.",
        every(below(one, np.log10(LARGEST)) for one in found.values()),
        measured={
            f"largest log10 norm, {stage}, {_name(name)}": found[name, stage]
            for stage, name in worst.items()
        },
        criterion=f"the 95 % interval of the largest log10 norm over all lags lies below "
        f"{np.log10(LARGEST):g} for every cell",
    )


def _longer(at_lag: xarray.DataArray, lag: int) -> study.Claim:
    change = at_lag.sel(stage="trained") - at_lag.sel(stage="initialised")
    change = change.where(np.isfinite(change))
    return positive(
        "copying-lengthens",
        "Training on copying makes the gradient of the cells without a recurrent matrix larger at "
        f"lag {lag}.",
        "change of log10 norm, mean over cells",
        change.mean("cell").values,
    )


def _learns(at_lag: xarray.DataArray, copying: xarray.Dataset) -> study.Claim:
    from scipy.stats import rankdata

    norms, losses = at_lag.sel(stage="trained").transpose("run", "cell"), copying.loss
    pairs = zip(norms.values, -losses.transpose("run", "cell").values, strict=True)
    found = [np.nan_to_num(np.corrcoef(*map(rankdata, pair))[0, 1]) for pair in pairs]
    return positive(
        "reach-learns",
        f"Of trained cells, those with the larger norm at lag {int(at_lag.lag)} have the smaller "
        "loss on copying.",
        "rank correlation over cells of the norm and the negative loss",
        found,
    )


EXPERIMENT = study.Experiment(
    name="modern",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    section="flow",
    order=5,
    gallery={"modern": study.Picture()},
    quick={
        "cell": "gru,mingru,deltanet(num_heads=2)",
        "hidden_size": 4,
        "num_steps": 8,
        "measured_steps": 12,
        "learning_rates": (0.01,),
        "num_seeds": 2,
        "batch_size": 4,
        "num_updates": 10,
    },
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
