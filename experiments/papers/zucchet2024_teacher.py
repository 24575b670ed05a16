"""A linear RNN learns a teacher of long memory less well than an LRU of the same size does.

The teacher is a dense linear RNN of 10 units, whose eigenvalues have the moduli
ν_0 + (1 - ν_0) tanh|l|, with l the eigenvalues of a Gaussian matrix. Linear students learn it under
white input::

    y_t = C h_t + D x_t      h_t = A h_{t-1} + B x_t      L = 1/(2T) Σ_t E (y_t - y*_t)²

by Adam with a cosine schedule, at the best of five learning rates. The students: a dense A; an A of
2 x 2 blocks; a complex diagonal λ, plain; with a normalisation γ; and the LRU, which has λ =
exp(-exp(ν) + i exp(θ)) as well. As in the paper there are 10,000 updates on 128 fresh sequences
each, and all seeds have the same teacher; there are three seeds instead of ten, and two teachers
instead of seven. --batch_size=0 has the expectation over white input in place of a batch.

A linear student is run on an impulse alone (`_linear_systems`): the loss on a batch is a quadratic
form of its response.

Source: Zucchet, Orvieto 2024, arXiv:2405.21064, Fig. 3 A and B.

    python experiments/papers/zucchet2024_teacher.py

Takes about ten minutes on two cores; --full has ten seeds and all teachers and students. A killed
run resumes from its last evaluation.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray
from _kit import fields
from _kit.trained import unit
from _linear_systems import (
    correlations,
    expected_correlations,
    initialise_student,
    loss,
    response,
    sample_teacher,
    student,
)
from _paper import Paper
from _training import last

from gradflow import Params, study
from gradflow.spec import check_name
from gradflow.study import Claim, derived, numbers, statement
from gradflow.study.figure import Axes, Figure
from gradflow.train import Descent, Schedule, Source, fit, step

LEAST_RATE = 1e-7
RATES: dict[str, tuple[float, ...]] = {
    "RNN": (3.2e-4, 1e-3, 1e-4, 3.2e-3, 3.2e-5),
    "block diagonal": (3.2e-3, 1e-2, 1e-3, 3.2e-2, 1e-4),
    "more neurons": (3.2e-3, 1e-2, 1e-3, 3.2e-4),
    "complex diagonal": (3.2e-3, 1e-2, 1e-3, 3.2e-2, 3.2e-4, 1e-1, 1e-4),
    "with γ": (3.2e-3, 1e-2, 1e-3, 3.2e-2, 3.2e-4, 1e-1, 1e-4),
    "LRU": (1e-2, 3.2e-2, 3.2e-3, 1e-1, 0.32),
}
"""The students in the order of panel B, with the learning rates that the authors give each of them,
the middle ones first; those of the blocks are from the scan over the number of blocks."""

PRINTED = {
    "RNN": {0.36: 8e-9, 0.68: 1e-7, 0.84: 2e-5, 0.92: 9e-5, 0.96: 6e-4, 0.98: 5e-2, 0.99: 4e-1},
    "LRU": {0.36: 5e-8, 0.68: 1.3e-7, 0.84: 9e-7, 0.92: 2.5e-6, 0.96: 5e-6, 0.98: 5e-5,
            0.99: 2.5e-5},
    "block diagonal": {0.99: 1.8e-5}, "more neurons": {0.99: 2e-5},
    "complex diagonal": {0.99: 4e-5}, "with γ": {0.99: 2.2e-5},
}  # fmt: skip
"""Losses read off the plot in the authors' code, within 0.2 in log10, by student and ν_0."""

CODE = "the plot saved in the authors' code, figures/comparison_architectures_LSI.ipynb"
LOOKS = {
    "RNN": {"color": "#D55E00", "linestyle": "--"},
    "block diagonal": {"color": "#009E73", "linestyle": "-."},
    "more neurons": {"color": "#CC79A7", "linestyle": ":"},
    "complex diagonal": {"color": "#E69F00", "linestyle": (0, (8, 2))},
    "with γ": {"color": "#661100", "linestyle": (0, (3, 1, 1, 1, 1, 1))},
    "LRU": {"color": "#0072B2", "linestyle": "-"},
}


