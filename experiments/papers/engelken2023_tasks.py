"""Flossing before and during training lets a net copy over delays that it otherwise cannot.

A random tanh net, driven by one binary channel, ::

    h_t = tanh(J h_{t-1} + b + w s_t)      J ~ N(0, 1/N), b ~ 0.1 U(0, 1), w ~ N(0, 1), s ∈ {0, 1}

has to say at every step the bit of d steps before (*copy*), or the parity of those of d and 2d
steps before (*xor*). It learns by Adam at 0.001 with the gradient clipped at norm 0.03, from as it
is drawn (none), after epochs of flossing, which is Adam on mean λ_i² of its first k Lyapunov
exponents (before), or after that and again at updates 100 and 200 (during). The readout is never
flossed. Every net is started, and every batch drawn, alike in the three. What is compared is the
share of right bits in fresh sequences, of which to guess has a half.

Source: Engelken 2023, arXiv:2312.17306, and its code (RainerEngelken/GradientFlossing), with 80
units, 75 exponents, T = 300, 500 epochs of flossing and 3,001 updates.

    python experiments/papers/engelken2023_tasks.py

Takes about three minutes on one core, with smaller nets, shorter sequences and fewer epochs than
the paper's, which --full has, for hours. A killed run goes on from its last evaluation.
"""

import contextlib
import functools
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _claims import OWN, Claim, Paper, numbers, statement, verdicts

from gradflow import Cell, study
from gradflow.cells import resolve
from gradflow.tasks import Batch, Task, resolve_task
from gradflow.train import (
    Keeper,
    Progress,
    Runs,
    Schedule,
    Training,
    begin,
    fit,
    resolve_clipping,
    resolve_optimiser,
    resolve_regulariser,
)

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

    from gradflow import Params

BURN_IN = 15
LEARNING_RATE = 1e-3
LEARNT, GUESSED = 0.9, 0.6
METHODS = ("none", "before", "during")
PROBLEMS = {"copy": "delayed_copy(delay={})", "xor": "delayed_xor(delay={})"}
LOOKS = {
    "none": {"color": "#000000", "linestyle": ":", "marker": "o", "label": "none"},
    "before": {"color": "#E69F00", "linestyle": "--", "marker": "s", "label": "before"},
    "during": {"color": "#0072B2", "linestyle": "-", "marker": "^", "label": "before and during"},
}


@dataclass(frozen=True)
class Config(study.Config):
    """The tasks, the net, how it is flossed, and how long it is trained."""

    copy_delays: tuple[int, ...] = study.field(
        (10, 20, 30), help="Delays d of copy, in steps.", positive=True
    )
    xor_delays: tuple[int, ...] = study.field(
        (5, 10, 15), help="Delays d of xor, in steps.", positive=True
    )
    units: int = study.field(32, help="Units N.", positive=True)
    num_steps: int = study.field(100, help="Steps T of a sequence.", positive=True)
    num_exponents: int = study.field(24, help="k, the exponents that are flossed.", positive=True)
    floss_steps: int = study.field(55, help="Steps of an epoch of flossing.", positive=True)
    floss_epochs: int = study.field(100, help="Epochs of each flossing.", positive=True)
    floss_at: tuple[int, ...] = study.field((100, 200), help="Updates before which to floss again.")
    num_updates: int = study.field(1200, help="Updates of a run.", positive=True)
    eval_every: int = study.field(50, help="Updates between two evaluations.", positive=True)
    eval_size: int = study.field(64, help="Fresh sequences an evaluation.", positive=True)
    num_seeds: int = study.field(5, help="Nets, side by side.", positive=True)
    precision: Literal["float64", "float32"] = study.field("float32", help="Precision of the run.")


@functools.cache
def net(units: int) -> Cell:
    """The net as it is drawn, with gain 1; one value for each size, so that it compiles once."""
    spec = f"rnn(recurrent_init='normal(std={units**-0.5})', input_init='normal(std=1.0)')"
    cell = resolve(spec)(1, units)

    def init(key: jax.Array) -> "Params":
        params, k_bias = cell.init(key), jax.random.fold_in(key, 1)
        return {**params, "b": 0.1 * jax.random.uniform(k_bias, (units,))}

    return cell._replace(init=init)


