"""What the trainings came to: the best setting of each cell, the summary and the claims."""

import itertools

import numpy as np
import xarray
from _kit import curves, decisions, outcomes

from gradflow import statistics, study


def swept(data: xarray.Dataset) -> list[str]:
    """Names the settings that were swept."""
    return [name for name in ("learning_rate", "clip_threshold") if name in data.coords]


def settings_of(data: xarray.Dataset) -> list[xarray.Dataset]:
    """One for each learning rate, and each threshold if they were swept."""
    names = swept(data)
    places = itertools.product(*(range(data.sizes[name]) for name in names))
    return [data.isel(dict(zip(names, at, strict=True))) for at in places]


def best_of(data: xarray.Dataset) -> xarray.Dataset:
    """The setting of a cell that is best on the validation seeds."""

    def rank(setting: xarray.Dataset) -> tuple[float, float]:
        loss = float(setting.validation_loss.median())
        return np.isfinite(setting.validation_solved_at.values).mean(), -loss

    settings = settings_of(data)
    return max(settings, key=rank) if len(settings) > 1 else settings[0]


def solved(data: xarray.Dataset) -> np.ndarray:
    """Tells which seeds solved the task in one setting."""
    return np.isfinite(data.solved_at.values)


def reach(data: xarray.Dataset) -> np.ndarray:
    """Computes log10 of the gradient's norm at step 0 over the largest, (probing, seed)."""
    norms = data["adjoints" if "adjoints" in data else "log_norms"] / curves.NATS
    relative = norms.isel(step=0) - norms.max("step")
    return relative.transpose("probe_update", "seed").dropna("probe_update", how="all").values


def summary(dataset: xarray.Dataset) -> str:
    """A table of all settings, and a sentence for each cell in its best one."""
    names = [str(cell) for cell in dataset.cell.values]
    rows = [_row(cell, data) for cell in names for data in settings_of(dataset.sel(cell=cell))]
    sentences = [_sentence(cell, best_of(dataset.sel(cell=cell))) for cell in names]
    return "\n".join([study.table(rows), *sentences])


def _row(cell: str, data: xarray.Dataset) -> dict[str, str]:
    return {
        "cell": cell,
        **{name.replace("_", " "): f"{float(data[name]):g}" for name in swept(data)},
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
    best = {cell: best_of(dataset.sel(cell=cell)) for cell in map(str, dataset.cell.values)}
    probed = "adjoints" in dataset or "log_norms" in dataset
    return [
        *([_cells_differ(best)] if len(best) > 1 else []),
        *([_further_solves_more(best)] if len(best) > 1 and probed else []),
        *([_training_changes(best)] if probed else []),
    ]


def _fractions(best: dict[str, xarray.Dataset]) -> dict[str, float]:
    return {f"fraction of seeds solved by {c}": solved(data).mean() for c, data in best.items()}


def _cells_differ(best: dict[str, xarray.Dataset]) -> study.Claim:
    return study.claim(
        "learnt-by-cell",
        f"Whether {next(iter(best.values())).attrs['task']} is learnt depends on the cell.",
        decisions.differ(np.array([solved(data) for data in best.values()], float)),
        measured=_fractions(best),
        criterion="the 95 % interval of the difference between the fractions of seeds that two "
        "cells solve excludes 0",
    )


def _further_solves_more(best: dict[str, xarray.Dataset]) -> study.Claim:
    at_first = {cell: reach(data)[0] for cell, data in best.items()}
    fraction = {cell: solved(data).mean() for cell, data in best.items()}
    pairs = [(a, b) for a, b in itertools.permutations(best, 2) if fraction[a] > fraction[b]]
    further = [decisions.above(statistics.estimate(at_first[a] - at_first[b])) for a, b in pairs]
    return study.claim(
        "further-reach-solves-more",
        "The further a cell's gradient reaches at initialisation, the more seeds solve the task.",
        decisions.every(further) if pairs else None,
        measured={
            f"log10 norm at step 0 over the largest, {cell}": statistics.estimate(values)
            for cell, values in at_first.items()
        }
        | _fractions(best),
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
        measured={
            f"change of log10 norm at step 0 over the largest, {cell}": change
            for cell, change in changes.items()
        },
        criterion="the 95 % interval of the change excludes 0, for every cell",
    )
