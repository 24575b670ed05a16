"""Whether, and how fast, a recurrent net learns a task, with its gradient flow in view.

Trains each cell, with a linear readout, at every learning rate from every seed, side by side in
one compiled program, and at every threshold of the clipping if they are swept. The loss and the
share of sequences that are processed correctly are those of fresh sequences; the task counts as
solved at the first evaluation at which that share reaches the paper's own criterion. Probes
measure the flow along the way: log ‖∂h_T/∂h_k‖, ‖∂L/∂h_k‖, the share of each step in ∂L/∂W_h, the
singular values of ∂h_T/∂h_0, and the saturation of the gates. A run whose loss is no longer finite
is NaN from there on and is counted. The claim: a net learns what its gradient reaches, and
learning changes how far that is.

Source: Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735; Vorontsov, Trabelsi, Kadoury,
Pal 2017, arXiv:1702.00071, Fig. 3 for the maps over update and step.

    python experiments/training.py --cell=gru,lstm --task='adding(num_steps=100)'
    python experiments/training.py --cell=rnn --learning_rate=0.0003,0.001,0.003
    python experiments/training.py --cell=rnn --clipping=global_norm --clip_threshold=0.1,1,10
    python experiments/training.py --cell=gru --probe=adjoints,gates --probe_every=100
    python experiments/training.py --cell=path/to/mine.py:my_cell --task='copy(lag=50)'

Takes about a minute a cell on two cores at the defaults. A killed run goes on from its last
evaluation, unless the file of a cell of your own has changed since then; each cell's folder under
units/ has its metrics.jsonl, checkpoints and timings.jsonl. A cell with dropout or sampled zoneout
draws its noise at every update, and is evaluated and probed without. Clipping of adjoints takes
twice the time of an update: what it does is told from the gradient without it.
"""

import contextlib
import dataclasses
import hashlib
import importlib.util
import itertools
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from _kit import probes, trained

from gradflow import study
from gradflow.cells import resolve
from gradflow.presets import PRESETS, with_preset
from gradflow.spec import parse_spec, split_specs
from gradflow.structure import check_structure
from gradflow.tasks import resolve_task
from gradflow.train.clipping import check_thresholds, resolve_clipping
from gradflow.train.driver import Progress, Schedule, fit
from gradflow.train.optimisers import check_learning_rate, resolve_optimiser
from gradflow.train.probes import Probing, resolve_probes
from gradflow.train.regularisers import resolve_regulariser
from gradflow.train.runs import begin, fresh_sequences
from gradflow.train.tensorboard import Board
from gradflow.train.training import Training

if TYPE_CHECKING:
    from collections.abc import Iterable

    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradflow import Cell