def bits_right(predictions: jax.Array, batch: Batch) -> jax.Array:
    """Of each sequence, the share of its bits that are right, among the steps that count."""
    right = (jnp.argmax(predictions, axis=-1) == batch.targets) * batch.weights
    return jnp.sum(right, axis=0) / jnp.sum(batch.weights, axis=0)


def task_of(problem: str, delay: int, num_steps: int) -> Task:
    """A task that counts bits, and not sequences without any wrong one."""
    spec = PROBLEMS[problem].format(delay).replace(")", f", num_steps={num_steps})")
    return resolve_task(spec)._replace(correct=bits_right, success=LEARNT)


@partial(jax.jit, static_argnums=0)
def floss(config: Config, cells: "Params", keys: jax.Array) -> "tuple[Params, jax.Array]":
    """Flosses nets side by side: their parameters, and √(mean λ_i²) at every epoch.

    Args:
      config: How.
      cells: Parameters of the nets, each leaf with the nets in front.
      keys: One a net, for what drives it.
    """
    cell, adam = net(config.units), optax.adam(LEARNING_RATE)
    options = f"num_exponents={config.num_exponents}, burn_in={BURN_IN}"
    regulariser = resolve_regulariser(f"flossing({options})")

    def epoch(state: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], jax.Array]:
        params, memory = state
        inputs = jax.random.bernoulli(key, 0.5, (config.floss_steps, 1, 1)).astype(float)
        loss = partial(regulariser, lambda outputs: jnp.zeros(()), cell)
        value, slope = jax.value_and_grad(loss)(params, inputs)
        change, memory = adam.update(slope, memory)
        return (optax.apply_updates(params, change), memory), jnp.sqrt(value)

    def one(params: "Params", key: jax.Array) -> "tuple[Params, jax.Array]":
        each = jax.random.split(key, config.floss_epochs)
        (params, _), sizes = jax.lax.scan(epoch, (params, adam.init(params)), each)
        return params, sizes

    return jax.vmap(one)(cells, keys)


def keys_of(config: Config, stage: int) -> jax.Array:
    """A key for each net: of its parameters and batches (0), or of what a flossing drives it by."""
    key = jax.random.fold_in(jax.random.key(config.seed), stage)
    return jax.random.split(key, config.num_seeds)


def before(config: Config) -> "xarray.Dataset":
    """All nets as they are drawn and as they are after the first flossing."""
    import xarray

    drawn = jax.vmap(net(config.units).init)(keys_of(config, 0))
    done, sizes = floss(config, drawn, keys_of(config, 1))
    dims = {"W_h": ("unit", "from"), "W_x": ("unit", "input"), "b": ("unit",)}
    both = jax.tree.map(lambda *leaves: np.stack(leaves), drawn, done)
    found = {name: (("when", "seed", *dims[name]), leaf) for name, leaf in both.items()}
    return xarray.Dataset({**found, "size": (("seed", "epoch"), np.asarray(sizes))})


def start(config: Config, training: Training, nets: "xarray.Dataset") -> Runs:
    """The runs, method after method and net after net; a net's three start and draw alike."""
    keys = jnp.tile(keys_of(config, 0), len(METHODS))
    runs = begin(training, keys, jnp.full(len(keys), LEARNING_RATE))
    cells = {name: jnp.asarray(nets[name].values) for name in runs.params["cell"]}
    rows = jax.tree.map(lambda leaf: jnp.concatenate([leaf[0], leaf[1], leaf[1]]), cells)
    return runs._replace(params={**runs.params, "cell": rows})


def again(config: Config, runs: Runs, stage: int) -> Runs:
    """The runs after the cells of those that are flossed in training have been."""
    own = slice(METHODS.index("during") * config.num_seeds, None)
    cells = runs.params["cell"]
    done, _ = floss(config, jax.tree.map(lambda leaf: leaf[own], cells), keys_of(config, stage))
    cells = jax.tree.map(lambda leaf, new: leaf.at[own].set(new), cells, done)
    return runs._replace(params={**runs.params, "cell": cells})


def stage_of(training: Training, runs: Runs, schedule: Schedule, keeper: Keeper | None) -> Progress:
    """The end of one stretch of training, between two flossings."""
    *_, last = study.progress(fit(training, runs, schedule, keeper=keeper), "looks")
    return last


