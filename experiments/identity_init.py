"""Whether the identity carries the gradient, and whether a net that starts there trains.

Plain nets h_t = φ(W_x x_t + W_h h_{t-1} + b), φ ReLU or tanh, that differ in how W_h starts::

    irnn             W_h = I, with W_x ~ N(0, 0.001²): the paper's
    identity         W_h = I, with W_x from lecun's law, as all others have it
    scaled_identity  W_h = 0.01 I: the paper's, for tasks without long dependencies
    orthogonal       uniform among the orthogonal matrices
    glorot           U(±√(3/n))
    sparse           15 connections a unit, spectral radius 0.95
    critical         N(0, σ²/n) on the line of mean-field theory: σ = √2 for ReLU, 1 for tanh

The norm ‖∂h_T/∂h_k‖ against the lag at birth and after some updates; learning curves on the adding
problem and on digits read pixel by pixel; the moduli of the eigenvalues of W_h along training. The
claim: a ReLU net that starts at the identity carries the gradient over the whole sequence, and so
learns what the same net from another start does not. Two parts, each supported by a rule: of the
irnn with ReLU, ‖∂h_T/∂h_k‖ over nine tenths of the steps lies within 0.1 and 10 in the (geometric)
mean over seeds, at birth and at the end of the training; and its final loss is below that of each
start that is not the identity, the 95 % interval of the log ratio over seeds being below 0. (The
first tenth of the steps is left out, for an image begins blank, and where W_x x_t = 0 and h = 0,
ReLU has no slope: the norm is -inf.)

Source: Le, Jaitly, Hinton 2015, arXiv:1504.00941; Saxe, McClelland, Ganguli 2014, arXiv:1312.6120
(orthogonal); Chen, Pennington, Schoenholz 2018, arXiv:1806.05394 (critical).

    python experiments/identity_init.py
    python experiments/identity_init.py --full
    python experiments/identity_init.py --activations=relu --tasks='adding(num_steps=100)'

Takes about two minutes on two cores at the defaults; each start has one learning rate there, and
under ``--full`` (an hour, by estimate) the best of three.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradflow import statistics, study
from gradflow.cells import rnn
from gradflow.initializers.meanfield import ACTIVATIONS
from gradflow.spec import check_name, split_specs
from gradflow.tasks import resolve_task
from gradflow.train.clipping import resolve_clipping
from gradflow.train.driver import Schedule, fit
from gradflow.train.optimisers import resolve_optimiser
from gradflow.train.probes import Probing, probe
from gradflow.train.runs import Runs, begin, fresh_sequences
from gradflow.train.training import Training

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradflow.tasks import Task

KEPT = 10.0
"""A norm within this factor of 1, to either side, counts as carried."""


FLOOR = -12
"""The log10 norm at the lower edge of a panel."""


OVER = 0.9
"""The part of the steps over which the gradient is to be carried."""


class Start(NamedTuple):
    """How a net starts.

    Attributes:
      recurrent: The initialiser of W_h; ``{activation}`` stands for the net's own.
      look: Of its lines.
      input: The initialiser of W_x.
      is_identity: Whether W_h is the identity, unscaled.
    """

    recurrent: str
    look: dict[str, Any]
    input: str = "lecun"
    is_identity: bool = False


def _look(color: str, linestyle: Any) -> dict[str, Any]:
    return {"color": color, "linestyle": linestyle}


STARTS = {
    "irnn": Start("identity", _look("#0072B2", "-"), "normal(std=0.001)", True),
    "identity": Start("identity", _look("#56B4E9", (0, (5, 1))), is_identity=True),
    "scaled_identity": Start("scaled_identity", _look("#999999", ":")),
    "orthogonal": Start("orthogonal", _look("#D55E00", "-.")),
    "glorot": Start("glorot", _look("#009E73", "--")),
    "sparse": Start("sparse", _look("#CC79A7", (0, (3, 1, 1, 1, 1, 1)))),
    "critical": Start("critical(activation={activation!r})", _look("#000000", (0, (1, 1)))),
}


@dataclass(frozen=True)
class Config(study.Config):
    """Which nets start where, and what they learn."""

    num_seeds: int = study.field(5, help="Independent repetitions, vectorised.", positive=True)
    precision: Literal["float64", "float32"] = study.field(
        "float32", help="Precision of the training; the norms are measured in float64."
    )
    starts: tuple[str, ...] = study.field(
        tuple(STARTS),
        help="Of irnn, identity, scaled_identity, orthogonal, glorot, sparse, critical.",
    )
    activations: tuple[str, ...] = study.field(
        ("relu", "tanh"), help="Of relu, tanh, identity and sigmoid."
    )
    tasks: str = study.field(
        "adding(num_steps=50),digits", help="Tasks, a name or name(option=value)."
    )
    hidden_size: int = study.field(32, help="Hidden units.", positive=True)
    learning_rates: tuple[float, ...] = study.field(
        (0.001,), help="Of Adam; each start is shown at its best one.", positive=True
    )
    clip: float = study.field(1.0, help="Largest global norm of a gradient.", positive=True)
    batch_size: int = study.field(32, help="Sequences in an update.", positive=True)
    num_updates: int = study.field(1000, help="Updates of a training.", positive=True)
    eval_every: int = study.field(50, help="Updates between two evaluations.", positive=True)
    early: int = study.field(
        100, help="The update between birth and end after which norms are measured.", positive=True
    )


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Trains every start; dimensions task, activation, start, rate, run, update, lag, index."""
    import xarray

    tasks = {spec: resolve_task(spec) for spec in split_specs(config.tasks)}
    _check(config, tasks)
    parts = [_on_task(config, spec, task, once) for spec, task in tasks.items()]
    return xarray.concat(parts, dim="task", join="outer", data_vars="all")


