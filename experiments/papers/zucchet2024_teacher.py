"""A linear RNN fails to learn a teacher of long memory, which an LRU of the same size learns.

A dense linear teacher of 10 units, whose eigenvalues have the moduli ν_0 + (1 - ν_0) tanh|l|, l of
a Gaussian matrix, is learnt by linear students under white input::

    y_t = C h_t + D x_t      h_t = A h_{t-1} + B x_t      L = 1/(2T) Σ_t E (y_t - y*_t)²

by Adam with a cosine schedule, at the best of several learning rates. The students: A dense; A of
2 x 2 blocks; λ complex diagonal, plain; with a normalisation γ; and the LRU, which has the form
λ = exp(-exp(ν) + i exp(θ)) as well. The paper makes 10,000 updates on 128 fresh sequences each; the
default here 4,000 on 16. With --batch_size=0 there are infinitely many: under white input, with
g_k the response to an impulse after k steps, ::

    L = 1/2 Σ_{k<T} (1 - k/T) (g_k - g*_k)²

so that one sequence, the impulse, is enough. The teacher is one for all seeds, as in the paper.

Source: Zucchet, Orvieto 2024, arXiv:2405.21064, Fig. 3 A and B.

    python experiments/papers/zucchet2024_teacher.py

Takes about eight minutes on two cores; the sizes of the paper, by --full, are for an accelerator.
A killed run goes on from its last evaluation.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _linear_systems import initialise_student, response, sample_teacher, student
from _paper import Paper
from _training import last, trained

from gradflow import study
from gradflow.spec import check_name
from gradflow.study import Claim, numbers, statement
from gradflow.tasks.task import Batch, Task
from gradflow.train import Schedule, Training, begin
from gradflow.train.optimisers import Optimiser

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

    from gradflow import Params

LEAST_RATE = 1e-7
RATES: dict[str, tuple[float, ...]] = {
    "RNN": (3.2e-4, 1e-3, 1e-4, 3.2e-3, 3.2e-5),
    "block diagonal": (3.2e-3, 1e-2, 1e-3, 3.2e-2, 1e-4),
    "more neurons": (3.2e-3, 1e-2, 1e-3, 3.2e-4),
    "complex diagonal": (3.2e-3, 1e-2, 1e-3, 3.2e-2, 3.2e-4, 1e-1, 1e-4),
    "with γ": (3.2e-3, 1e-2, 1e-3, 3.2e-2, 3.2e-4, 1e-1, 1e-4),
    "LRU": (1e-2, 3.2e-2, 3.2e-3, 1e-1, 0.32),
}
"""The students, in the order of panel B, and the learning rates that the authors give each of
them (those of the blocks are of the scan over their number), the middle ones first."""

PRINTED = {
    "RNN": {0.36: 8e-9, 0.68: 1e-7, 0.84: 2e-5, 0.92: 9e-5, 0.96: 6e-4, 0.98: 5e-2, 0.99: 4e-1},
    "LRU": {0.36: 5e-8, 0.68: 1.3e-7, 0.84: 9e-7, 0.92: 2.5e-6, 0.96: 5e-6, 0.98: 5e-5,
            0.99: 2.5e-5},
    "block diagonal": {0.99: 1.8e-5}, "more neurons": {0.99: 2e-5},
    "complex diagonal": {0.99: 4e-5}, "with γ": {0.99: 2.2e-5},
}  # fmt: skip
"""Losses read off the plot in the authors' code, by student and ν_0; within 0.2 of a decade."""

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
    """The teachers, the students, and how long is trained."""

    nus: tuple[float, ...] = study.field((0.36, 0.99), help="ν_0 of panel A.", positive=True)
    ablated: tuple[str, ...] = study.field(("block diagonal",), help="Further students, panel B.")
    units: int = study.field(64, help="Hidden units; twice as many of more neurons.", positive=True)
    num_steps: int = study.field(300, help="Steps T.", positive=True)
    batch_size: int = study.field(16, help="Sequences an update; 0 for infinitely many.")
    num_rates: int = study.field(2, help="Learning rates, middle ones first.", positive=True)
    num_updates: int = study.field(4000, help="Updates.", positive=True)
    num_evaluations: int = study.field(20, help="Points on a learning curve.", positive=True)
    num_seeds: int = study.field(3, help="Seeds of students and data.", positive=True)
    precision: Literal["float64", "float32"] = study.field("float32", help="Precision of the run.")