def train(
    config: Config, problem: str, delay: int, nets: "xarray.Dataset", folder: Path | None
) -> "xarray.Dataset":
    """All nets of the three methods at one task and delay: the share of right bits by update."""
    import xarray

    training = Training(
        net(config.units),
        task_of(problem, delay, config.num_steps),
        resolve_optimiser("adam"),
        clipping=resolve_clipping("global_norm(threshold=0.03)"),
        batch_size=16,
        eval_size=config.eval_size,
    )
    runs, parts = start(config, training, nets), []
    for stage, (first, end) in enumerate(pairwise((0, *config.floss_at, config.num_updates))):
        if stage:
            runs = again(config, runs, stage + 1)
        schedule = Schedule(end - first, config.eval_every, early_stop=False)
        identity = {"problem": problem, "delay": delay, "from": first, "to": end}
        kept = folder and Keeper(folder / f"from-{first}", identity)
        with kept or contextlib.nullcontext() as keeper:
            progress = stage_of(training, runs, schedule, keeper)
        runs = progress.runs
        parts.append(progress.metrics["share_correct"][bool(stage) :])
    share = np.concatenate(parts).reshape(-1, len(METHODS), config.num_seeds)
    updates = np.arange(len(share)) * config.eval_every
    return xarray.Dataset(
        {"share": (("update", "flossed", "seed"), share)}, coords={"update": updates}
    )


def parities(config: Config) -> float:
    """The share of all tasks' bits that are the parity, in NumPy, of what was read before."""
    right = []
    for problem, delay in points(config):
        batch = task_of(problem, delay, config.num_steps).sample(keys_of(config, 0)[0], 16)
        read = np.asarray(batch.inputs)[..., 0].astype(int)
        lags = [delay] if problem == "copy" else [delay, 2 * delay]
        for t in range(lags[-1], config.num_steps):
            said = np.bitwise_xor.reduce([read[t - lag] for lag in lags])
            right.append(np.mean((said == batch.targets[t]) & (np.asarray(batch.weights[t]) == 1)))
    return float(np.mean(right))