def _on_task(config: Config, spec: str, task: "Task", once: study.Once) -> "xarray.Dataset":
    import xarray

    parts = [
        once(f"task={spec},{name}", partial(_train, config, spec, task, name))
        for name in study.progress(config.activations, spec)
    ]
    return xarray.concat(parts, dim="activation", join="exact", data_vars="all")


def _check(config: Config, tasks: dict[str, "Task"]) -> None:
    if not tasks:
        raise ValueError(f"the name of a task is expected, got {config.tasks!r}; try adding")
    for names, kind, known in (
        (config.starts, "start", STARTS),
        (config.activations, "activation of mean-field theory", ACTIVATIONS),
    ):
        if not names:
            raise ValueError(f"at least one {kind} is expected, got none; try {next(iter(known))}")
        for name in names:
            check_name(kind, name, known)
    Schedule(config.num_updates, config.eval_every)  # says what does not divide
    if config.early % config.eval_every or config.early >= config.num_updates:
        raise ValueError(
            f"early is expected to be a multiple of eval_every={config.eval_every} below "
            f"num_updates={config.num_updates}, got {config.early}"
        )


def _begin(config: Config, training: Training, activation: str) -> Runs:
    """The runs, by start, learning rate and seed; a seed has its sequences and draws for all."""
    starts = [STARTS[name] for name in config.starts]
    cells = [
        rnn(
            training.task.input_size,
            config.hidden_size,
            activation=activation,
            recurrent_init=start.recurrent.format(activation=activation),
            input_init=start.input,
        )
        for start in starts
    ]
    k_runs, k_cells = jax.random.split(jax.random.key(config.seed))
    by_rate = len(config.learning_rates), config.num_seeds
    rates = jnp.repeat(jnp.asarray(config.learning_rates), config.num_seeds)
    keys = jnp.tile(jax.random.split(k_runs, config.num_seeds), by_rate[0] * len(starts))
    runs = begin(training, keys, jnp.tile(rates, len(starts)))

    def draw(key: jax.Array) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(c.init(key) for c in cells))

    drawn = jax.jit(jax.vmap(draw, out_axes=1))(jax.random.split(k_cells, config.num_seeds))

    def per_run(leaf: jax.Array) -> jax.Array:
        shape = len(starts), *by_rate, *leaf.shape[2:]
        return jnp.broadcast_to(leaf[:, None], shape).reshape(-1, *leaf.shape[2:])

    return runs._replace(params={**runs.params, "cell": jax.tree.map(per_run, drawn)})


