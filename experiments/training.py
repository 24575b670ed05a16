"""A network learns what its gradient reaches, and learning changes how far its gradient reaches.

Trains each cell, with a linear readout, at every learning rate (and every threshold of the
clipping, if they are swept) from every seed, side by side in one compiled program. Loss and
accuracy, the fraction of sequences that are processed correctly, are those of fresh sequences; a
run has solved its task at the first evaluation at which the accuracy reaches the paper's own
criterion. Where several settings are tried, a cell is judged in the one that is best on validation
seeds: most of them solve the task in it, and of equal ones the loss is the smallest. The figure
draws that setting alone where there are more than four. Probes measure the gradient flow along the
way: log ‖∂h_T/∂h_k‖, ‖∂L/∂h_k‖, the contribution of each step to ∂L/∂W_h, the singular values of
∂h_T/∂h_0, the saturation of the gates.

Three claims. Whether a task is learnt depends on the cell: two cells are solved by different
fractions of the seeds. With --probe=adjoints or log_norms: the further the gradient of a cell
reaches at initialisation, by log10 of its norm at step 0 over the largest, the more seeds solve the
task; and training changes that number in every cell. Each is decided by 95 % intervals over seeds.

Source: Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735; Vorontsov, Trabelsi, Kadoury,
Pal 2017, arXiv:1702.00071, Fig. 3 for the maps over update and step.

    python experiments/training.py --cell=gru,lstm --task='adding(num_steps=100)'
    python experiments/training.py --cell=rnn,gru --learning_rate=0.0003,0.001,0.003,0.01,0.03
    python experiments/training.py --cell=rnn --clipping=global_norm --clip_threshold=0.1,1,10
    python experiments/training.py --cell=gru --probe=adjoints,gates --probe_every=100
    python experiments/training.py --cell=path/to/mine.py:my_cell --task='copy(lag=50)'

Takes about a minute a cell on two cores at the defaults. A killed run resumes from its last
evaluation, unless the file of a user's cell has changed since; the folder of each cell under units/
has metrics.jsonl, checkpoints and timings.jsonl. Dropout and sampled zoneout are off in evaluations
and probes. An update with clipping of adjoints takes twice the time, because its effect is computed
from the gradient without it.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import xarray
from _kit import cells, curves, decisions, fields, outcomes, probes, trained

from gradflow import statistics, study
from gradflow.spec import parse_spec
from gradflow.study.figure import Axes, Figure
from gradflow.tasks import resolve_task
from gradflow.train import (
    Probing,
    Progress,
    Schedule,
    Training,
    resolve_clipping,
    resolve_optimiser,
    resolve_probes,
)
from gradflow.train.clipping import check_thresholds
from gradflow.train.optimisers import check_learning_rate
from gradflow.train.tensorboard import Board

LINESTYLES = ("-", "--", ":", "-.")

LOSSES = {"squared": "squared error", "cross_entropy": "cross-entropy (nats)"}


@dataclass(frozen=True)
class Config(study.Config):
    """What is trained on what, and how."""

    num_seeds: int = fields.num_seeds(5)
    num_validation: int = fields.num_validation(2)
    precision: Literal["float64", "float32"] = fields.training_precision()
    cell: str = fields.cell("gru", several=True)
    hidden_size: int = fields.hidden_size(32)
    init: str | None = fields.init()
    task: str = fields.task("adding(num_steps=100)")
    optimiser: str = fields.optimiser("adam")
    learning_rate: tuple[float, ...] | None = fields.positive(
        None, help="Learning rates, trained side by side; by default the optimiser's own."
    )
    clipping: str = study.field(
        "none",
        help="none, global_norm(threshold=1), per_leaf, value, pascanu(factor=1), agc, adjoint or "
        "normalise, each with options.",
    )
    clip_threshold: tuple[float, ...] | None = fields.positive(
        None,
        help="Thresholds of the clipping (the clipping of agc, factor of pascanu, size of "
        "normalise), trained side by side; by default the clipping's own.",
    )
    regulariser: str | None = study.field(
        None, help="Term added to the loss: omega(weight=1) or flossing(weight=1)."
    )
    truncation: tuple[int, ...] | None = fields.positive(
        None, help="k1,k2 of truncated backpropagation; by default the full gradient."
    )
    batch_size: int = fields.batch_size(32)
    num_updates: int = fields.num_updates(1500)
    eval_every: int = fields.eval_every(100)
    eval_size: int = fields.eval_size(256)
    early_stop: bool = study.field(
        True, help="Whether to stop when every run has solved the task or died."
    )
    tensorboard: bool = study.field(False, help="Whether to write event files for TensorBoard.")
    probe: str = probes.flag()
    probe_every: int | None = probes.every_flag()
    probe_sequences: int = fields.positive(4, help="Sequences that the probes use.")


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Trains each cell; dimensions cell, learning_rate, seed, update, and those of the probes."""
    # All is checked before anything is trained, so that bad input is reported at once.
    trainings = {spec: _training(spec, config) for spec in cells.specs(config.cell, "gru")}
    _schedule(config)
    parts = [
        trained.unit(once, f"cell={spec}", _train, config, spec, training)
        for spec, training in trainings.items()
    ]
    return xarray.concat(parts, dim="cell", join="outer", coords="minimal")


