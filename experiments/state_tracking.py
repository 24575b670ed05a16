"""A linear recurrence tracks a state over any length only with negative eigenvalues.

Each cell is trained to give the parity of the bits read so far, and the value of an arithmetic
expression without brackets, on sequences of up to 40 steps, and is tested at the lengths 40 to 256.
Accuracies are scaled between guessing (0) and perfect (1). For one token the step of a linear
recurrence is a matrix. If all its eigenvalues lie in [0, 1], repeated ones let the state converge,
so that it cannot alternate with the parity. With eigenvalues in [-1, 1] it can flip a sign. The
smallest real part of an eigenvalue of ∂s_t/∂s_{t-1} shows whether a trained cell does.

One rule for all cells: each layer has the same number of hidden units, a layer above the lowest
also reads the input, and the readout is linear. Parity has one layer, arithmetic has two. The
published networks are larger, and have convolutions, norms and residual connections, which are not
part of the cells here; arithmetic mod 3, the default, is easier than mod 5. Each cell has its own
learning rate, chosen from one grid by its loss on new sequences of the training length.

Three kinds of claims: negative eigenvalues improve a cell (the paired difference over seeds); the
cells are ordered as published, wherever two published accuracies differ by more than 0.2; and the
cells that learn parity have negative eigenvalues.

Source: Grazzi et al. 2025, arXiv:2411.12537, Table 3.

    python experiments/state_tracking.py
    python experiments/state_tracking.py --tasks=parity --cell='gru,lstm'

Takes 20 minutes on two idle cores at the defaults, by estimate.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import cells, decisions, fields, runs, trained, tuning
from jax.flatten_util import ravel_pytree

from gradflow import Cell, Params, statistics, study, unroll
from gradflow.cell import whole_carry
from gradflow.spec import check_name, parse_spec
from gradflow.study.figure import Axes, Figure
from gradflow.tasks import Task, resolve_task
from gradflow.train.model import predict


class Problem(NamedTuple):
    """A task, and the network that is trained on it.

    Attributes:
      spec: The task without its number of steps.
      num_layers: Layers of the network.
    """

    spec: str
    num_layers: int

    def task(self, num_steps: int) -> Task:
        """Makes the task for sequences of this length."""
        return resolve_task(self.spec.format(num_steps))


PROBLEMS = {
    "parity": Problem("parity(num_steps={})", 1),
    "arithmetic mod 3": Problem("modular_arithmetic(num_steps={}, modulus=3)", 2),
    "arithmetic mod 5": Problem("modular_arithmetic(num_steps={}, modulus=5)", 2),
}

NEGATIVE = ", negative_eigenvalues=True"

CELLS = (
    "lstm",
    "slstm",
    "mlstm(num_heads=2)",
    *(
        f"{cell}{negative})"
        for cell in ("mamba(state_size=4", "deltanet(num_heads=2", "gated_deltanet(num_heads=2")
        for negative in ("", NEGATIVE)
    ),
)

PUBLISHED = {
    "parity": {
        "mlstm": 0.087,
        "slstm": 1.0,
        "mamba [0, 1]": 0.0,
        "mamba [-1, 1]": 1.0,
        "deltanet [0, 1]": 0.017,
        "deltanet [-1, 1]": 1.0,
    },
    "arithmetic": {
        "mlstm": 0.040,
        "slstm": 0.787,
        "mamba [0, 1]": 0.095,
        "mamba [-1, 1]": 0.241,
        "deltanet [0, 1]": 0.314,
        "deltanet [-1, 1]": 0.971,
    },
}
"""The accuracies of Table 3."""

APART = 0.2
"""Published accuracies that differ by more are compared."""

LEARNT = 0.9
"""The accuracy from which a task counts as learnt."""

BELOW = -0.1
"""An eigenvalue with a smaller real part is negative beyond rounding and small feedback."""

POINTS = 64
"""Points of a curve: each is the mean over neighbouring lengths."""

NUM_JACOBIANS = 8
"""Steps of a sequence, the first ones, at which eigenvalues are computed."""


@dataclass(frozen=True)
class Config(study.Config):
    """Which cells are trained on what."""

    num_seeds: int = fields.num_seeds(3)
    precision: Literal["float64", "float32"] = fields.training_precision()
    cell: str = fields.cell(",".join(CELLS), several=True)
    hidden_size: int = fields.hidden_size(16)
    tasks: tuple[str, ...] = study.field(
        ("parity", "arithmetic mod 3"), help=f"Of {', '.join(PROBLEMS)}."
    )
    num_steps: int = fields.positive(40, help="Steps of a training sequence.")
    test_steps: int = fields.positive(256, help="Steps of a test sequence.")
    learning_rates: tuple[float, ...] = fields.positive(
        (0.01, 0.03), help="Learning rates of Adam, one of which is chosen."
    )
    clip: float = fields.clip(1.0)
    batch_size: int = fields.batch_size(32)
    num_updates: int = fields.num_updates(1500)
    test_size: int = fields.positive(128, help="Test sequences.")


def label(spec: str) -> str:
    """Names a cell with the range of its eigenvalues, where that is an option."""
    name, options = parse_spec(spec)
    if name not in ("mamba", "deltanet", "gated_deltanet"):
        return name
    return f"{name} {'[-1, 1]' if options.get('negative_eigenvalues') else '[0, 1]'}"


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Trains and tests each cell on each task; dimensions task, cell, run, length."""
    for name in config.tasks:
        check_name("task", name, PROBLEMS)
    if config.test_steps < config.num_steps:
        raise ValueError(
            f"Expected --test_steps of at least num_steps={config.num_steps}, got "
            f"{config.test_steps}. Set it to {config.num_steps} or more."
        )
    specs = cells.specs(config.cell)
    names = [label(spec) for spec in specs]
    if len(set(names)) < len(names):
        raise ValueError(f"Expected cells of different names, got {', '.join(names)}. Remove one.")
    work = [(task, spec) for task in config.tasks for spec in specs]
    made = {(task, spec): _network(config, PROBLEMS[task], spec) for task, spec in work}
    parts = [
        trained.unit(once, f"task={task},cell={spec}", _train, config, task, spec, cell)
        for (task, spec), cell in study.progress(made.items(), "trainings")
    ]
    found = xarray.combine_by_coords(parts, data_vars="all", join="exact", combine_attrs="drop")
    assert isinstance(found, xarray.Dataset)
    found = found.sel(task=list(config.tasks), cell=names)
    return found.assign_attrs(num_steps=config.num_steps)