LINESTYLES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Config(study.Config):
    """What is trained on what, and how."""

    num_seeds: int = study.field(5, help="Independent repetitions, vectorised.", positive=True)
    precision: Literal["float64", "float32"] = study.field(
        "float32", help="Precision of the training; probes measure in float64."
    )
    cell: str = study.field(
        "gru",
        help="Cells, separated by commas: a name, name(option=value), path/to/file.py:factory "
        "or package.module:factory.",
    )
    hidden_size: int = study.field(32, help="Hidden units.", positive=True)
    init: str | None = study.field(
        None,
        help="Recurrent initialiser, such as identity or 'normal(radius=0.9)'; or a framework "
        "whose initialisation is taken: torch, keras, flax_linen, flax_nnx, haiku or equinox.",
    )
    task: str = study.field("adding(num_steps=100)", help="The task, a name or name(option=value).")
    optimiser: str = study.field("adam", help="One of optax's, with its options as literals.")
    learning_rate: tuple[float, ...] | None = study.field(
        None,
        help="Learning rates, trained side by side; by default the optimiser's.",
        positive=True,
    )
    clipping: str = study.field(
        "none",
        help="none, global_norm(threshold=1), per_leaf, value, pascanu(factor=1), agc, adjoint or "
        "normalise, each with options.",
    )
    clip_threshold: tuple[float, ...] | None = study.field(
        None,
        help="Thresholds of the clipping (the clipping of agc, factor of pascanu, size of "
        "normalise), trained side by side; by default the clipping's own.",
        positive=True,
    )
    regulariser: str | None = study.field(
        None, help="What is added to the loss: omega(weight=1) or flossing(weight=1)."
    )
    truncation: tuple[int, ...] | None = study.field(
        None, help="k1,k2 of truncated backpropagation; none for the full gradient.", positive=True
    )
    batch_size: int = study.field(32, help="Sequences an update.", positive=True)
    num_updates: int = study.field(1500, help="The most updates of a run.", positive=True)
    eval_every: int = study.field(100, help="Updates between two evaluations.", positive=True)
    eval_size: int = study.field(256, help="Fresh sequences an evaluation.", positive=True)
    early_stop: bool = study.field(True, help="Whether to stop when all runs solved it or died.")
    tensorboard: bool = study.field(False, help="Whether to write event files for TensorBoard.")
    probe: str = probes.flag()
    probe_every: int | None = probes.every_flag()
    probe_sequences: int = study.field(4, help="Sequences that are probed.", positive=True)


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Trains each cell; dimensions cell, learning_rate, seed, update, and those of the probes."""
    import xarray

    specs = split_specs(config.cell)
    if not specs:
        raise ValueError(f"the name of a cell is expected, got {config.cell!r}; try gru")
    trainings = {spec: _training(spec, config) for spec in specs}
    _schedule(config)  # before anything is written, so that bad numbers are said at once
    names = {spec: f"cell={spec}" for spec in specs}
    parts = [
        _unchanged(spec, once(name, partial(_train, config, spec, trainings[spec], folder)))
        for spec, name in names.items()
        for folder in [partial(once.folder, name)]
    ]
    return xarray.concat(parts, dim="cell", join="outer", coords="minimal")


def _schedule(config: Config) -> Schedule:
    return Schedule(config.num_updates, config.eval_every, config.probe_every, config.early_stop)


def learning_rates(config: Config) -> tuple[float, ...]:
    """The learning rates that are tried: those given, or the one of the optimiser.

    Raises:
      ValueError: If there is one in the optimiser's options as well.
    """
    optimiser = resolve_optimiser(config.optimiser)
    if config.learning_rate is None:
        return (optimiser.learning_rate,)
    if "learning_rate" in parse_spec(config.optimiser)[1]:
        raise ValueError(
            f"one learning rate is expected, got --learning_rate and {config.optimiser!r}: "
            "leave it out of the optimiser"
        )
    return tuple(dict.fromkeys(map(check_learning_rate, config.learning_rate)))


def thresholds(config: Config) -> tuple[float, ...]:
    """The thresholds of the clipping that are tried: those given, or its own.

    Raises:
      ValueError: If there is one in the clipping's options as well, or it takes none.
    """
    if config.clip_threshold is None:
        return (resolve_clipping(config.clipping).threshold,)
    return check_thresholds(config.clipping, config.clip_threshold)


def sources(spec: str) -> dict[str, str]:
    """What a spec's files and modules of users' cells hold: a digest of each, by its place."""
    found = {}
    for place in re.findall(r"([^,'\"(={]+):\w", spec):
        place = place.strip()
        module = None if place.endswith(".py") else importlib.util.find_spec(place)
        path = Path(place if module is None else module.origin or "")
        if path.is_file():
            found[place] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return found


def _unchanged(spec: str, part: "xarray.Dataset") -> "xarray.Dataset":
    """Refuses what was trained before a cell's file changed."""
    for place, digest in sources(spec).items():
        if part.attrs.get(f"contents of {place}") != digest:
            raise ValueError(
                f"{spec} is expected to be what was trained, but the contents of {place} have "
                "changed since; --overwrite trains it anew"
            )
    return part


def _training(spec: str, config: Config) -> Training:
    """What is to be trained, all of it checked before anything is."""
    learning_rates(config)
    thresholds(config)
    factory = resolve(spec)

    def make(input_size: int, hidden_size: int) -> "Cell":
        if config.init in PRESETS:
            return with_preset(factory(input_size, hidden_size), config.init)
        given = {} if config.init is None else {"recurrent_init": config.init}
        return factory(input_size, hidden_size, **given)

    check_structure(make)
    task = resolve_task(config.task)
    cell = make(task.input_size, config.hidden_size)
    resolve_probes(config.probe, cell)
    optimiser = resolve_optimiser(config.optimiser)
    return Training(
        cell,
        task,
        optimiser,
        clipping=resolve_clipping(config.clipping),
        regulariser=resolve_regulariser(config.regulariser) if config.regulariser else None,
        truncation=_truncation(config),
        batch_size=config.batch_size,
        eval_size=config.eval_size,
    )