def _schedule(config: Config) -> Schedule:
    return Schedule(config.num_updates, config.eval_every, config.probe_every, config.early_stop)


def learning_rates(config: Config) -> tuple[float, ...]:
    """Gives the learning rates to try: those of the flag, or the one of the optimiser.

    Raises:
      ValueError: If there is one in the optimiser's options as well.
    """
    optimiser = resolve_optimiser(config.optimiser)
    if config.learning_rate is None:
        return (optimiser.learning_rate,)
    if "learning_rate" in parse_spec(config.optimiser)[1]:
        raise ValueError(
            f"Expected one learning rate, got --learning_rate and one in {config.optimiser!r}. "
            "Remove it from the optimiser."
        )
    return tuple(dict.fromkeys(map(check_learning_rate, config.learning_rate)))


def thresholds(config: Config) -> tuple[float, ...]:
    """Gives the thresholds of the clipping to try: those of the flag, or the clipping's own.

    Raises:
      ValueError: If there is one in the clipping's options as well, or the clipping has none.
    """
    if config.clip_threshold is None:
        return (resolve_clipping(config.clipping).threshold,)
    return check_thresholds(config.clipping, config.clip_threshold)


def _training(spec: str, config: Config) -> Training:
    """Builds and checks what is to be trained."""
    learning_rates(config)
    thresholds(config)
    task = resolve_task(config.task)
    cell = cells.factory(spec, init=config.init)(task.input_size, config.hidden_size)
    resolve_probes(config.probe, cell)
    specs = {name: getattr(config, name) for name in ("optimiser", "clipping", "regulariser")}
    return trained.setup(config, cell, task, **specs, truncation=_truncation(config))


def _truncation(config: Config) -> tuple[int, int] | None:
    if config.truncation is None:
        return None
    if len(config.truncation) != 2:
        raise ValueError(
            f"Expected --truncation=k1,k2, got {config.truncation}. Try --truncation=20,40."
        )
    k1, k2 = config.truncation
    return k1, k2


def _train(config: Config, spec: str, training: Training, folder: Path | None) -> xarray.Dataset:
    # This study folds 0 into the seed's key before it splits it, which no other does: the recorded
    # trainings began so.
    k_runs, k_probe = (jax.random.fold_in(jax.random.key(config.seed), i) for i in range(2))
    settings = list(itertools.product(learning_rates(config), thresholds(config)))
    number = config.num_seeds + (config.num_validation if len(settings) > 1 else 0)
    runs = trained.begin(training, jax.random.split(k_runs, number), settings)
    names = resolve_probes(config.probe, training.cell)
    steps = trained.evaluations(
        training,
        runs,
        _schedule(config),
        folder=folder,
        identity=trained.identity(config, cell=spec),
        probing=Probing(names, k_probe, config.probe_sequences) if names else None,
        description=f"{spec}, evaluations",
    )
    last = _shown(steps, folder if config.tensorboard else None)
    found = _apart(_dataset(config, training, last, number), config.num_seeds)
    return found.expand_dims(cell=[spec]).assign_attrs(_about(config, training))


