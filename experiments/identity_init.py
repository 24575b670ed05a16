"""Initialised at the identity, a ReLU network carries its gradient and learns what others do not.

Plain networks h_t = φ(W_x x_t + W_h h_{t-1} + b), φ ReLU or tanh, that differ in how W_h starts::

    irnn             W_h = I, with W_x ~ N(0, 0.001²): the paper's
    identity         W_h = I, with W_x from LeCun's law, as all others have it
    scaled_identity  W_h = 0.01 I: the paper's, for tasks without long dependencies
    orthogonal       uniform among the orthogonal matrices
    glorot           U(±√(3/n))
    sparse           15 connections a unit, spectral radius 0.95
    critical         N(0, σ²/n) on the line of mean-field theory: σ = √2 for ReLU, 1 for tanh

Measured are the norm ‖∂h_T/∂h_k‖ against the lag at initialisation and after some updates, learning
curves on the adding problem and on digits read pixel by pixel, and the moduli of the eigenvalues of
W_h along training. Three claims about the irnn with ReLU, on each task: its norm over nine tenths
of the steps lies within 0.1 and 10 at initialisation; so it does after the training, both by the
95 % interval over seeds of the mean log; and its final loss is below that of every start that is
not the identity, by the 95 % interval of the log ratio. (The first tenth of the steps is left out,
because images begin blank: where W_x x_t = 0 and h = 0, ReLU has slope 0 and the norm is exactly
0.)

Source: Le, Jaitly, Hinton 2015, arXiv:1504.00941; Saxe, McClelland, Ganguli 2014, arXiv:1312.6120
(orthogonal); Chen, Pennington, Schoenholz 2018, arXiv:1806.05394 (critical).

    python experiments/identity_init.py
    python experiments/identity_init.py --full
    python experiments/identity_init.py --activations=relu --tasks='adding(num_steps=100)'

Takes about two minutes on two cores at the defaults, where all starts have one learning rate, and
an hour, by estimate, with ``--full``, where each has the best of three.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _kit import curves, decisions, fields, outcomes, runs, trained

from gradflow import statistics, study
from gradflow.cells import rnn
from gradflow.initializers.meanfield import ACTIVATIONS
from gradflow.spec import check_name, split_specs
from gradflow.tasks import resolve_task
from gradflow.train import Probing, Runs, Schedule, Training, resolve_clipping, resolve_optimiser
from gradflow.train.probes import probe

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradflow.tasks import Task

KEPT = 10.0
"""The factor of 1, to either side, within which a norm counts as carried."""

OVER = 0.9
"""The fraction of the steps over which the gradient is to be carried."""

FLOOR = -12
"""The log10 norm at the lower edge of a panel."""


class Start(NamedTuple):
    """How a network is initialised.

    Attributes:
      recurrent: The initialiser of W_h; ``{activation}`` stands for the network's own.
      color: Of its lines.
      linestyle: Of its lines.
      input: The initialiser of W_x.
      is_identity: Whether W_h is the identity, unscaled.
    """

    recurrent: str
    color: str
    linestyle: Any
    input: str = "lecun"
    is_identity: bool = False

    @property
    def look(self) -> dict[str, Any]:
        """The style of its lines."""
        return {"color": self.color, "linestyle": self.linestyle}


STARTS = {
    "irnn": Start("identity", "#0072B2", "-", "normal(std=0.001)", True),
    "identity": Start("identity", "#56B4E9", (0, (5, 1)), is_identity=True),
    "scaled_identity": Start("scaled_identity", "#999999", ":"),
    "orthogonal": Start("orthogonal", "#D55E00", "-."),
    "glorot": Start("glorot", "#009E73", "--"),
    "sparse": Start("sparse", "#CC79A7", (0, (3, 1, 1, 1, 1, 1))),
    "critical": Start("critical(activation={activation!r})", "#000000", (0, (1, 1))),
}


@dataclass(frozen=True)
class Config(study.Config):
    """Which networks start where, and what they learn."""

    num_seeds: int = fields.num_seeds(5)
    precision: Literal["float64", "float32"] = fields.training_precision()
    starts: tuple[str, ...] = study.field(
        tuple(STARTS),
        help="Of irnn, identity, scaled_identity, orthogonal, glorot, sparse, critical.",
    )
    activations: tuple[str, ...] = study.field(
        ("relu", "tanh"), help="Of relu, tanh, identity and sigmoid."
    )
    tasks: str = fields.tasks("adding(num_steps=50),digits")
    hidden_size: int = fields.hidden_size(32)
    learning_rates: tuple[float, ...] = study.field(
        (0.001,), help="Learning rates of Adam; each start is shown at its best one.", positive=True
    )
    clip: float = study.field(1.0, help="Largest global norm of a gradient.", positive=True)
    batch_size: int = fields.batch_size()
    num_updates: int = fields.num_updates(1000)
    eval_every: int = fields.eval_every(50)
    early: int = study.field(
        100,
        help="Update after which norms are measured, as at initialisation and at the end.",
        positive=True,
    )

    @property
    def schedule(self) -> Schedule:
        """How long, and when there is an evaluation."""
        return Schedule(self.num_updates, self.eval_every, early_stop=False)

    @property
    def measured_at(self) -> list[int]:
        """The updates after which norms are measured."""
        return [0, self.early, self.num_updates]


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
        raise ValueError(f"Expected the name of a task, got {config.tasks!r}. Try adding.")
    for names, kind, known in (
        (config.starts, "start", STARTS),
        (config.activations, "activation of mean-field theory", ACTIVATIONS),
    ):
        if not names:
            raise ValueError(f"Expected at least one {kind}, got none. Try {next(iter(known))}.")
        for name in names:
            check_name(kind, name, known)
    _ = config.schedule  # numbers that do not divide are reported before anything is trained
    if config.early % config.eval_every or config.early >= config.num_updates:
        raise ValueError(
            f"Expected --early to be a multiple of eval_every={config.eval_every} below "
            f"num_updates={config.num_updates}, got {config.early}. Try {config.eval_every}."
        )


def _begin(config: Config, training: Training, activation: str) -> Runs:
    """The runs, by start, learning rate and seed; a seed has the same sequences in all of them."""
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
    by_start = runs.initialise_each(cells, jax.random.split(k_cells, config.num_seeds))
    rates = config.learning_rates

    def per_run(leaf: jax.Array) -> jax.Array:
        shape = len(starts), len(rates), *leaf.shape[1:]
        return jnp.broadcast_to(leaf[:, None], shape).reshape(-1, *leaf.shape[2:])

    keys = jax.random.split(k_runs, config.num_seeds)
    settings = [(rate,) for _ in starts for rate in rates]
    return trained.begin(training, keys, settings, jax.tree.map(per_run, by_start))


def _train(config: Config, spec: str, task: "Task", activation: str) -> "xarray.Dataset":
    """All starts of one activation on one task, side by side."""
    training = Training(
        rnn(task.input_size, config.hidden_size, activation=activation),
        task,
        resolve_optimiser("adam"),
        clipping=resolve_clipping(f"global_norm(threshold={config.clip})"),
        batch_size=config.batch_size,
    )
    probing = Probing(("log_norms",), jax.random.fold_in(jax.random.key(config.seed), 2))
    moduli, singular, norms, metrics = [], [], [], {}
    begun = _begin(config, training, activation)
    for progress in trained.evaluations(training, begun, config.schedule):
        W_h = np.asarray(progress.state.params["cell"]["W_h"], np.float64)
        moduli.append(_of_finite(_moduli, W_h))
        singular.append(_of_finite(partial(np.linalg.svd, compute_uv=False), W_h))
        if progress.update in config.measured_at:
            found = probe(training.cell, task, progress.state.params, probing)["log_norms"]
            norms.append(found[:, ::-1])
        metrics = progress.metrics
    found = {
        **{name: (("update",), metrics[name], {}) for name in ("loss", "accuracy")},
        "log_norm": (("measured_at", "lag"), np.stack(norms), {"units": "nats"}),
        "modulus": (("update", "index"), np.stack(moduli), {"of": "eigenvalues of W_h"}),
        "singular": (("update", "index"), np.stack(singular), {"of": "W_h"}),
    }
    return _dataset(config, found, task).expand_dims(task=[spec], activation=[activation])


def _moduli(matrices: np.ndarray) -> np.ndarray:
    return np.sort(np.abs(np.linalg.eigvals(matrices)), axis=-1)[..., ::-1]


def _of_finite(values: Any, matrices: np.ndarray) -> np.ndarray:
    """The values of each matrix; NaN for one of a run that died."""
    finite = np.isfinite(matrices).all(axis=(-2, -1))
    found = np.full(matrices.shape[:-1], np.nan)
    found[finite] = values(matrices[finite])
    return found


def _dataset(config: Config, found: dict[str, Any], task: "Task") -> "xarray.Dataset":
    """The arrays (time, run, ...) by start, learning rate and seed."""
    import xarray

    sizes = {
        "start": len(config.starts),
        "rate": len(config.learning_rates),
        "run": config.num_seeds,
    }
    measured = {
        name: ((*sizes, *dims), trained.by_setting(values, list(sizes.values())), attributes)
        for name, (dims, values, attributes) in found.items()
    }
    about = {"baseline": task.baseline, "num_steps": task.num_steps, "loss_kind": task.loss}
    return xarray.Dataset(
        {**measured, **about},
        coords={
            "start": list(config.starts),
            "rate": list(config.learning_rates),
            "update": ("update", config.schedule.evaluations, {"units": "updates"}),
            "measured_at": ("measured_at", config.measured_at, {"units": "updates"}),
            "lag": ("lag", np.arange(task.num_steps + 1), {"units": "steps"}),
        },
    )


def at_best_rate(dataset: "xarray.Dataset") -> "xarray.Dataset":
    """Selects for each start the learning rate of the smallest final loss, by the median."""
    final = dataset.loss.isel(update=-1, drop=True).fillna(np.inf).median("run")
    return dataset.isel(rate=final.argmin("rate"))


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Norms against the lag, before and along training; learning curves; spectra of W_h."""
    from matplotlib.figure import Figure

    dataset = at_best_rate(dataset)
    activations = [str(name) for name in dataset.activation.values]
    fig = Figure(figsize=(7.0, 2.1 * len(activations) + 4.0))
    heights = *(1.0 for _ in activations), 1.8
    *upper, lower = fig.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for row, activation in zip(upper, activations, strict=True):
        _draw_row(row, dataset.sel(activation=activation).isel(task=0))
    _draw_training(lower, dataset)
    handles = upper[0].axes[0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside upper center", ncols=4, handlelength=3.2)
    return fig


def _draw_row(row: Any, data: "xarray.Dataset") -> None:
    panels = row.subplots(1, data.sizes["measured_at"], sharey=True)
    for ax, update in zip(panels, data["measured_at"].values, strict=True):
        _draw_norms(ax, data.sel(measured_at=update))
        when = f"after {update} updates" if update else "at initialisation"
        ax.set_title(f"{data.activation.values}, {when}")
    panels[0].set_ylabel(curves.NORM)


def _draw_training(part: Any, dataset: "xarray.Dataset") -> None:
    """A column for each task and activation: the losses, and the spectral radius below them."""
    pairs = [(task, name) for task in dataset.task.values for name in dataset.activation.values]
    losses, radii = part.subplots(2, len(pairs), sharex=True, squeeze=False)
    for above, below, (task, name) in zip(losses, radii, pairs, strict=True):
        data = dataset.sel(task=task, activation=name)
        _draw_losses(above, data)
        for start, look in _looks(data):
            radius = data.modulus.sel(start=start).isel(index=0)
            study.figure.band(below, data["update"], radius, "run", **look)
        below.axhline(1, color="#606060", lw=0.6)
        above.set_title(f"{str(task).partition('(')[0]}, {name}")
        below.sharey(radii[0])
    losses[0].set_ylabel("loss")
    radii[0].set_ylabel(r"largest $|\lambda|$ of $W_h$")
    part.supxlabel("update", fontsize=9)


def _looks(data: "xarray.Dataset") -> Iterator[tuple[str, dict[str, Any]]]:
    for name in map(str, data.start.values):
        yield name, STARTS[name].look


def _draw_norms(ax: "Axes", data: "xarray.Dataset") -> None:
    num_steps = int(data.num_steps)
    lags = data.lag[: num_steps + 1]
    for name, look in _looks(data):
        label = name.replace("_", " ")
        curves.draw_norms(ax, lags, data.log_norm.sel(start=name, lag=lags), label=label, **look)
    ax.set(xlim=(0, num_steps), ylim=(FLOOR, -FLOOR / 3), xlabel=curves.LAG)


def _draw_losses(ax: "Axes", data: "xarray.Dataset") -> None:
    for name, look in _looks(data):
        study.figure.band(ax, data["update"], data.loss.sel(start=name), "run", **look)
    baseline = float(data.baseline)
    lowest = min(float(data.loss.min()), baseline / 2)
    outcomes.draw_losses(ax, baseline, xlabel="", ylim=(0.8 * lowest, 3 * baseline))
    ax.yaxis.set_minor_formatter("")


def summary(dataset: "xarray.Dataset") -> str:
    """A table of all starts, each at its best learning rate."""
    best = at_best_rate(dataset)
    return study.table(
        [
            _row(best.sel(task=task, activation=name, start=start))
            for task in best.task.values
            for name in best.activation.values
            for start in best.start.values
        ]
    )


def _row(data: "xarray.Dataset") -> dict[str, str]:
    norms, last = log10_norms(data), data.isel(update=-1)
    return {
        "task": str(data.task.values),
        "φ": str(data.activation.values),
        "start": str(data.start.values),
        "rate": f"{float(data.rate):g}",
        "lag": f"{longest_lag(data)}",
        "log10 norm, initialisation": f"{statistics.estimate(norms[0]):z.1f}",
        "trained": f"{statistics.estimate(norms[-1]):z.1f}",
        "largest |λ|, trained": f"{statistics.estimate(last.modulus.isel(index=0)):z.2f}",
        "final loss": f"{statistics.estimate(last.loss):z.4f}",
        "accuracy": f"{statistics.estimate(last.accuracy):z.2f}",
    }


def longest_lag(data: "xarray.Dataset") -> int:
    """Gives the lag over which the gradient is to be carried, on one task."""
    return int(OVER * int(data.num_steps))


def log10_norms(data: "xarray.Dataset") -> np.ndarray:
    """Gives log10 ‖∂h_T/∂h_k‖ at that lag, of one start on one task, (measured_at, run)."""
    norms = data.log_norm.sel(lag=longest_lag(data))
    return norms.transpose("measured_at", "run").values / curves.NATS


def log_ratios(data: "xarray.Dataset", start: str) -> dict[str, statistics.Estimate]:
    """Estimates log(final loss of a start / that of each start that is not the identity).

    The runs of a seed have the same sequences, and are compared with each other.
    """
    loss = np.log(data.loss.isel(update=-1))
    others = [name for name in map(str, data.start.values) if not STARTS[name].is_identity]
    ratios = {name: (loss.sel(start=start) - loss.sel(start=name)).values for name in others}
    return {name: statistics.estimate(ratio) for name, ratio in ratios.items()}


def claims(dataset: "xarray.Dataset") -> list[study.Claim]:
    """Whether the irnn with ReLU, if it was trained, carries its gradient and learns more."""
    best = at_best_rate(dataset)
    if "irnn" not in best.start.values or "relu" not in best.activation.values:
        return []
    by_task = [best.sel(task=task, activation="relu") for task in best.task.values]
    return [claim for data in by_task for claim in _of_task(data)]


def _of_task(data: "xarray.Dataset") -> list[study.Claim]:
    when = {"at initialisation": 0, f"after {int(data['update'][-1])} updates": -1}
    ratios = log_ratios(data, "irnn")
    return [
        *(_carries(data, name, at) for name, at in when.items()),
        *([_learns(data, ratios)] if ratios else []),
    ]


def _carries(data: "xarray.Dataset", when: str, at: int) -> study.Claim:
    task, lag = str(data.task.values), longest_lag(data)
    norm = statistics.estimate(log10_norms(data.sel(start="irnn"))[at])
    stage = "carries-trained" if at else "carries-initialised"
    room = float(np.log10(KEPT))
    return study.claim(
        decisions.identifier(stage, task),
        f"On {task} ReLU with W_h = I carries its gradient over {lag} steps {when}.",
        decisions.within(norm, -room, room),
        measured=study.Measured.of(f"log10 norm at lag {lag}", norm),
        criterion=f"the 95 % interval of the mean log10 norm lies within ±{room:g}",
    )


def _learns(data: "xarray.Dataset", ratios: dict[str, statistics.Estimate]) -> study.Claim:
    task = str(data.task.values)
    return study.claim(
        decisions.identifier("learns-what-others-do-not", task),
        f"ReLU with W_h = I learns {task} better than from any start that is not the identity.",
        decisions.every(map(decisions.below, ratios.values())),
        measured=[
            study.Measured.of(f"final loss over that of {name}", ratio.map(np.exp))
            for name, ratio in ratios.items()
        ],
        criterion="its final loss is below that of each of them, by the 95 % interval of the ratio",
    )


EXPERIMENT = study.Experiment(
    name="identity_init",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
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