def task_of(g: np.ndarray, *, infinite: bool) -> Task:
    """To say what the teacher of that response says: to an impulse, or to white input."""
    T = len(g)
    answers = jnp.asarray(np.tril(g[np.abs(np.subtract.outer(np.arange(T), np.arange(T)))]))
    weights = jnp.asarray(1 - np.arange(T) / T)[:, None]

    def impulse(key: jax.Array, batch_size: int) -> Batch:
        x = jnp.zeros((T, 1, 1)).at[0].set(1.0)
        return Batch(x, jnp.asarray(g)[:, None, None] + 0 * x, weights)

    def white(key: jax.Array, batch_size: int) -> Batch:
        x = jax.random.normal(key, (T, batch_size))
        return Batch(x[..., None], (answers @ x)[..., None], jnp.ones((T, batch_size)))

    def correct(predictions: jax.Array, batch: Batch) -> jax.Array:
        return jnp.all(jnp.abs(predictions - batch.targets) < 1e-3, axis=(0, 2))

    memory = float(np.sum((1 - np.arange(1, T) / T) * g[1:] ** 2))
    sample, whole = (impulse, (T + 1) / 2) if infinite else (white, 1.0)
    return Task(sample, 1, 1, T, "squared", memory / whole, correct, success=1.0)


def factor(num_steps: int, *, infinite: bool) -> float:
    """The paper's loss over that of the task, which is a mean with weights, and not halved."""
    return 0.25 * (num_steps + 1) if infinite else 0.5


def adam(num_updates: int, scale: float, rate: Any) -> optax.GradientTransformation:
    """Adam on the paper's loss, down a cosine to 1e-7; biases, which it has not, stay at zero."""

    def is_bias(params: "Params") -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "b", params)

    schedule = optax.cosine_decay_schedule(rate, num_updates, LEAST_RATE / rate)
    stop = optax.masked(optax.set_to_zero(), is_bias)
    return optax.chain(optax.scale(scale), optax.adam(schedule), stop)


def train(config: Config, name: str, nu_0: float, folder: Any) -> "xarray.Dataset":
    """All learning rates and seeds of one student of one teacher, side by side."""
    infinite, T = config.batch_size == 0, config.num_steps
    teacher, _ = sample_teacher(config.seed, nu_0)
    scale = factor(T, infinite=infinite)
    training = Training(
        student(name, config.units),
        task_of(response(teacher, T), infinite=infinite),
        Optimiser(partial(adam, config.num_updates, scale), RATES[name][0]),
        batch_size=config.batch_size or 1,
        eval_size=config.batch_size or 1,
    )
    rates = jnp.asarray(RATES[name][: config.num_rates])
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    runs = begin(training, jnp.tile(keys, len(rates)), jnp.repeat(rates, config.num_seeds))
    rngs = [np.random.default_rng([config.seed, seed]) for seed in range(config.num_seeds)]
    drawn = [initialise_student(name, config.units, nu_0, rng) for rng in rngs] * len(rates)
    put = jax.tree.map(lambda old, *new: jnp.stack(new).astype(old.dtype), runs.params, *drawn)
    every = config.num_updates // config.num_evaluations
    schedule = Schedule(config.num_updates, every, early_stop=False)
    identity = {"student": name, "nu_0": nu_0, "updates": config.num_updates}
    found, _ = trained(
        training, runs._replace(params=put), schedule, folder=folder(), identity=identity
    )
    loss = scale * found.train_loss.values.reshape(len(rates), config.num_seeds, -1)
    # As long as that of every student, so that they stand in one array.
    empty = np.full((config.num_rates - len(rates), *loss.shape[1:]), np.nan)
    bare = found.drop_vars(list(found.data_vars))
    return bare.assign(loss=(("rate", "seed", "update"), np.concatenate([loss, empty])))