def _network(config: Config, problem: Problem, spec: str) -> Cell:
    size, layers = problem.task(config.num_steps).input_size, problem.num_layers
    if layers > 1:
        spec = f"stack(cells={','.join([spec] * layers)!r}, skip='input')"
    return cells.factory(spec)(size, config.hidden_size)


def _train(config: Config, task: str, spec: str, cell: Cell, folder: Any = None) -> xarray.Dataset:
    short, test = (PROBLEMS[task].task(n) for n in (config.num_steps, config.test_steps))
    what = {"task": task, "cell": spec}
    found = tuning.train_at_best(config, cell, short, name=spec, folder=folder, **what)
    params, at = found.params, ("task", "cell")
    keys = jax.vmap(partial(runs.stream, number=0))(runs.keys(config))
    accuracy = runs.measure(partial(_accuracies, cell, test, config.test_size), params, keys)
    eigenvalues = runs.measure(partial(_step_jacobians, cell, test), params, keys)
    smallest = np.linalg.eigvals(eigenvalues).real.min(axis=(-2, -1))
    return xarray.Dataset(
        {
            "accuracy": ((*at, "run", "length"), accuracy[None, None]),
            "smallest_eigenvalue": ((*at, "run"), smallest[None, None], {"of": "real parts"}),
            "learning_rate": (at, [[found.rate]]),
            "loss": ((*at, "run"), found.losses[None, None], {"units": "nats"}),
        },
        coords={
            "task": [task],
            "cell": [label(spec)],
            "length": ("length", np.arange(1, config.test_steps + 1), {"units": "steps"}),
        },
    )