@dataclass(frozen=True)
class Config(study.Config):
    """The teachers, the students, and the size of the training."""

    nus: tuple[float, ...] = fields.positive((0.36, 0.99), help="ν_0 of panel A.")
    ablated: tuple[str, ...] = study.field(("block diagonal",), help="Further students, panel B.")
    units: int = fields.positive(64, help="Hidden units; twice as many of more neurons.")
    num_steps: int = fields.num_steps(300)
    batch_size: int = study.field(128, help="Sequences in an update; 0 for infinitely many.")
    num_rates: int = fields.positive(5, help="Learning rates, the middle ones first.")
    num_updates: int = fields.positive(10000, help="Updates.")
    num_evaluations: int = fields.positive(20, help="Points on a learning curve.")
    num_seeds: int = fields.num_seeds(3)
    precision: Literal["float64", "float32"] = fields.training_precision()


def adam(num_updates: int, rate: Any) -> optax.GradientTransformation:
    """Makes Adam with a cosine schedule to 1e-7; biases stay at zero."""

    def is_bias(params: Params) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "b", params)

    schedule = optax.cosine_decay_schedule(rate, num_updates, LEAST_RATE / rate)
    stop = optax.masked(optax.set_to_zero(), is_bias)
    return optax.chain(optax.adam(schedule), stop)


def train(config: Config, name: str, nu_0: float, folder: Path | None) -> xarray.Dataset:
    """Trains one student of one teacher, at all learning rates and seeds together."""
    T, rates = config.num_steps, jnp.asarray(RATES[name][: config.num_rates])
    target = jnp.asarray(response(sample_teacher(config.seed, nu_0)[0], T))
    loss_on = partial(loss, student(name, config.units), target)

    def advance_seed(descents: Descent, key: jax.Array, updates: jax.Array) -> tuple[Descent, Any]:
        def update(descents: Descent, number: jax.Array) -> tuple[Descent, jax.Array]:
            M = batch_of(config, jax.random.fold_in(key, number))

            def at_rate(descent: Descent, rate: jax.Array) -> tuple[Descent, jax.Array]:
                value, slope = jax.value_and_grad(partial(loss_on, M))(descent.params)
                return step(adam(config.num_updates, rate), descent, slope), value

            return jax.vmap(at_rate)(descents, rates)

        descents, losses = jax.lax.scan(update, descents, updates)
        return descents, losses.mean(axis=0)

    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    every = config.num_updates // config.num_evaluations
    advance_all = jax.jit(jax.vmap(advance_seed, in_axes=(0, 0, None)))

    def advance(state: tuple[Descent, int], number: int) -> tuple[tuple[Descent, int], Any]:
        descents, first = state
        descents, losses = advance_all(descents, keys, first + jnp.arange(number))
        return (descents, first + number), {"loss": losses}

    begun = initialise(config, name, nu_0, rates)
    shape = {"loss": (config.num_seeds, len(rates))}
    source = Source((begun, 0), advance, lambda state: (state, {}), shape)
    identity = {**dataclasses.asdict(config), "student": name, "nu_0": nu_0}
    schedule = Schedule(config.num_updates, every)
    *_, end = study.progress(fit(source, schedule, folder=folder, identity=identity), name)
    # Padded to the largest number of rates, so that all students share one array.
    padding = ((0, config.num_rates - len(rates)), (0, 0), (0, 0))
    losses = np.pad(end.metrics["loss"].T, padding, constant_values=np.nan)
    return xarray.Dataset(
        {"loss": (("rate", "seed", "update"), losses)},
        coords={"update": ("update", schedule.evaluations, {"units": "updates"})},
    )


def batch_of(config: Config, key: jax.Array) -> jax.Array:
    """Computes M of a fresh batch of white inputs, or its expectation."""
    if config.batch_size == 0:
        return expected_correlations(config.num_steps)
    return correlations(jax.random.normal(key, (config.num_steps, config.batch_size)))


def initialise(config: Config, name: str, nu_0: float, rates: jax.Array) -> Descent:
    """Initialises the runs, (seed, rate), for each learning rate with the same parameters."""

    def one(params: Params) -> Descent:
        start = lambda rate: Descent.start(adam(config.num_updates, rate), params)  # noqa: E731
        return jax.vmap(start)(rates)

    rngs = [np.random.default_rng([config.seed, seed]) for seed in range(config.num_seeds)]
    sampled = [initialise_student(name, config.units, nu_0, rng) for rng in rngs]
    return jax.vmap(one)(jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *sampled))