def points(config: Config) -> list[tuple[str, int]]:
    """Each task with each of its delays."""
    delays = {"copy": config.copy_delays, "xor": config.xor_delays}
    return [(problem, delay) for problem in PROBLEMS for delay in delays[problem]]


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Every task and delay; dimensions point, flossed, seed, update, epoch."""
    import xarray

    nets = once("before", partial(before, config))

    def unit(problem: str, delay: int) -> "xarray.Dataset":
        name = f"{problem}-{delay}"
        return once(name, lambda: train(config, problem, delay, nets, once.folder(name)))

    chosen = points(config)
    found = xarray.concat([unit(*point) for point in chosen], dim="point")
    names = {"flossed": list(METHODS), "problem": ("point", [problem for problem, _ in chosen])}
    delays = ("point", [delay for _, delay in chosen], {"units": "steps"})
    return found.assign_coords({**names, "delay": delays}).assign(
        size=nets["size"], parities=((), parities(config))
    )


def ends(dataset: "xarray.Dataset", problem: str) -> "xarray.DataArray":
    """The median share of right bits over nets at the last update: delay, flossed."""
    chosen = dataset.share.isel(point=dataset.problem.values == problem, update=-1)
    return chosen.median("seed").swap_dims(point="delay").transpose("delay", "flossed")


def claims(dataset: "xarray.Dataset") -> list[Claim]:
    """Each claim about the tasks that were run, beside what was measured."""
    first, last = dataset["size"].values[:, 0], dataset["size"].values[:, -1]
    found = [
        numbers(
            "tasks-parity",
            "share of the bits to be said that are the parity of the delayed bits",
            1,
            float(dataset.parities),
            source=OWN + "the authors' definition of the tasks, in NumPy",
            exact=True,
        ),
        statement(
            "tasks-size",
            "flossing before training brings the exponents of every net nearer zero",
            "exponents go to zero",
            f"√(mean λ_i²) from {np.median(first):.2f} to {np.median(last):.2f}, median over nets",
            source="the figure of exponents against epoch; the bound is our own",
            condition="√(mean λ_i²) falls by a third or more in every net",
            holds=np.all(last <= 2 / 3 * first),
        ),
    ]
    for problem in PROBLEMS:
        if problem in dataset.problem.values:
            found += about(dataset, problem)
    return found


def about(dataset: "xarray.Dataset", problem: str) -> list[Claim]:
    """What flossing does for one task."""
    share = ends(dataset, problem)
    none, first, both = share.values.T
    apart = (np.maximum(first, both) >= LEARNT) & (none < GUESSED)
    rows = (f"d = {d}: {a:.2f} / {b:.2f} / {c:.2f}" for d, (a, b, c) in zip(
        share.delay.values, share.values, strict=True))  # fmt: skip
    shown = "; ".join(rows) + " (none / before / during)"
    return [
        statement(
            f"tasks-{problem}-horizon",
            f"{problem}: flossed nets learn over a delay at which the others guess",
            "a longer time horizon is bridged",
            shown,
            source="abstract (read through a second source); the bounds are our own",
            condition="at one of the delays the median share of right bits is at least "
            f"{LEARNT:g} with flossing and below {GUESSED:g} without",
            holds=apart.any(),
        ),
        statement(
            f"tasks-{problem}-during",
            f"{problem}: flossing during training as well helps more",
            "none < before < before and during",
            " / ".join(f"{value:.3f}" for value in share.mean("delay").values),
            source="the figure of test accuracy, whose panels were not read again",
            condition="the mean over delays of the median share of right bits is in this order",
            holds=np.all(np.diff(share.mean("delay").values) > 0),
        ),
    ]


def figure(dataset: "xarray.Dataset") -> "Figure":
    """For each task the right bits against the update, at a delay, and at the end by the delay."""
    from matplotlib.figure import Figure

    problems = [name for name in PROBLEMS if name in dataset.problem.values]
    fig = Figure(figsize=(7.4, 0.5 + 2.5 * len(problems)))
    rows = fig.subplots(len(problems), 2, squeeze=False, sharey=True)
    for (left, right), problem in zip(rows, problems, strict=True):
        data = dataset.isel(point=dataset.problem.values == problem)
        data = data.swap_dims(point="delay")
        delay = shown_delay(dataset, problem)
        for flossed, look in LOOKS.items():
            course = data.share.sel(flossed=flossed, delay=delay)
            study.figure.band(left, course["update"], course, "seed", **look)
            end = data.share.sel(flossed=flossed).isel(update=-1)
            study.figure.band(right, end.delay, end, "seed", **look)
        left.set(title=f"delayed {problem}, d = {delay}", xlabel="update", ylabel="share right")
        right.set(title=f"delayed {problem}, at the end", xlabel="delay d (steps)")
        right.set_xticks(data.delay.values)
        for ax in (left, right):
            ax.axhline(0.5, color="0.5", lw=0.8, ls=(0, (1, 1)), zorder=0)
    rows[0][0].set_ylim(0.45, 1.02)
    rows[0][1].legend(title="flossing", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


def shown_delay(dataset: "xarray.Dataset", problem: str) -> int:
    """The delay at which the best of the methods is furthest above none."""
    share = ends(dataset, problem)
    gain = share.max("flossed") - share.sel(flossed="none")
    return int(share.delay.values[np.argmax(gain.values)])


def summary(dataset: "xarray.Dataset") -> str:
    """The table of verdicts."""
    return verdicts(claims(dataset))


EXPERIMENT = study.Experiment(
    name="papers/engelken2023_tasks",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
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
)

PAPER = Paper(
    citation="Engelken 2023, Gradient flossing: improving gradient descent through dynamic control "
    "of Jacobians, arXiv:2312.17306",
    experiment=EXPERIMENT,
    claims=claims,
    figures={"tasks": figure},
    traps=(
        "The loss is a softmax over two classes here and a binary cross-entropy of one logit in "
        "the code: the same function of the difference of the two.",
        "The readout is of tanh(x) here; the net is the code's x ← J tanh(x) + b + w s in its "
        "other form, of the same exponents.",
        "The net that is not flossed is trained from the same weights on the same batches, and "
        "the epochs of flossing are not counted as updates: flossing takes time of its own.",
        "The panels of the paper's figures were not read: the picture is laid out by its text.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
