"""The committed gallery: a picture, and the small record of the numbers behind it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradflow.study.config import Config
from gradflow.study.figure import render
from gradflow.study.provenance import shorten, versions
from gradflow.study.store import write_bytes, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def export(
    numbers: Mapping[str, Any],
    figure: "Figure",
    folder: Path,
    name: str,
    *,
    config: Config,
    seconds: float,
) -> None:
    """Writes ``<name>.png``, and ``<name>.json`` with the numbers and what they were made with.

    The same arguments give the same bytes; there is no date, commit or path in them.

    Args:
      numbers: The few that the figure's claim is about, by name.
      figure: The figure.
      folder: The gallery.
      name: The file name without its ending.
      config: The configuration that they were measured with.
      seconds: How long it took, in seconds of wall time.
    """
    fields = dataclasses.asdict(config)
    record = {
        "numbers": numbers,
        "config": {key: _public(value) for key, value in fields.items()},
        "versions": versions(),
        "seconds": round(seconds, 1),
    }
    write_bytes(folder / f"{name}.png", render(figure, "png", {"Title": name}))
    write_json(folder / f"{name}.json", record)


def _public(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_public(part) for part in value]
    return shorten(value) if isinstance(value, str) else value
