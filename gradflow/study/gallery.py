"""The committed gallery: pictures, and the small record of claims and numbers behind each."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradflow.paths import write_bytes
from gradflow.study.claims import to_record
from gradflow.study.config import Config
from gradflow.study.experiment import QUICK, Experiment, is_quick
from gradflow.study.figure import render
from gradflow.study.provenance import shorten, versions
from gradflow.study.store import write_json

if TYPE_CHECKING:
    import xarray


def export(
    experiment: Experiment,
    dataset: "xarray.Dataset",
    folder: Path,
    name: str,
    *,
    config: Config,
    seconds: float,
) -> None:
    """Writes ``<name>.png``, and ``<name>.json`` with the claims, their numbers and the summary.

    The same arguments give the same bytes; there is no date, commit or path in them.

    Args:
      experiment: What was run.
      dataset: What it measured.
      folder: The gallery.
      name: The file name without its ending.
      config: The configuration that it was measured with.
      seconds: How long it took, in seconds of wall time.
    """
    record = {
        "claims": [to_record(claim) for claim in experiment.claims(dataset)],
        "summary": experiment.summary(dataset).splitlines(),
        "config": recorded(config),
        "versions": versions(),
        "seconds": round(seconds, 1),
        **({QUICK: True} if is_quick(dataset) else {}),
    }
    picture = render(experiment.draw(dataset), "png", {"Title": name})
    write_bytes(folder / f"{name}.png", picture)
    write_json(folder / f"{name}.json", record)


def recorded(config: Config) -> dict[str, Any]:
    """Returns a configuration as the record of a picture has it."""
    return {key: _public(value) for key, value in dataclasses.asdict(config).items()}


def _public(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_public(part) for part in value]
    return shorten(value) if isinstance(value, str) else value