def cases(config: Config) -> list[tuple[str, float]]:
    """Lists which student learns which teacher: panel A, then panel B at the largest ν_0.

    Raises:
      ValueError: If a student is unknown, a ν_0 is 1 or more, or the updates are not divisible by
        the evaluations.
    """
    if max(config.nus) >= 1:
        raise ValueError(
            f"Expected ν_0 below 1, got {max(config.nus):g}. The largest of the paper is 0.99."
        )
    for name in config.ablated:
        check_name("student", name, RATES)
    if config.num_updates % config.num_evaluations:
        raise ValueError(
            f"Expected num_updates to be a multiple of num_evaluations={config.num_evaluations}, "
            f"got {config.num_updates}. Change one of them."
        )
    pairs = [(name, nu) for nu in config.nus for name in ("RNN", "LRU")]
    return pairs + [(name, max(config.nus)) for name in config.ablated]


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Trains all cases; dimensions case, rate, seed, update."""
    pairs = cases(config)
    parts = [unit(once, f"{name}-{nu:g}", train, config, name, nu) for name, nu in pairs]
    names, nus = zip(*pairs, strict=True)
    rates = np.full((len(names), config.num_rates), np.nan)
    for row, name in zip(rates, names, strict=True):
        tried = RATES[name][: config.num_rates]
        row[: len(tried)] = tried
    return xarray.concat(parts, dim="case").assign(
        student=("case", list(names)),
        nu_0=("case", list(nus)),
        learning_rate=(("case", "rate"), rates),
        moduli_error=((), moduli_error(config)),
    )


def moduli_error(config: Config) -> float:
    """Computes the largest distance of the teachers' eigenvalue moduli from the paper's formula."""
    teachers = [sample_teacher(config.seed, nu) for nu in config.nus]
    found = np.abs([np.linalg.eigvals(teacher.A) for teacher, _ in teachers])
    wanted = np.array([moduli for _, moduli in teachers])
    return np.abs(np.sort(found) - np.sort(wanted)).max()


def finals(dataset: xarray.Dataset) -> xarray.Dataset:
    """Computes the last loss of each case at its best rate: mean over seeds and standard error.

    The best rate is that of the least mean; a rate at which a run diverged is never the best.
    """
    # The last evaluation averages the updates since the one before.
    loss = last(dataset.loss)  # (case, rate, seed)
    loss = np.where(np.isfinite(dataset.loss.isel(update=-1)), loss, np.inf)
    mean = loss.mean(axis=-1)
    best = np.argmin(mean, axis=-1)
    rows = np.arange(len(best))
    chosen = loss[rows, best]
    error = chosen.std(axis=-1, ddof=min(1, chosen.shape[-1] - 1)) / np.sqrt(chosen.shape[-1])
    return xarray.Dataset(
        {
            "mean": ("case", mean[rows, best]),
            "error": ("case", error),
            "rate": ("case", dataset.learning_rate.values[rows, best]),
        },
        coords={"student": dataset.student, "nu_0": dataset.nu_0},
    )


Losses = dict[tuple[str, float], float]
"""The final losses by student and ν_0."""


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The teachers' eigenvalues, and which students learn them."""
    end = finals(dataset)
    low, high = float(end.nu_0.min()), float(end.nu_0.max())
    pairs = zip(map(str, end.student.values), map(float, end.nu_0.values), strict=True)
    losses: Losses = dict(zip(pairs, map(float, end["mean"].values), strict=True))
    absent = [pair for pair in product(RATES, (low, high)) if pair not in losses]
    losses |= dict.fromkeys(absent, np.nan)
    return [
        about_teachers(dataset),
        *about_memory(losses, low, high),
        about_blocks(losses, high),
        about_losses(losses, high),
    ]


def about_teachers(dataset: xarray.Dataset) -> Claim:
    """The eigenvalues of the teachers."""
    return derived(
        "fig3-moduli",
        "The teachers' eigenvalues have the moduli ν_0 + (1 - ν_0) tanh|l| (measured: the largest "
        "distance).",
        0,
        float(dataset.moduli_error),
        atol=1e-9,
        source="the authors' code, source/dataloaders/regression.py (formula)",
    )