def _apart(data: xarray.Dataset, num_seeds: int) -> xarray.Dataset:
    """Keeps of the validation seeds, which follow the others, what they came to."""
    test, other = data.isel(seed=slice(num_seeds)), data.isel(seed=slice(num_seeds, None))
    if not other.sizes["seed"]:
        return test
    final = trained.last_finite(other.loss.transpose(..., "update").values)
    dims = [name if name != "seed" else "validation_seed" for name in other.solved_at.dims]
    return test.assign(
        validation_loss=(dims, np.where(np.isnan(other.died_at), final, np.inf)),
        validation_solved_at=(dims, other.solved_at.values, other.solved_at.attrs),
    )


def _shown(steps: Iterable[Progress], folder: Path | None) -> Progress:
    """Takes a training to its end, and writes its metrics for TensorBoard into the folder."""
    steps = iter(steps)
    first = last = next(steps)
    with contextlib.nullcontext() if folder is None else Board(folder, first.update) as board:
        for last in itertools.chain([first], steps):
            if board is not None:
                board.show(last)
    return last


def _about(config: Config, training: Training) -> dict[str, Any]:
    task = training.task
    return {
        "task": config.task,
        "loss_kind": task.loss,
        "baseline": task.baseline,
        "success": task.success,
    }


def _dataset(
    config: Config, training: Training, progress: Progress, num_runs: int
) -> xarray.Dataset:
    swept: dict[str, list[float]] = {"learning_rate": list(learning_rates(config))}
    if config.clip_threshold is not None:
        swept["clip_threshold"] = list(thresholds(config))
    sizes = {**{name: len(values) for name, values in swept.items()}, "seed": num_runs}
    found = {
        name: trained.by_setting(values, list(sizes.values()))
        for name, values in progress.probes.items()
    }
    schedule = _schedule(config)
    probed, at = probes.record(found, (*sizes, "probe_update"), schedule.probings)
    steps = {"step": np.arange(training.task.num_steps + 1)} if probed else {}
    return xarray.Dataset(
        {
            **trained.curves(progress, list(progress.metrics), sizes),
            **trained.events(progress, sizes),
            **probed,
        },
        coords={
            **swept,
            "seed": np.arange(num_runs),
            "update": ("update", schedule.evaluations, {"units": "updates"}),
            **at,
            **steps,
        },
    )


def figure(dataset: xarray.Dataset) -> Figure:
    """Loss and accuracy against the update; below them a map for each probe."""
    maps = probes.rows(dataset)
    heights = (4.6, *(probes.ROW_HEIGHT for _ in maps))
    fig = study.figure.empty(5.2, sum(heights))
    top, *rows = fig.subfigures(1 + len(maps), 1, height_ratios=heights, squeeze=False)[:, 0]
    upper, lower = top.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for label, data, look in _lines(dataset):
        _draw_curves(upper, lower, data, {**look, "label": label})
    _label(upper, lower, dataset)
    for row, (name, gate) in zip(rows, maps, strict=True):
        probes.draw(row, _images(dataset, name, gate), name, gate)
    if rows:
        rows[-1].supxlabel("update", fontsize=9)
    return fig