def _accuracies(cell: Cell, task: Task, size: int, params: Params, key: jax.Array) -> jax.Array:
    """Computes the scaled accuracy at each step of test sequences; NaN at steps without target."""
    batch = task.sample(key, size)
    is_right = jnp.argmax(predict(cell, params, batch.inputs), axis=-1) == batch.targets
    guessed = 1 / task.output_size
    scaled = (jnp.mean(is_right, axis=1) - guessed) / (1 - guessed)
    return jnp.where(batch.weights[:, 0] > 0, scaled, jnp.nan)


def _step_jacobians(cell: Cell, task: Task, params: Params, key: jax.Array) -> jax.Array:
    """Computes ∂s_t/∂s_{t-1} at the first steps of a test sequence."""
    inputs = task.sample(key, 1).inputs[:NUM_JACOBIANS, 0]
    carries = unroll(cell, params["cell"], inputs).carries
    before = jax.tree.map(lambda leaf: leaf[:-1], carries)
    unravel = ravel_pytree(cell.initial_carry())[1]

    def step(s: jax.Array, x: jax.Array) -> jax.Array:
        return whole_carry(cell.step(params["cell"], unravel(s), x)[0])

    return jax.vmap(jax.jacfwd(step))(jax.vmap(whole_carry)(before), inputs)


def tested(dataset: xarray.Dataset) -> xarray.DataArray:
    """The mean accuracy over the tested lengths, those of the training and above, by run."""
    return dataset.accuracy.sel(length=slice(int(dataset.num_steps), None)).mean("length")


def published(task: str, cell: str) -> float | None:
    """The published accuracy of a cell; None where there is none."""
    return PUBLISHED[task.partition(" ")[0]].get(cell)


def figure(dataset: xarray.Dataset) -> Figure:
    """A row for each task: accuracy against length, and the eigenvalues of the trained cells."""
    rows = dataset.sizes["task"]
    fig = study.figure.empty(7.0, 0.9 + 2.3 * rows)
    panels = fig.subplots(rows, 2, squeeze=False, sharex="col")
    for (left, right), task in zip(panels, map(str, dataset.task.values), strict=True):
        data = dataset.sel(task=task)
        for cell in map(str, data.cell.values):
            one, look = data.sel(cell=cell), _style(cell, data.cell.values)
            _draw_lengths(left, one, {**look, "label": cell.replace("_", " ")})
            right.plot(one.smallest_eigenvalue, tested(one), **{**look, "linestyle": "none"})
        left.set(title=task.capitalize(), ylabel="scaled accuracy", ylim=(-0.1, 1.08))
        left.axvline(int(dataset.num_steps), color="#606060", lw=0.6)
        right.set(title=f"{task.capitalize()}, each run", ylabel="scaled accuracy, tested")
        right.axvline(0, color="#606060", lw=0.6)
    panels[-1, 0].set_xlabel("length (steps); line: longest in training")
    panels[-1, 1].set_xlabel(r"smallest Re $\lambda$ of $\partial s_t/\partial s_{t-1}$")
    study.figure.legend_above(fig, panels[0, 0], ncols=3, handlelength=3.2)
    return fig


def _style(cell: str, cells: Iterable[str]) -> dict[str, Any]:
    """One colour for both eigenvalue ranges of a cell, open and dotted where none is negative."""
    names = list(dict.fromkeys(one.partition(" ")[0] for one in cells))
    look = study.figure.series_style(names.index(cell.partition(" ")[0]))
    if cell.endswith(" [0, 1]"):
        return {**look, "linestyle": ":", "markerfacecolor": "white"}
    return {**look, "linestyle": "-"}