def about_memory(losses: Losses, low: float, high: float) -> list[Claim]:
    """The dense linear RNN and the LRU, for teachers of short and of long memory."""
    ends = {nu: (losses["RNN", nu], losses["LRU", nu]) for nu in (low, high)}
    measured = {
        nu: {"loss of the RNN": rnn, "loss of the LRU": lru} for nu, (rnn, lru) in ends.items()
    }
    ratio = losses["RNN", high] / losses["LRU", high]
    rises = [np.log10(losses[name, high] / losses[name, low]) for name in ("RNN", "LRU")]
    return [
        statement(
            "fig3-memory",
            f"At ν_0 = {high:g} the dense linear RNN fails to learn the teacher, and the LRU "
            "learns it.",
            "losses of 0.4 and 2.5e-5",
            {**measured[high], "ratio": ratio},
            source=f"Fig. 3 A, {CODE}; the ratio is our own",
            criterion="the RNN's loss is over 1000 times the LRU's",
            holds=ratio > 1000,
        ),
        statement(
            "fig3-short",
            f"At ν_0 = {low:g} the dense linear RNN and the LRU both learn the teacher.",
            "losses of 8e-9 and 5e-8",
            measured[low],
            source=f"Fig. 3 A, {CODE}; the distance is our own",
            criterion="their losses are within 1.5 orders of magnitude of each other",
            holds=abs(np.log10(losses["RNN", low] / losses["LRU", low])) < 1.5,
        ),
        statement(
            "fig3-rise",
            "The longer the teacher's memory, the larger the RNN's loss; the LRU's rises less.",
            "7.7 and 2.7 orders of magnitude",
            {f"orders of magnitude from ν_0 = {low:g} to {high:g}, RNN and LRU": rises},
            source=f"Fig. 3 A, {CODE}",
            criterion="the RNN's loss rises by over one order of magnitude, and by over two more "
            "than the LRU's",
            holds=rises[0] > 1 and rises[0] > rises[1] + 2,
        ),
    ]


def about_blocks(losses: Losses, high: float) -> Claim:
    """The RNN of 2 x 2 blocks."""
    blocks, lru = losses["block diagonal", high], losses["LRU", high]
    return numbers(
        "fig3-blocks",
        f"At ν_0 = {high:g} an RNN of 2 x 2 blocks learns the teacher as well as the LRU (log10 of "
        "the ratio of their losses).",
        np.log10(PRINTED["block diagonal"][0.99] / PRINTED["LRU"][0.99]),
        np.log10(blocks / lru),
        atol=1.0,
        source=f"Fig. 3 B, losses of 1.8e-5 and 2.5e-5 in {CODE}; the tolerance of one order of "
        "magnitude is our own",
        shape=("the blocks' loss is at most ten times the LRU's", blocks <= 10 * lru),
    )


def about_losses(losses: Losses, high: float) -> Claim:
    """The final losses that the authors' plot shows as well."""
    printed = [(n, nu) for n, nu in losses if nu in PRINTED[n] and not np.isnan(losses[n, nu])]
    worst = losses["RNN", high] / losses["LRU", high] > 1000
    return numbers(
        "fig3-losses",
        "The final losses are those of the authors' plot (log10, "
        + ", ".join(f"{n} at {nu:g}" for n, nu in printed)
        + ").",
        [np.log10(PRINTED[n][nu]) for n, nu in printed] or [np.nan],
        [np.log10(losses[n, nu]) for n, nu in printed] or [np.nan],
        atol=1.0,
        shape=("at the largest ν_0 the RNN's loss is over 1000 times the LRU's", worst),
        source=CODE + ", within 0.2",
    )


def figure(dataset: xarray.Dataset) -> Figure:
    """Fig. 3: A, final loss against ν_0; B, all students at the largest; learning curves."""
    end = finals(dataset)
    fig = study.figure.empty(7.0, 2.8)
    left, middle, right = fig.subplots(1, 3)
    _draw_losses(left, end)
    _draw_students(middle, end)
    _draw_curves(right, dataset, end)
    return fig