def cases(config: Config) -> list[tuple[str, float]]:
    """Which student learns which teacher: panel A, and then B at the largest ν_0.

    Raises:
      ValueError: For a student that there is not, a ν_0 from 1 on, or curves that the updates do
        not divide into.
    """
    if max(config.nus) >= 1:
        raise ValueError(f"ν_0 below 1 is expected, got {max(config.nus):g}: the paper has 0.99")
    for name in config.ablated:
        check_name("student", name, RATES)
    if config.num_updates % config.num_evaluations:
        raise ValueError(
            f"num_updates is expected to be a multiple of num_evaluations="
            f"{config.num_evaluations}, got {config.num_updates}"
        )
    pairs = [(name, nu) for nu in config.nus for name in ("RNN", "LRU")]
    return pairs + [(name, max(config.nus)) for name in config.ablated]


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """All cases; dimensions case, rate, seed, update."""
    import xarray

    pairs = cases(config)

    def unit(name: str, nu_0: float) -> "xarray.Dataset":
        title = f"{name}-{nu_0:g}"
        return once(title, partial(train, config, name, nu_0, partial(once.folder, title)))

    parts = [unit(name, nu_0) for name, nu_0 in pairs]
    names, nus = zip(*pairs, strict=True)
    rates = np.full((len(names), config.num_rates), np.nan)
    for row, name in zip(rates, names, strict=True):
        tried = RATES[name][: config.num_rates]
        row[: len(tried)] = tried
    drawn = [sample_teacher(config.seed, nu) for nu in config.nus]
    found = np.abs([np.linalg.eigvals(teacher.A) for teacher, _ in drawn])
    wanted = np.array([moduli for _, moduli in drawn])
    joined = xarray.concat(parts, dim="case")
    return joined.assign(
        student=("case", list(names)),
        nu_0=("case", list(nus)),
        learning_rate=(("case", "rate"), rates),
        moduli_error=((), np.abs(np.sort(found) - np.sort(wanted)).max()),
    )


def finals(dataset: "xarray.Dataset") -> "xarray.Dataset":
    """The last loss of each case at its best rate: mean over seeds and standard error.

    The rate is that of the least mean; one at which a run died is none.
    """
    import xarray

    loss = last(dataset.loss)  # (case, rate, seed), of the last updates that were averaged
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