def _train(config: Config, spec: str, task: "Task", activation: str) -> "xarray.Dataset":
    """All starts of one activation on one task, side by side."""
    cell = rnn(task.input_size, config.hidden_size, activation=activation)
    clipping = resolve_clipping(f"global_norm(threshold={config.clip})")
    training = Training(cell, task, resolve_optimiser("adam"), clipping=clipping,
                        batch_size=config.batch_size)  # fmt: skip
    schedule = Schedule(config.num_updates, config.eval_every, early_stop=False)
    probing = Probing(("log_norms",), jax.random.fold_in(jax.random.key(config.seed), 2))
    moduli, singular, norms, metrics = [], [], {}, {}
    source = fresh_sequences(training, _begin(config, training, activation))
    for progress in fit(source, schedule):
        W_h = np.asarray(progress.state.params["cell"]["W_h"], np.float64)
        moduli.append(_of_finite(_moduli, W_h))
        singular.append(_of_finite(partial(np.linalg.svd, compute_uv=False), W_h))
        if progress.update in (0, config.early, config.num_updates):
            found = probe(cell, task, progress.state.params, probing)["log_norms"]
            norms[progress.update] = found[:, ::-1]
        metrics = progress.metrics
    return _dataset(config, (spec, task, activation), metrics, {
        "log_norm": (("look", "lag"), np.stack(list(norms.values())), {"units": "nats"}),
        "modulus": (("update", "index"), np.stack(moduli), {"of": "eigenvalues of W_h"}),
        "singular": (("update", "index"), np.stack(singular), {"of": "W_h"}),
    })  # fmt: skip


def _moduli(matrices: np.ndarray) -> np.ndarray:
    return np.sort(np.abs(np.linalg.eigvals(matrices)), axis=-1)[..., ::-1]


def _of_finite(values: Any, matrices: np.ndarray) -> np.ndarray:
    """The values of each matrix; NaN for one of a run that died."""
    finite = np.isfinite(matrices).all(axis=(-2, -1))
    found = np.full(matrices.shape[:-1], np.nan)
    found[finite] = values(matrices[finite])
    return found


def _dataset(
    config: Config,
    labels: tuple[str, "Task", str],
    metrics: dict[str, np.ndarray],
    found: dict[str, tuple],
) -> "xarray.Dataset":
    import xarray

    spec, task, activation = labels
    shape = len(config.starts), len(config.learning_rates), config.num_seeds

    def by_run(values: np.ndarray) -> np.ndarray:
        """(time, run, ...) -> (task, activation, start, rate, run, time, ...)."""
        return np.moveaxis(values.reshape(len(values), *shape, *values.shape[2:]), 0, 3)[None, None]

    runs = ("task", "activation", "start", "rate", "run")
    measured = {
        name: ((*runs, *dims), by_run(values), attributes)
        for name, (dims, values, attributes) in found.items()
    }
    curves = {name: ((*runs, "update"), by_run(metrics[name])) for name in ("loss", "accuracy")}
    per_task = {"baseline": task.baseline, "num_steps": task.num_steps, "loss_kind": task.loss}
    return xarray.Dataset(
        {**curves, **measured, **{name: ("task", [value]) for name, value in per_task.items()}},
        coords={
            "task": [spec],
            "activation": [activation],
            "start": list(config.starts),
            "rate": list(config.learning_rates),
            "update": ("update", np.arange(0, config.num_updates + 1, config.eval_every)),
            "look": ("look", [0, config.early, config.num_updates], {"units": "updates"}),
            "lag": ("lag", np.arange(task.num_steps + 1), {"units": "steps"}),
        },
    )


