"""Gradient flossing lets an RNN learn tasks with delays that it cannot learn without.

A random tanh RNN with one binary input channel, ::

    h_t = tanh(J h_{t-1} + b + w s_t)      J ~ N(0, 1/N), b ~ 0.1 U(0, 1), w ~ N(0, 1), s ∈ {0, 1}

must output at every step the bit of d steps before (*copy*), or the parity of the bits of d and 2d
steps before (*xor*). It is trained by Adam at 0.001 with the gradient clipped at norm 0.03.
Flossing is Adam on the mean of λ_i² over the first k Lyapunov exponents. The network is never
flossed (none), flossed before training (before), or before training and again at updates 100 and
200 (during). The readout is never flossed. The three methods have the same initialisations and the
same batches. They are compared by their accuracy, the fraction of correct bits in fresh sequences;
chance is one half.

Source: Engelken 2023, arXiv:2312.17306, and its code (RainerEngelken/GradientFlossing), with 80
units, 75 exponents, T = 300, 500 epochs of flossing and 3,001 updates.

    python experiments/papers/engelken2023_tasks.py

Takes about three minutes on one core, with smaller networks, shorter sequences and fewer epochs
than the paper. --full has the paper's sizes and takes hours. A killed run resumes from its last
evaluation.
"""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _flossing import LEARNING_RATE, before, floss, keys_of, net
from _kit import fields
from _kit.trained import begin, setup, unit
from _paper import Paper

from gradflow import study
from gradflow.study import Claim, derived, statement
from gradflow.study.figure import Figure
from gradflow.tasks import Batch, Task, resolve_task
from gradflow.train import Runs, Schedule, Training, fit, fresh_sequences

LEARNT, GUESSED = 0.9, 0.6
"""The accuracies from which a task counts as learnt, and below which as guessed."""

METHODS = ("none", "before", "during")
PROBLEMS = {"copy": "delayed_copy(delay={})", "xor": "delayed_xor(delay={})"}
STYLES = {
    "none": {**study.figure.series_style(5), "label": "none"},
    "before": {**study.figure.series_style(2), "label": "before"},
    "during": {**study.figure.series_style(0), "label": "before and during"},
}


@dataclass(frozen=True)
class Config(study.Config):
    """The tasks, the network, the flossing, and the training."""

    copy_delays: tuple[int, ...] = fields.positive((10, 20, 30), help="Delays d of copy, in steps.")
    xor_delays: tuple[int, ...] = fields.positive((5, 10, 15), help="Delays d of xor, in steps.")
    units: int = fields.positive(32, help="Units N.")
    num_steps: int = fields.positive(100, help="Time steps T of a sequence.")
    num_exponents: int = fields.positive(24, help="Number k of exponents that are flossed.")
    floss_steps: int = fields.positive(55, help="Time steps of an epoch of flossing.")
    floss_epochs: int = fields.positive(100, help="Epochs of one flossing.")
    floss_at: tuple[int, ...] = study.field((100, 200), help="Updates at which to floss again.")
    num_updates: int = fields.num_updates(1200)
    eval_every: int = fields.eval_every(50)
    eval_size: int = fields.eval_size(64)
    num_seeds: int = fields.num_seeds(5)
    precision: Literal["float64", "float32"] = study.field("float32", help="Precision of the run.")


def bits_right(predictions: jax.Array, batch: Batch) -> jax.Array:
    """Computes the accuracy of each sequence: the correct fraction of the bits that count."""
    right = (jnp.argmax(predictions, axis=-1) == batch.targets) * batch.weights
    return jnp.sum(right, axis=0) / jnp.sum(batch.weights, axis=0)


def task_of(problem: str, delay: int, num_steps: int) -> Task:
    """The task, with the accuracy of bits in place of that of whole sequences."""
    spec = PROBLEMS[problem].format(delay).replace(")", f", num_steps={num_steps})")
    return resolve_task(spec)._replace(correct=bits_right, success=LEARNT)


def start(config: Config, training: Training, nets: xarray.Dataset) -> Runs:
    """Begins the runs in the order of methods, then seeds; the methods share keys and readouts."""
    runs = begin(training, keys_of(config, 0), [(LEARNING_RATE,)] * len(METHODS))
    cells = {name: jnp.asarray(nets[name].values) for name in runs.params["cell"]}
    rows = jax.tree.map(lambda leaf: jnp.concatenate([leaf[0], leaf[1], leaf[1]]), cells)
    return runs._replace(params={**runs.params, "cell": rows})