def claims(dataset: "xarray.Dataset") -> list[Claim]:
    """Each claim beside what was measured."""
    end = finals(dataset)
    names, nus = end.student.values, end.nu_0.values
    high, low = nus.max(), nus.min()

    def loss(name: str, nu: float) -> float:
        found = end["mean"].values[(names == name) & (nus == nu)]
        return float(found[0]) if len(found) else float("nan")

    printed = [(str(n), float(nu)) for n, nu in zip(names, nus, strict=True)
               if float(nu) in PRINTED[str(n)]]  # fmt: skip
    ratio = loss("RNN", high) / loss("LRU", high)
    apart = np.log10(loss("RNN", low) / loss("LRU", low))
    blocked = np.log10(loss("block diagonal", high) / loss("LRU", high))
    rises = [np.log10(loss(name, high) / loss(name, low)) for name in ("RNN", "LRU")]
    return [
        numbers(
            "fig3-moduli",
            "largest distance of the teachers' eigenvalue moduli from ν_0 + (1 - ν_0) tanh|l|",
            0,
            float(dataset.moduli_error),
            atol=1e-9,
            source="the authors' code, source/dataloaders/regression.py (formula)",
            exact=True,
        ),
        statement(
            "fig3-memory",
            f"at ν_0 = {high:g} the dense linear RNN fails where the LRU learns",
            "losses of 0.4 and 2.5e-5",
            {
                "loss of the RNN": loss("RNN", high),
                "loss of the LRU": loss("LRU", high),
                "ratio": ratio,
            },
            source=f"Fig. 3 A, {CODE}; the ratio that counts is our own",
            criterion="the RNN's loss is over 1000 times the LRU's",
            holds=ratio > 1000,
        ),
        statement(
            "fig3-short",
            f"at ν_0 = {low:g} both learn",
            "losses of 8e-9 and 5e-8",
            {"loss of the RNN": loss("RNN", low), "loss of the LRU": loss("LRU", low)},
            source=f"Fig. 3 A, {CODE}; the distance that counts is our own",
            criterion="they are within 1.5 decades of each other",
            holds=abs(apart) < 1.5,
        ),
        statement(
            "fig3-rise",
            "the longer the teacher's memory, the worse the RNN; the LRU far less so",
            "7.7 and 2.7 decades",
            {f"orders of magnitude from ν_0 = {low:g} to {high:g}, RNN and LRU": rises},
            source=f"Fig. 3 A, {CODE}",
            criterion="the RNN's loss rises by over a decade, and by 2 more than the LRU's",
            holds=rises[0] > 1 and rises[0] > rises[1] + 2,
        ),
        statement(
            "fig3-blocks",
            f"at ν_0 = {high:g} blocks of 2 x 2 make the RNN as good as the LRU",
            "losses of 1.8e-5 and 2.5e-5",
            {
                "loss of the blocks": loss("block diagonal", high),
                "loss of the LRU": loss("LRU", high),
            },
            source=f"Fig. 3 B, {CODE}; the distance that counts is our own",
            criterion="they are within a decade of each other",
            holds=abs(blocked) < 1,
        ),
        numbers(
            "fig3-losses",
            "log10 of the final losses, " + ", ".join(f"{n} at {nu:g}" for n, nu in printed),
            [np.log10(PRINTED[n][nu]) for n, nu in printed] or [np.nan],
            [np.log10(loss(n, nu)) for n, nu in printed] or [np.nan],
            atol=1.0,
            shape=("the RNN is the worst by 3 decades at the largest ν_0", ratio > 1000),
            source=CODE + ", within 0.2; a shorter training here by default",
        ),
    ]


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Fig. 3: A, final loss against ν_0; B, all students at the largest; the learning curves."""
    from matplotlib.figure import Figure

    end = finals(dataset)
    names, nus, means = end.student.values, end.nu_0.values, end["mean"].values
    high = nus.max()
    fig = Figure(figsize=(7.0, 2.8))
    left, middle, right = fig.subplots(1, 3)
    for name in ("RNN", "LRU"):
        of, color = names == name, LOOKS[name]["color"]
        places = 1 - nus[of]
        look = {"color": color, "marker": "o" if name == "LRU" else "s", "label": name}
        left.errorbar(places, means[of], end["error"].values[of], capsize=2, **look)
        known = PRINTED[name]
        left.plot([1 - nu for nu in known], list(known.values()), ":", color=color, lw=1.0)
    left.plot([], [], ":", color="0.4", lw=1.0, label="paper")
    left.set(xscale="log", yscale="log", xlabel="ν₀", ylabel="final loss", title="A")
    left.invert_xaxis()
    left.set_xticks([1 - nu for nu in sorted(set(nus))], [f"{nu:g}" for nu in sorted(set(nus))])
    left.minorticks_off()
    left.legend()
    shown = [name for name in RATES if name in names[nus == high]]
    rows = np.arange(len(shown))
    values = [float(means[(names == name) & (nus == high)][0]) for name in shown]
    middle.barh(rows, values, color=[LOOKS[name]["color"] for name in shown])
    middle.plot([PRINTED[n].get(float(high), np.nan) for n in shown], rows, "kD")
    middle.set_yticks(rows, shown)
    middle.set(xscale="log", xlabel="final loss", title=f"B  ν₀ = {high:g} (◆ paper)")
    middle.invert_yaxis()
    _curves(right, dataset, end)
    return fig


def _curves(ax: Any, dataset: "xarray.Dataset", end: "xarray.Dataset") -> None:
    for case in np.flatnonzero(end.nu_0.values == end.nu_0.values.max()):
        name = str(end.student.values[case])
        rates = dataset.learning_rate.values[case]
        at = int(np.nanargmin(abs(rates - end.rate.values[case])))
        data = dataset.loss.isel(case=case, rate=at)
        x, y = data["update"].values[1:], data.isel(update=slice(1, None))
        study.figure.band(ax, x, y, "seed", label=name, **LOOKS[name])
    ax.set(yscale="log", xlabel="updates", ylabel="loss", title="at the best rate")
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
        "batch_size": 128,
        "num_rates": 7,
        "num_updates": 10000,
        "num_evaluations": 100,
        "num_seeds": 10,
    },
    doc=__doc__,
    citation="Zucchet, Orvieto 2024, Recurrent neural networks: vanishing and exploding gradients "
    "are not the end of the story, arXiv:2405.21064",
    figures={"fig3": figure},
    traps=(
        "One tick label of the authors' figure says 0.32 where ν_0 is 0.36.",
        "The teacher is the same for all seeds: the authors' code gives its seed to the data "
        "loader alone. It is another one here, drawn by NumPy.",
        "A starts with moduli tanh|l| in the students, from 0 on; only the LRU and the complex "
        "students are told ν_0, as the least modulus.",
        "The authors draw γ of the students that have λ plain from its real part; here it starts "
        "at √(1 - |λ|²), as in the LRU.",
        "How far the dense RNN comes depends on the batch, and so on the noise of its gradient: "
        "compare --batch_size=0.",
        "The code's mean over seeds leaves out runs that died; here a rate with one is no choice.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