def _truncation(config: Config) -> tuple[int, int] | None:
    if config.truncation is None:
        return None
    if len(config.truncation) != 2:
        raise ValueError(f"--truncation=k1,k2 is expected, got {config.truncation}; try 20,40")
    k1, k2 = config.truncation
    return k1, k2


def _train(config: Config, spec: str, training: Training, folder: Any) -> "xarray.Dataset":
    settings = jnp.asarray(list(itertools.product(learning_rates(config), thresholds(config))))
    # A seed draws the same parameters and sequences in every setting.
    k_runs, k_probe = (jax.random.fold_in(jax.random.key(config.seed), i) for i in range(2))
    keys = jnp.tile(jax.random.split(k_runs, config.num_seeds), len(settings))
    runs = begin(training, keys, *jnp.repeat(settings, config.num_seeds, axis=0).T)
    names = resolve_probes(config.probe, training.cell)
    probing = Probing(names, k_probe, config.probe_sequences) if names else None
    files = {f"contents of {file}": digest for file, digest in sources(spec).items()}
    place, identity = folder(), {**dataclasses.asdict(config), "cell": spec, **files}
    source = fresh_sequences(training, runs, probing)
    steps = fit(source, _schedule(config), folder=place, identity=identity)
    steps = study.progress(steps, f"{spec}, evaluations")
    last = _shown(steps, place if config.tensorboard else None)
    return _dataset(config, spec, training, last).assign_attrs(files)


def _shown(steps: "Iterable[Progress]", folder: "Path | None") -> Progress:
    """Goes through a training to its end, and writes its metrics for TensorBoard if it is to."""
    steps = iter(steps)
    first = last = next(steps)
    with contextlib.nullcontext() if folder is None else Board(folder, first.update) as board:
        for last in itertools.chain([first], steps):
            if board is not None:
                board.show(last)
    return last