def again(config: Config, runs: Runs, stage: int) -> Runs:
    """Flosses the cells of the method "during" once more."""
    own = slice(METHODS.index("during") * config.num_seeds, None)
    cells = runs.params["cell"]
    flossed, _ = floss(config, jax.tree.map(lambda leaf: leaf[own], cells), keys_of(config, stage))
    cells = jax.tree.map(lambda leaf, new: leaf.at[own].set(new), cells, flossed)
    return runs._replace(params={**runs.params, "cell": cells})


def train(
    config: Config, problem: str, delay: int, nets: xarray.Dataset, folder: Path | None
) -> xarray.Dataset:
    """Trains all networks by the three methods on one task; dimensions update, flossed, seed."""
    cell, task = net(config.units), task_of(problem, delay, config.num_steps)
    clipping = "global_norm(threshold=0.03)"
    training = setup(config, cell, task, clipping=clipping, batch_size=16)
    runs, parts = start(config, training, nets), []
    for stage, (first, end) in enumerate(pairwise((0, *config.floss_at, config.num_updates))):
        if stage:
            runs = again(config, runs, stage + 1)
        schedule = Schedule(end - first, config.eval_every, early_stop=False)
        identity = {"problem": problem, "delay": delay, "from": first, "to": end}
        kept = folder and folder / f"from-{first}"
        steps = fit(fresh_sequences(training, runs), schedule, folder=kept, identity=identity)
        *_, progress = study.progress(steps, "evaluations")
        runs = progress.state
        parts.append(progress.metrics["accuracy"][bool(stage) :])
    accuracy = np.concatenate(parts).reshape(-1, len(METHODS), config.num_seeds)
    updates = np.arange(len(accuracy)) * config.eval_every
    return xarray.Dataset(
        {"accuracy": (("update", "flossed", "seed"), accuracy)}, coords={"update": updates}
    )


def parities(config: Config) -> float:
    """Computes the fraction of all targets that are the parity of earlier inputs, in NumPy."""
    correct = []
    for problem, delay in points(config):
        batch = task_of(problem, delay, config.num_steps).sample(keys_of(config, 0)[0], 16)
        read = np.asarray(batch.inputs)[..., 0].astype(int)
        lags = [delay] if problem == "copy" else [delay, 2 * delay]
        for t in range(lags[-1], config.num_steps):
            parity = np.bitwise_xor.reduce([read[t - lag] for lag in lags])
            counts = np.asarray(batch.weights[t]) == 1
            correct.append(np.mean((parity == batch.targets[t]) & counts))
    return float(np.mean(correct))


def points(config: Config) -> list[tuple[str, int]]:
    """Lists each task with each of its delays."""
    delays = {"copy": config.copy_delays, "xor": config.xor_delays}
    return [(problem, delay) for problem in PROBLEMS for delay in delays[problem]]


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Trains on every task and delay; dimensions point, flossed, seed, update, epoch."""
    nets = once("before", partial(before, config))
    chosen = points(config)
    parts = [unit(once, f"{name}-{d}", train, config, name, d, nets) for name, d in chosen]
    found = xarray.concat(parts, dim="point")
    names = {"flossed": list(METHODS), "problem": ("point", [problem for problem, _ in chosen])}
    delays = ("point", [delay for _, delay in chosen], {"units": "steps"})
    return found.assign_coords({**names, "delay": delays}).assign(
        size=nets["size"], parities=((), parities(config))
    )


def ends(dataset: xarray.Dataset, problem: str) -> xarray.DataArray:
    """Computes the median accuracy over seeds at the last update; (delay, flossed)."""
    chosen = dataset.accuracy.isel(point=dataset.problem.values == problem, update=-1)
    return chosen.median("seed").swap_dims(point="delay").transpose("delay", "flossed")


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The targets, the exponents, and the tasks that were run."""
    first, last = dataset["size"].values[:, 0], dataset["size"].values[:, -1]
    found = [
        derived(
            "tasks-parity",
            "The targets are the parities of the delayed bits (fraction of them).",
            1,
            float(dataset.parities),
            source="the authors' definition of the tasks, in NumPy",
        ),
        statement(
            "tasks-size",
            "Flossing before training brings the exponents of every network nearer to zero.",
            "exponents go to zero",
            {"median √(mean λ_i²) before and after": [np.median(first), np.median(last)]},
            source="the figure of exponents against epoch; the bound is ours",
            criterion="√(mean λ_i²) falls by a third or more in every network",
            holds=np.all(last <= 2 / 3 * first),
        ),
    ]
    for problem in PROBLEMS:
        if problem in dataset.problem.values:
            found += about(dataset, problem)
    return found


