"""Draws the gallery in figures/ again: each picture, and the small record of its numbers.

    python experiments/figures.py             # the committed gallery
    python experiments/figures.py --quick     # small versions, into results/figures-quick

A figure whose run is finished in results/ is drawn from its record; --overwrite measures anew.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import flow_map
import framework_presets
import vanishing

from gradflow import study

ROOT = Path(__file__).parents[1]

GALLERY: dict[str, tuple[study.Experiment, list[str]]] = {
    "vanishing": (vanishing.EXPERIMENT, ["--cell=rnn,lstm,gru"]),
    "vanishing_digits": (
        vanishing.EXPERIMENT,
        ["--cell=rnn,lstm,gru", "--inputs=digits", "--num_steps=64", "--spectrum_lags=1,10,32,64"],
    ),
    "flow_map": (flow_map.EXPERIMENT, []),
    "framework_presets": (framework_presets.EXPERIMENT, []),
}
"""Name of the picture -> the experiment and its flags."""


def draw(name: str, folder: Path, flags: Sequence[str]) -> int:
    """Runs one experiment, or finds its record, and exports its picture and numbers."""
    experiment, given = GALLERY[name]
    if "--quick" in flags:  # whose own sizes are to hold
        given = [flag for flag in given if not flag.startswith(("--num_steps", "--spectrum"))]
    kind = "figures-quick" if "--quick" in flags else "figures"
    workdir = ROOT / "results" / kind / "runs" / name
    code = study.main(experiment, [*given, *flags, f"--workdir={workdir}"])
    if code:
        return code
    dataset = study.read_dataset(workdir / "result.nc")
    config = experiment.config(**_tuples(json.loads(dataset.attrs["config"])))
    environment = json.loads((workdir / "env.json").read_text())
    closing = experiment.closing(dataset).splitlines()
    picture = experiment.draw(dataset)
    seconds = environment["seconds"]
    study.export({"closing": closing}, picture, folder, name, config=config, seconds=seconds)
    return 0


def _tuples(config: dict) -> dict:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}


def main(flags: Sequence[str]) -> int:
    """Draws every picture; the exit code is that of the first that failed."""
    unknown = set(flags) - {"--quick", "--overwrite"}
    if unknown:
        print(f"error: --quick and --overwrite are the flags, got {' '.join(sorted(unknown))}",
              file=sys.stderr)  # fmt: skip
        return 2
    folder = ROOT / ("results/figures-quick" if "--quick" in flags else "figures")
    codes = [draw(name, folder, flags) for name in study.progress(GALLERY, "figures")]
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