def _lines(dataset: xarray.Dataset) -> Iterator[tuple[str, xarray.Dataset, dict[str, Any]]]:
    """Each cell in each setting: its label, its data and its style."""
    for index, cell in enumerate(map(str, dataset.cell.values)):
        settings = _settings(dataset.sel(cell=cell))
        if len(settings) > len(LINESTYLES):
            settings = [_best(dataset.sel(cell=cell))]
        for number, data in enumerate(settings):
            look = study.figure.cell_style(parse_spec(cell)[0], index)
            if len(settings) > 1:
                look["linestyle"] = LINESTYLES[number]
            values = (f"{float(data[name]):g}" for name in _swept(data))
            yield ", ".join([cell, *values]), data, look


def _draw_curves(upper: Axes, lower: Axes, data: xarray.Dataset, look: dict) -> None:
    line = study.figure.band(upper, data["update"], data.loss, "seed", **look)
    study.figure.band(lower, data["update"], data.accuracy, "seed", **look)
    solved = data.solved_at.values
    if np.isfinite(solved).any():
        at = float(np.nanquantile(solved, 0.5, method="lower"))
        height = float(data.loss.sel(update=at).median("seed"))
        upper.plot([at], [height], marker="*", ms=10, color=line.get_color(), mec="black", mew=0.5)


def _label(upper: Axes, lower: Axes, dataset: xarray.Dataset) -> None:
    attrs = dataset.attrs
    outcomes.draw_losses(
        upper,
        attrs["baseline"],
        xlabel="",
        ylabel=LOSSES[attrs["loss_kind"]],
        title=f"{attrs['task']}: median and 10–90 % over seeds\n"
        "(star: solved; dotted: loss without memory, accuracy of a solved task)",
    )
    titles = "cell", *(name.replace("_", " ") for name in _swept(dataset))
    upper.legend(title=", ".join(titles), title_fontsize=8)
    lower.axhline(attrs["success"], **outcomes.REFERENCE)
    lower.set(xlabel="update", ylabel="accuracy", ylim=(-0.03, 1.03))


def _images(dataset: xarray.Dataset, name: str, gate: str | None) -> dict[str, Any]:
    """The map of each cell in its best setting, by its title."""
    best = {cell: _best(dataset.sel(cell=cell)) for cell in map(str, dataset.cell.values)}
    return {
        f"{cell}, {float(data.learning_rate):g}": probes.image(data, name, gate)
        for cell, data in best.items()
    }


def _swept(data: xarray.Dataset) -> list[str]:
    return [name for name in ("learning_rate", "clip_threshold") if name in data.coords]


def _settings(data: xarray.Dataset) -> list[xarray.Dataset]:
    """One for each learning rate, and each threshold if they were swept."""
    names = _swept(data)
    places = itertools.product(*(range(data.sizes[name]) for name in names))
    return [data.isel(dict(zip(names, at, strict=True))) for at in places]


def _best(data: xarray.Dataset) -> xarray.Dataset:
    """The setting of a cell that is best on the validation seeds."""

    def rank(setting: xarray.Dataset) -> tuple[float, float]:
        loss = float(setting.validation_loss.median())
        return np.isfinite(setting.validation_solved_at.values).mean(), -loss

    settings = _settings(data)
    return max(settings, key=rank) if len(settings) > 1 else settings[0]


def solved(data: xarray.Dataset) -> np.ndarray:
    """Tells which seeds solved the task in one setting."""
    return np.isfinite(data.solved_at.values)


def summary(dataset: xarray.Dataset) -> str:
    """A table of all settings, and a sentence for each cell in its best one."""
    names = [str(cell) for cell in dataset.cell.values]
    rows = [_row(cell, data) for cell in names for data in _settings(dataset.sel(cell=cell))]
    sentences = [_sentence(cell, _best(dataset.sel(cell=cell))) for cell in names]
    return "\n".join([study.table(rows), *sentences])


def _row(cell: str, data: xarray.Dataset) -> dict[str, str]:
    return {
        "cell": cell,
        **{name.replace("_", " "): f"{float(data[name]):g}" for name in _swept(data)},
        **outcomes.row(data.solved_at),
        "final loss": f"{outcomes.final_loss(data):.4g}",
        "NaN runs": str(int(np.isfinite(data.died_at.values).sum())),
    }