def about(dataset: xarray.Dataset, problem: str) -> list[Claim]:
    """The effect of flossing on one task."""
    accuracy = ends(dataset, problem)
    none, first, both = accuracy.values.T
    bridged = (np.maximum(first, both) >= LEARNT) & (none < GUESSED)
    return [
        statement(
            f"tasks-{problem}-horizon",
            f"Delayed {problem}: flossed RNNs learn a delay at which the others stay near chance.",
            "a longer time horizon is bridged",
            {
                f"accuracy at d = {d} (none / before / during)": row
                for d, row in zip(accuracy.delay.values, accuracy.values, strict=True)
            },
            source="abstract (read through a second source); the bounds are ours",
            criterion="at one of the delays the median accuracy is at least "
            f"{LEARNT:g} with flossing and below {GUESSED:g} without",
            holds=bridged.any(),
        ),
        statement(
            f"tasks-{problem}-during",
            f"Delayed {problem}: flossing again during training improves accuracy further.",
            "none < before < before and during",
            {"mean accuracy (none / before / during)": accuracy.mean("delay").values},
            source="the figure of test accuracy, whose panels were not read again",
            criterion="the mean over delays of the median accuracy is in this order",
            holds=np.all(np.diff(accuracy.mean("delay").values) > 0),
        ),
    ]


def figure(dataset: xarray.Dataset) -> Figure:
    """Accuracy of each task against the update, at one delay, and at the end against the delay."""
    problems = [name for name in PROBLEMS if name in dataset.problem.values]
    fig = study.figure.empty(7.4, 0.5 + 2.5 * len(problems))
    rows = fig.subplots(len(problems), 2, squeeze=False, sharey=True)
    for (left, right), problem in zip(rows, problems, strict=True):
        data = dataset.isel(point=dataset.problem.values == problem)
        data = data.swap_dims(point="delay")
        delay = shown_delay(dataset, problem)
        for flossed, style in STYLES.items():
            course = data.accuracy.sel(flossed=flossed, delay=delay)
            study.figure.band(left, course["update"], course, "seed", **style)
            end = data.accuracy.sel(flossed=flossed).isel(update=-1)
            study.figure.band(right, end.delay, end, "seed", **style)
        left.set(title=f"delayed {problem}, d = {delay}", xlabel="update", ylabel="accuracy")
        right.set(title=f"delayed {problem}, at the end", xlabel="delay d (steps)")
        right.set_xticks(data.delay.values)
        for ax in (left, right):
            ax.axhline(0.5, color="0.5", lw=0.8, ls=(0, (1, 1)), zorder=0)
    rows[0][0].set_ylim(0.45, 1.02)
    rows[0][1].legend(title="flossing", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


def shown_delay(dataset: xarray.Dataset, problem: str) -> int:
    """Finds the delay at which flossing gains the most accuracy."""
    accuracy = ends(dataset, problem)
    gain = accuracy.max("flossed") - accuracy.sel(flossed="none")
    return int(accuracy.delay.values[np.argmax(gain.values)])


EXPERIMENT = Paper(
    name="papers/engelken2023_tasks",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={
        "copy_delays": (),
        "xor_delays": (2,),
        "units": 8,
        "num_steps": 12,
        "num_exponents": 4,
        "floss_steps": 20,
        "floss_epochs": 10,
        "floss_at": (5, 10),
        "num_updates": 20,
        "eval_every": 5,
        "eval_size": 16,
        "num_seeds": 2,
    },
    full={
        "copy_delays": (10, 20, 40),
        "xor_delays": (5, 10, 20),
        "units": 80,
        "num_steps": 300,
        "num_exponents": 75,
        "floss_epochs": 500,
        "num_updates": 3000,
    },
    doc=__doc__,
    citation="Engelken 2023, Gradient flossing: improving gradient descent through dynamic control "
    "of Jacobians, arXiv:2312.17306",
    figures={"tasks": figure},
    traps=(
        "The loss here is a softmax over two classes. The code has the binary cross-entropy of one "
        "logit, which is the same function of the difference of the two.",
        "The readout here is of h = tanh(x). The network is the code's x ← J tanh(x) + b + w s "
        "written for h, with the same exponents.",
        "The network without flossing is trained from the same weights on the same batches. The "
        "epochs of flossing are not counted as updates and take additional time.",
        "The panels of the paper's figures were not read. The figure here follows the text.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