def at_best_rate(dataset: "xarray.Dataset") -> "xarray.Dataset":
    """Each start at the learning rate of the smallest final loss, by the median over seeds."""
    final = dataset.loss.isel(update=-1, drop=True).fillna(np.inf).median("run")
    return dataset.isel(rate=final.argmin("rate"))


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Norms against the lag, before and along training; learning curves; spectra of W_h."""
    from matplotlib.figure import Figure

    dataset = at_best_rate(dataset)
    activations = [str(name) for name in dataset.activation.values]
    tasks = [str(name) for name in dataset.task.values]
    fig = Figure(figsize=(7.0, 2.1 * len(activations) + 4.0))
    rows = *(1.0 for _ in activations), 1.8
    *upper, lower = fig.subfigures(len(rows), 1, height_ratios=rows, squeeze=False)[:, 0]
    for row, activation in zip(upper, activations, strict=True):
        data = dataset.sel(activation=activation, task=tasks[0])
        panels = row.subplots(1, dataset.sizes["look"], sharey=True)
        for ax, update in zip(panels, dataset["look"].values, strict=True):
            _draw_norms(ax, data.sel(look=update))
            when = f"after {update} updates" if update else "at birth"
            ax.set_title(f"{activation}, {when}")
        panels[0].set_ylabel(r"$\log_{10}\,\|\partial h_T/\partial h_k\|$")
    pairs = [(task, name) for task in tasks for name in activations]
    losses, radii = lower.subplots(2, len(pairs), sharex=True, squeeze=False)
    for above, below, (task, name) in zip(losses, radii, pairs, strict=True):
        _draw_losses(above, dataset.sel(task=task, activation=name))
        _draw_radii(below, dataset.sel(task=task, activation=name))
        above.set_title(f"{task.partition('(')[0]}, {name}")
        below.sharey(radii[0])
    losses[0].set_ylabel("loss")
    radii[0].set_ylabel(r"largest $|\lambda|$ of $W_h$")
    lower.supxlabel("update", fontsize=9)
    handles = upper[0].axes[0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside upper center", ncols=4, handlelength=3.2)
    return fig


def _draw_norms(ax: "Axes", data: "xarray.Dataset") -> None:
    num_steps = int(data.num_steps)
    lags = data.lag[: num_steps + 1]
    for name in data.start.values:
        decades = data.log_norm.sel(start=name, lag=lags) / np.log(10)
        label = str(name).replace("_", " ")
        study.figure.band(ax, lags, decades, "run", label=label, **STARTS[str(name)].look)
    ax.set(xlim=(0, num_steps), ylim=(FLOOR, -FLOOR / 3), xlabel="lag T − k (steps)")


def _draw_losses(ax: "Axes", data: "xarray.Dataset") -> None:
    for name in data.start.values:
        loss = data.loss.sel(start=name)
        study.figure.band(ax, data["update"], loss, "run", **STARTS[str(name)].look)
    baseline = float(data.baseline)
    ax.axhline(baseline, color="#606060", lw=0.8, ls=(0, (1, 2)))
    lowest = min(float(data.loss.min()), baseline / 2)
    ax.set(yscale="log", ylim=(0.8 * lowest, 3 * baseline))
    ax.yaxis.set_minor_formatter("")


def _draw_radii(ax: "Axes", data: "xarray.Dataset") -> None:
    for name in data.start.values:
        radius = data.modulus.sel(start=name).isel(index=0)
        study.figure.band(ax, data["update"], radius, "run", **STARTS[str(name)].look)
    ax.axhline(1, color="#606060", lw=0.6)


def summary(dataset: "xarray.Dataset") -> str:
    """What each start came to, and whether the identity carried its gradient and trained."""
    best = at_best_rate(dataset)
    rows = [
        _row(best.sel(task=task, activation=name, start=start))
        for task in best.task.values
        for name in best.activation.values
        for start in best.start.values
    ]
    return "\n".join([study.table(rows), *_verdicts(best)])


def _row(data: "xarray.Dataset") -> dict[str, str]:
    decades, last = log_far(data), data.isel(update=-1)
    return {
        "task": str(data.task.values),
        "φ": str(data.activation.values),
        "start": str(data.start.values),
        "rate": f"{float(data.rate):g}",
        "lag": f"{far(data)}",
        "log10 norm there, birth": f"{statistics.estimate(decades[0]):z.1f}",
        "end": f"{statistics.estimate(decades[-1]):z.1f}",
        "largest |λ|, end": f"{statistics.estimate(last.modulus.isel(index=0).values):z.2f}",
        "final loss": f"{statistics.estimate(last.loss.values):z.4f}",
        "correct": f"{statistics.estimate(last.accuracy.values):z.2f}",
    }


def far(data: "xarray.Dataset") -> int:
    """The lag over which the gradient is to be carried, on one task."""
    return int(OVER * int(data.num_steps))


def log_far(data: "xarray.Dataset") -> np.ndarray:
    """log10 ‖∂h_T/∂h_k‖ at that lag, of one start on one task, (look, run)."""
    norms = data.log_norm.sel(lag=far(data))
    return norms.transpose("look", "run").values / math.log(10)


def carried(decades: np.ndarray) -> bool:
    """Whether norms, given by their log10 in each seed, are about 1 in the mean."""
    return bool(abs(np.mean(decades)) <= math.log10(KEPT))


def gains(data: "xarray.Dataset", start: str) -> dict[str, statistics.Estimate]:
    """log(final loss of a start / that of each start that is not the identity), over seeds.

    The runs of a seed have the same sequences, and are compared with each other.
    """
    loss = np.log(data.loss.isel(update=-1))
    others = [str(name) for name in data.start.values if not STARTS[str(name)].is_identity]
    ratios = {name: (loss.sel(start=start) - loss.sel(start=name)).values for name in others}
    return {name: statistics.estimate(ratio) for name, ratio in ratios.items()}


def _verdicts(best: "xarray.Dataset") -> list[str]:
    """The verdicts on the irnn with ReLU, if it is there."""
    if "irnn" not in best.start.values or "relu" not in best.activation.values:
        return []
    lines = []
    for task in best.task.values:
        data = best.sel(task=task, activation="relu")
        decades = log_far(data.sel(start="irnn"))
        born, trained = carried(decades[0]), carried(decades[-1])
        lines.append(
            f"{task}: the identity carries the gradient over {far(data)} steps at birth: "
            f"{study.verdict(born)}; after {int(data['update'][-1])} updates: "
            f"{study.verdict(trained)}"
        )
        ratios = gains(data, "irnn")
        if not ratios:
            continue
        nearest = max(ratios, key=lambda name: ratios[name].value)
        holds = all(ratio.high < 0 for ratio in ratios.values())
        lines.append(
            f"{task}: it learns what the other starts do not: {study.verdict(holds)} (its loss is "
            f"{ratios[nearest].map(np.exp):.2f} of that of the best other, {nearest})"
        )
    return lines


EXPERIMENT = study.Experiment(
    name="identity_init",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    section="training",
    order=4,
    gallery={"identity_init": study.Picture()},
    quick={
        "tasks": "adding(num_steps=8)",
        "starts": ("irnn", "orthogonal", "critical"),
        "hidden_size": 5,
        "batch_size": 4,
        "num_updates": 20,
        "eval_every": 5,
        "early": 10,
        "num_seeds": 2,
    },
    full={
        "tasks": "adding(num_steps=100),digits",
        "hidden_size": 64,
        "learning_rates": (0.0003, 0.001, 0.003),
        "num_updates": 4000,
        "eval_every": 100,
    },
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