def _dataset(config: Config, spec: str, training: Training, progress: Progress) -> "xarray.Dataset":
    import xarray

    task, schedule = training.task, _schedule(config)
    swept = {"learning_rate": list(learning_rates(config))}
    if config.clip_threshold is not None:
        swept["clip_threshold"] = list(thresholds(config))
    lengths = {name: len(values) for name, values in swept.items()}
    sizes = {"cell": 1, **lengths, "seed": config.num_seeds}
    measured = {
        name: trained.by_setting(array, list(sizes.values()))
        for name, array in progress.probes.items()
    }
    probed = probes.variables(measured, (*sizes, "probe_update"))
    metrics = trained.curves(progress, list(progress.metrics), sizes)
    return xarray.Dataset(
        {**metrics, **probed, **trained.events(progress, sizes)},
        coords={
            "cell": [spec],
            **swept,
            "seed": np.arange(config.num_seeds),
            "update": ("update", schedule.evaluations, {"units": "updates"}),
            **({"probe_update": schedule.probings} if probed else {}),
            **({"step": np.arange(task.num_steps + 1)} if probed else {}),
            **probes.coordinates(measured),
        },
        attrs={
            "task": config.task,
            "loss_kind": task.loss,
            "baseline": task.baseline,
            "success": task.success,
        },
    )


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Loss and share of correct sequences against the update; below them a map for each probe."""
    from matplotlib.figure import Figure

    cells = [str(cell) for cell in dataset.cell.values]
    maps = probes.rows(dataset)
    heights = (4.6, *(probes.ROW_HEIGHT for _ in maps))
    fig = Figure(figsize=(5.2, sum(heights)))
    top, *rows = fig.subfigures(1 + len(maps), 1, height_ratios=heights, squeeze=False)[:, 0]
    upper, lower = top.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for index, cell in enumerate(cells):
        settings = _settings(dataset.sel(cell=cell))
        for number, data in enumerate(settings):
            look = study.figure.cell_style(parse_spec(cell)[0], index)
            if len(settings) > 1:
                look["linestyle"] = LINESTYLES[number % len(LINESTYLES)]
            label = ", ".join([cell, *(f"{float(data[name]):g}" for name in _swept(data))])
            _draw_curves(upper, lower, data, {**look, "label": label})
    upper.axhline(dataset.attrs["baseline"], color="black", lw=0.8, ls=(0, (1, 1)))
    loss = {"squared": "squared error", "cross_entropy": "cross-entropy (nats)"}
    upper.set(
        yscale="log",
        ylabel=loss[dataset.attrs["loss_kind"]],
        title=f"{dataset.attrs['task']}: median and 10–90 % over seeds;\n"
        "dotted: without memory, and counted as solved; star: solved",
    )
    titles = "cell", *(name.replace("_", " ") for name in _swept(dataset))
    upper.legend(title=", ".join(titles), title_fontsize=8)
    lower.axhline(dataset.attrs["success"], color="black", lw=0.8, ls=(0, (1, 1)))
    lower.set(xlabel="update", ylabel="share correct", ylim=(-0.03, 1.03))
    for row, (name, gate) in zip(rows, maps, strict=True):
        probes.draw(row, _images(dataset, name, gate), name, gate)
    if rows:
        rows[-1].supxlabel("update", fontsize=9)
    return fig


def _draw_curves(upper: "Axes", lower: "Axes", data: "xarray.Dataset", look: dict) -> None:
    line = study.figure.band(upper, data["update"], data.loss, "seed", **look)
    study.figure.band(lower, data["update"], data.accuracy, "seed", **look)
    solved = data.solved_at.values
    if np.isfinite(solved).any():
        at = float(np.nanquantile(solved, 0.5, method="lower"))
        height = float(data.loss.sel(update=at).median("seed"))
        upper.plot([at], [height], marker="*", ms=10, color=line.get_color(), mec="black", mew=0.5)


def _images(dataset: "xarray.Dataset", name: str, gate: str | None) -> dict[str, Any]:
    """The map of each cell, in its best setting, by its title."""
    found = {}
    for cell in map(str, dataset.cell.values):
        data = _best(dataset.sel(cell=cell))
        found[f"{cell}, {float(data.learning_rate):g}"] = probes.image(data, name, gate)
    return found


def _best(data: "xarray.Dataset") -> "xarray.Dataset":
    """The setting of a cell that solved the most and then erred the least."""
    rank = [(_final(d)["solved"], -_final(d)["loss"]) for d in _settings(data)]
    best = max(range(len(rank)), key=lambda i: np.nan_to_num(rank[i], nan=-np.inf).tolist())
    return _settings(data)[best]


def _swept(data: "xarray.Dataset") -> list[str]:
    return [name for name in ("learning_rate", "clip_threshold") if name in data.coords]


def _settings(data: "xarray.Dataset") -> "list[xarray.Dataset]":
    """One for each learning rate, and for each threshold of them if they were swept."""
    names = _swept(data)
    places = itertools.product(*(range(data.sizes[name]) for name in names))
    return [data.isel(dict(zip(names, at, strict=True))) for at in places]


def _final(data: "xarray.Dataset") -> dict[str, float]:
    """What the seeds of one cell in one setting came to."""
    alive, solved_at = np.isnan(data.died_at.values), data.solved_at.values
    loss = data.loss.transpose("seed", "update").values[alive]
    reached = np.flatnonzero(np.isfinite(loss).any(axis=0))
    return {
        "solved": float(np.isfinite(solved_at).mean()),
        "updates": float(np.nanmedian(solved_at)) if np.isfinite(solved_at).any() else np.nan,
        "loss": float(np.median(loss[:, reached[-1]])) if len(reached) else np.nan,
        "dead": int((~alive).sum()),
    }


def summary(dataset: "xarray.Dataset") -> str:
    """The table of what each cell came to in each setting."""
    return study.table(
        [
            _row(str(cell), data)
            for cell in dataset.cell.values
            for data in _settings(dataset.sel(cell=cell))
        ]
    )


def _row(cell: str, data: "xarray.Dataset") -> dict[str, str]:
    final, seeds = _final(data), data.sizes["seed"]
    return {
        "cell": cell,
        **{name.replace("_", " "): f"{float(data[name]):g}" for name in _swept(data)},
        "solved": f"{round(final['solved'] * seeds)} of {seeds}",
        "updates to solve": f"{final['updates']:.0f}" if np.isfinite(final["updates"]) else "-",
        "final loss": f"{final['loss']:.4g}",
        "NaN runs": str(final["dead"]),
    }


EXPERIMENT = study.Experiment(
    name="training",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    section="training",
    order=1,
    gallery={
        "training": study.Picture(
            ("--cell=rnn,lstm,gru", "--learning_rate=0.003", "--probe=adjoints,components")
        )
    },
    quick={
        "task": "adding(num_steps=10)",
        "hidden_size": 6,
        "num_seeds": 2,
        "batch_size": 8,
        "num_updates": 60,
        "eval_every": 20,
        "eval_size": 32,
    },
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