def _draw_lengths(ax: Axes, one: xarray.Dataset, look: dict[str, Any]) -> None:
    values = one.accuracy.dropna("length", how="all")
    # Single lengths scatter by chance, as there are few test sequences of each.
    values = values.coarsen(length=max(1, values.sizes["length"] // POINTS), boundary="trim").mean()
    study.figure.band(ax, values.length, values, "run", **look)


def summary(dataset: xarray.Dataset) -> str:
    """A table of all cells on all tasks, beside the published accuracies."""
    return study.table(
        [
            _row(dataset.sel(task=task, cell=cell), str(task), str(cell))
            for task in dataset.task.values
            for cell in dataset.cell.values
        ]
    )


def _row(data: xarray.Dataset, task: str, cell: str) -> dict[str, str]:
    known = published(task, cell)
    return {
        "task": task,
        "cell": cell,
        "rate": f"{float(data.learning_rate):g}",
        "loss": f"{float(data.loss.mean()):.3f}",
        "scaled accuracy": f"{statistics.estimate(tested(data).values):z.3f}",
        "published": "-" if known is None else f"{known:.3f}",
        "smallest Re λ": f"{float(data.smallest_eigenvalue.mean()):z.3f}",
    }


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """Whether negative eigenvalues help, whether the order is as published, and who has them."""
    names = list(map(str, dataset.cell.values))
    tasks = list(map(str, dataset.task.values))
    kinds: list[Callable[[Any, str], list[study.Claim]]] = [_helped, _ordered]
    found = [claim for task in tasks for kind in kinds for claim in kind(dataset, task)]
    return [*found, *([_flipping(dataset, names)] if "parity" in tasks else [])]


def _helped(dataset: xarray.Dataset, task: str) -> list[study.Claim]:
    accuracy, names = tested(dataset.sel(task=task)), dataset.cell.values
    pairs = {str(n).partition(" [-1")[0]: str(n) for n in names if str(n).endswith("[-1, 1]")}
    return [
        decisions.positive(
            decisions.identifier("negative-eigenvalues", task, cell),
            f"Eigenvalues in [-1, 1] instead of [0, 1] let {cell} learn more of {task}.",
            "difference of scaled accuracies",
            (accuracy.sel(cell=name) - accuracy.sel(cell=f"{cell} [0, 1]")).values,
        )
        for cell, name in pairs.items()
        if f"{cell} [0, 1]" in names
    ]


def _ordered(dataset: xarray.Dataset, task: str) -> list[study.Claim]:
    """The claim that the cells are ordered as published, if two of them are that far apart."""
    accuracy = tested(dataset.sel(task=task))
    known = {n: published(task, n) for n in map(str, dataset.cell.values)}
    values = {name: value for name, value in known.items() if value is not None}
    pairs = [(a, b) for a in values for b in values if values[a] - values[b] > APART]
    if not pairs:
        return []
    differences = [accuracy.sel(cell=a).values - accuracy.sel(cell=b).values for a, b in pairs]
    return [
        study.claim(
            decisions.identifier("ordered-as-published", task),
            f"On {task} the cells are ordered as in the published table.",
            decisions.every(decisions.above(statistics.estimate(d)) for d in differences),
            measured={
                f"{name} (published {value:g})": statistics.estimate(accuracy.sel(cell=name).values)
                for name, value in values.items()
            },
            criterion=f"of any two cells with published accuracies more than {APART:g} apart, the "
            "95 % interval of the paired difference has the published sign",
        )
    ]


def _flipping(dataset: xarray.Dataset, names: list[str]) -> study.Claim:
    data = dataset.sel(task="parity")
    accuracy = tested(data)
    learnt = [n for n in names if float(accuracy.sel(cell=n).mean()) > LEARNT]
    smallest = {n: data.smallest_eigenvalue.sel(cell=n).values for n in learnt}
    return study.claim(
        "parity-needs-negative-eigenvalues",
        "Every cell that learns parity has eigenvalues of its step Jacobian with a negative real "
        "part.",
        all((values < BELOW).all() for values in smallest.values()) if learnt else None,
        measured={
            f"smallest real part, {name}": float(values.max()) for name, values in smallest.items()
        },
        criterion=f"where the mean accuracy is above {LEARNT:g}, the smallest real part of an "
        f"eigenvalue is below {BELOW:g} in every run",
    )


EXPERIMENT = study.Experiment(
    name="state_tracking",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    section="training",
    order=6,
    gallery={"state_tracking": study.Picture()},
    quick={
        "cell": "slstm,deltanet,deltanet(negative_eigenvalues=True)",
        "tasks": ("parity",),
        "hidden_size": 4,
        "num_steps": 6,
        "test_steps": 12,
        "learning_rates": (0.03,),
        "num_seeds": 2,
        "batch_size": 8,
        "num_updates": 20,
        "test_size": 16,
    },
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