def _sentence(cell: str, data: xarray.Dataset) -> str:
    update = outcomes.median_update(data.solved_at)
    when = f", after {update:.0f} updates in the median" if np.isfinite(update) else ""
    number = outcomes.number_solved(data.solved_at)
    at = f"at a learning rate of {float(data.learning_rate):g}"
    return f"{cell}, {at}: {number} networks solve {data.attrs['task']}{when}."


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """Whether the cell decides, whether reach at initialisation does, and whether it changes."""
    best = {cell: _best(dataset.sel(cell=cell)) for cell in map(str, dataset.cell.values)}
    probed = "adjoints" in dataset or "log_norms" in dataset
    return [
        *([_cells_differ(best)] if len(best) > 1 else []),
        *([_further_solves_more(best)] if len(best) > 1 and probed else []),
        *([_training_changes(best)] if probed else []),
    ]


def _fractions(best: dict[str, xarray.Dataset]) -> list[study.Measured]:
    return [
        study.Measured(f"fraction of seeds solved by {cell}", float(solved(data).mean()))
        for cell, data in best.items()
    ]


def _cells_differ(best: dict[str, xarray.Dataset]) -> study.Claim:
    return study.claim(
        "learnt-by-cell",
        f"Whether {next(iter(best.values())).attrs['task']} is learnt depends on the cell.",
        decisions.differ(np.array([solved(data) for data in best.values()], float)),
        measured=_fractions(best),
        criterion="the 95 % interval of the difference between the fractions of seeds that two "
        "cells solve excludes 0",
    )


def reach(data: xarray.Dataset) -> np.ndarray:
    """Computes log10 of the gradient's norm at step 0 over the largest, (probing, seed)."""
    norms = data["adjoints" if "adjoints" in data else "log_norms"] / curves.NATS
    relative = norms.isel(step=0) - norms.max("step")
    return relative.transpose("probe_update", "seed").dropna("probe_update", how="all").values


def _further_solves_more(best: dict[str, xarray.Dataset]) -> study.Claim:
    at_first = {cell: reach(data)[0] for cell, data in best.items()}
    fraction = {cell: solved(data).mean() for cell, data in best.items()}
    pairs = [(a, b) for a, b in itertools.permutations(best, 2) if fraction[a] > fraction[b]]
    further = [decisions.above(statistics.estimate(at_first[a] - at_first[b])) for a, b in pairs]
    return study.claim(
        "further-reach-solves-more",
        "The further a cell's gradient reaches at initialisation, the more seeds solve the task.",
        decisions.every(further) if pairs else None,
        measured=[
            *(
                study.Measured.of(
                    f"log10 norm at step 0 over the largest, {cell}", statistics.estimate(values)
                )
                for cell, values in at_first.items()
            ),
            *_fractions(best),
        ],
        criterion="of any two cells, the one that more seeds solve has the larger gradient at step "
        "0 at initialisation, by the 95 % interval of the difference",
    )


def _training_changes(best: dict[str, xarray.Dataset]) -> study.Claim:
    changes = {
        cell: statistics.estimate(found[-1] - found[0])
        for cell, found in ((cell, reach(data)) for cell, data in best.items())
    }
    return study.claim(
        "training-changes-reach",
        "Training changes how far the gradient reaches.",
        decisions.every(map(decisions.nonzero, changes.values())),
        measured=[
            study.Measured.of(f"change of log10 norm at step 0 over the largest, {cell}", change)
            for cell, change in changes.items()
        ],
        criterion="the 95 % interval of the change excludes 0, for every cell",
    )


EXPERIMENT = study.Experiment(
    name="training",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    section="training",
    order=1,
    gallery={
        "training": study.Picture(
            (
                "--cell=rnn,lstm(forget_bias=1),gru(update_bias=1)",
                "--learning_rate=0.0003,0.001,0.003,0.01,0.03",
                "--num_seeds=3",
                "--probe=adjoints,components",
            )
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