def _draw_losses(ax: Axes, end: xarray.Dataset) -> None:
    nus = sorted(set(end.nu_0.values))
    for name, marker in (("RNN", "s"), ("LRU", "o")):
        data, color, known = end.sel(case=end.student == name), LOOKS[name]["color"], PRINTED[name]
        look = {"color": color, "marker": marker, "label": name, "capsize": 2}
        ax.errorbar(1 - data.nu_0, data["mean"], data.error, **look)
        ax.plot([1 - nu for nu in known], list(known.values()), ":", color=color, lw=1.0)
    ax.plot([], [], ":", color="0.4", lw=1.0, label="paper")
    ax.set(xscale="log", yscale="log", xlabel=r"$\nu_0$", ylabel="final loss", title="A")
    ax.invert_xaxis()
    ax.set_xticks([1 - nu for nu in nus], [f"{nu:g}" for nu in nus])
    ax.minorticks_off()
    ax.legend()


def _draw_students(ax: Axes, end: xarray.Dataset) -> None:
    high = float(end.nu_0.max())
    at_high = end.sel(case=end.nu_0 == high)
    means = dict(zip(map(str, at_high.student.values), at_high["mean"].values, strict=True))
    shown = [name for name in RATES if name in means]
    rows = np.arange(len(shown))
    for row, name in zip(rows, shown, strict=True):
        ax.plot(means[name], row, "o", color=LOOKS[name]["color"], markersize=7)
    ax.plot([PRINTED[n].get(high, np.nan) for n in shown], rows, "kD", mfc="none", label="paper")
    ax.set_yticks(rows, shown)
    ax.set(xscale="log", xlabel="final loss", title=rf"B  $\nu_0 = {high:g}$")
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.legend(loc="upper left")


def _draw_curves(ax: Axes, dataset: xarray.Dataset, end: xarray.Dataset) -> None:
    for case in np.flatnonzero(end.nu_0.values == end.nu_0.values.max()):
        name = str(end.student.values[case])
        rates = dataset.learning_rate.values[case]
        at = int(np.nanargmin(abs(rates - end.rate.values[case])))
        data = dataset.loss.isel(case=case, rate=at)
        x, y = data["update"].values[1:], data.isel(update=slice(1, None))
        study.figure.band(ax, x, y, "seed", label=name, **LOOKS[name])
    ax.set(yscale="log", xlabel="update", ylabel="loss", title="C  at the best learning rate")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


EXPERIMENT = Paper(
    name="papers/zucchet2024_teacher",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={
        "units": 8,
        "num_steps": 20,
        "batch_size": 4,
        "num_updates": 40,
        "num_evaluations": 4,
        "num_seeds": 2,
    },
    full={
        "nus": (0.36, 0.68, 0.84, 0.92, 0.96, 0.98, 0.99),
        "ablated": ("block diagonal", "more neurons", "complex diagonal", "with γ"),
        "num_rates": 7,
        "num_seeds": 10,
    },
    doc=__doc__,
    citation="Zucchet, Orvieto 2024, Recurrent neural networks: vanishing and exploding gradients "
    "are not the end of the story, arXiv:2405.21064",
    figures={"fig3": figure},
    traps=(
        "One tick label of the authors' figure says 0.32 where ν_0 is 0.36.",
        "The teacher is the same for all seeds, because the authors' code gives its seed to the "
        "data loader alone. Here it is another teacher, sampled by NumPy.",
        "The students' A is initialised with moduli tanh|l|, which may be near 0. Only the LRU and "
        "the complex students are initialised with ν_0 as the smallest modulus.",
        "The authors initialise γ of the students with a plain λ from its real part; here it is "
        "√(1 - |λ|²), as in the LRU.",
        "The final loss of the dense RNN depends on the batch, and so on the noise of its "
        "gradient, and on the number of updates. At ν_0 = 0.99 it was 5 after 4,000 updates on "
        "batches of 16 (two learning rates); at the paper's 10,000 on batches of 128 it is below "
        "1e-3, where the authors' plot has 0.4. Which of the teacher, the three seeds and the code "
        "makes the difference was not tested.",
        "The code's mean over seeds leaves out runs that diverged. Here a learning rate at which a "
        "run diverged is never the best.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
