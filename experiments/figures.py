"""Draws the gallery in figures/ again: each picture, the small record of its numbers, and a page.

    python experiments/figures.py             # the committed gallery
    python experiments/figures.py --quick     # small versions, into results/figures-quick

A figure whose run is finished in results/ is drawn from its record; --overwrite measures anew.
Those of real sequences want the official files in data/, and are left as they are without them.
"""

import importlib
import json
import multiprocessing
import shlex
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

from gradflow import study
from gradflow.study.settings import compile_quickly
from gradflow.study.store import write_bytes

HERE = Path(__file__).parent
ROOT = HERE.parent
SECTIONS = ("flow", "training", "sequences")


@cache
def studies() -> dict[str, study.Experiment]:
    """All studies by name: those of the first section first, and by their order in it."""
    names = (path.stem for path in HERE.glob("[a-z]*.py") if path != Path(__file__))
    found = [importlib.import_module(name).EXPERIMENT for name in names]
    found.sort(key=lambda one: (SECTIONS.index(one.section), one.order, one.name))
    return {one.name: one for one in found}


@cache
def gallery() -> dict[str, tuple[study.Experiment, study.Picture]]:
    """All pictures by the names of their files."""
    return {
        name: (one, picture) for one in studies().values() for name, picture in one.gallery.items()
    }


HEAD = """# Gallery

`./run.sh figures` draws these again. Beside each picture lies a JSON file with its numbers, its
configuration and the versions that it was made with; times are wall time on two CPU cores.
"""


def draw(name: str, folder: Path, flags: Sequence[str]) -> int:
    """Runs one experiment, or finds its record, and exports its picture and numbers."""
    experiment, (given, files) = gallery()[name]
    missing = [file for file in files if not (ROOT / file).is_file()]
    if missing:
        print(f"{name} is left as it is: there is no {', '.join(missing)}")
        return 0
    if "--quick" in flags:  # whose own sizes are to hold
        given = [flag for flag in given if flag[2:].partition("=")[0] not in experiment.quick]
    kind = "figures-quick" if "--quick" in flags else "figures"
    workdir = ROOT / "results" / kind / "runs" / name
    code = study.main(experiment, [*given, *flags, f"--workdir={workdir}"])
    if code:
        return code
    dataset = study.read_dataset(workdir / "result.nc")
    config = experiment.config(**_tuples(json.loads(dataset.attrs["config"])))
    environment = json.loads((workdir / "env.json").read_text())
    seconds = environment["seconds"]
    study.export(experiment, dataset, folder, name, config=config, seconds=seconds)
    return 0


def _tuples(config: dict) -> dict:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}


def page(folder: Path) -> str:
    """The gallery as Markdown: each picture with its question, its command and what came out."""
    drawn = [name for name in gallery() if (folder / f"{name}.json").exists()]
    return "\n".join([HEAD, *(_section(name, folder) for name in drawn)])


def _section(name: str, folder: Path) -> str:
    experiment, (flags, _) = gallery()[name]
    record = json.loads((folder / f"{name}.json").read_text())
    lines = [
        f"## {name}",
        "",
        experiment.title,
        "",
        f"![{name}]({name}.png)",
        "",
        f"`./run.sh {shlex.join([experiment.name, *flags])}` ({record['seconds']:.0f} s)",
        "",
        "```",
        *record["summary"],
        "```",
        "",
    ]
    return "\n".join(lines)


def draw_side_by_side(folder: Path, flags: Sequence[str]) -> list[int]:
    """Draws the pictures in two processes: most of a quick run is compiling, on one core."""
    compile_quickly()
    one = partial(draw, folder=folder, flags=flags)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        drawn = [pool.submit(one, name) for name in gallery()]
        return [each.result() for each in study.progress(drawn, "figures")]


def main(flags: Sequence[str]) -> int:
    """Draws every picture; the exit code is that of the first that failed."""
    unknown = set(flags) - {"--quick", "--overwrite"}
    if unknown:
        print(f"error: --quick and --overwrite are the flags, got {' '.join(sorted(unknown))}",
              file=sys.stderr)  # fmt: skip
        return 2
    if "--quick" in flags:
        folder = ROOT / "results" / "figures-quick"
        codes = draw_side_by_side(folder, flags)
    else:
        folder = ROOT / "figures"
        codes = [draw(name, folder, flags) for name in study.progress(gallery(), "figures")]
    code = next((code for code in codes if code), 0)
    if not code:
        write_bytes(folder / "README.md", page(folder).encode())
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
