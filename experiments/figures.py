"""Draws the gallery in figures/ again, and generates the tables from its records.

    python experiments/figures.py             # the committed gallery
    python experiments/figures.py --quick     # small versions, into results/figures-quick
    python experiments/figures.py --tables    # only the tables, from the committed records

A figure whose run is finished in results/ is drawn from its record; --overwrite measures anew.
Figures of real sequences need the official files in data/, and stay unchanged without them.
"""

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path

from _kit.gallery import ROOT, gallery
from _kit.tables import documents, gallery_page

from gradflow import study
from gradflow.paths import write_bytes
from gradflow.study.experiment import check_docstrings
from gradflow.study.process import run_process
from gradflow.study.settings import compile_quickly

FLAGS = ("--quick", "--overwrite", "--tables")


def draw(name: str, folder: Path, flags: Sequence[str]) -> int:
    """Runs one experiment, or finds its record, and exports its picture and claims."""
    experiment, (given, files) = gallery()[name]
    missing = [file for file in files if not (ROOT / file).is_file()]
    if missing:
        print(f"{name} stays unchanged: there is no {', '.join(missing)}")
        return 0
    if "--quick" in flags:  # the quick sizes replace those of the gallery
        given = [flag for flag in given if flag[2:].partition("=")[0] not in experiment.quick]
    kind = "figures-quick" if "--quick" in flags else "figures"
    workdir = ROOT / "results" / kind / "runs" / name
    code = study.main(experiment, [*given, *flags, f"--workdir={workdir}"])
    if code:
        return code
    try:
        dataset = study.read_dataset(workdir / "result.nc")
        seconds = study.read_environment(workdir)["seconds"]
    except (OSError, ValueError) as error:
        print("error:", error, file=sys.stderr)
        return 1
    config = experiment.config(**_tuples(json.loads(dataset.attrs["config"])))
    study.export(experiment, dataset, folder, name, config=config, seconds=seconds)
    return 0


def _tuples(config: dict) -> dict:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}


def draw_side_by_side(folder: Path, flags: Sequence[str]) -> list[int]:
    """Draws the pictures in two processes: most of a quick run is compiling, on one core."""
    compile_quickly()
    one = partial(draw, folder=folder, flags=flags)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, initializer=end_with_parent) as pool:
        drawn = [pool.submit(one, name) for name in gallery()]
        return [each.result() for each in study.progress(drawn, "figures")]


def end_with_parent() -> None:
    """Ends this process as soon as the one that started it has ended, even if that was killed."""
    # An interrupt at a terminal reaches every process, and the one that started these ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)  # from this thread nothing else ends a process that computes

    threading.Thread(target=watch, daemon=True).start()


def write_tables() -> None:
    """Writes every document with generated parts."""
    for path, text in documents().items():
        write_bytes(path, text.encode())


def main(flags: Sequence[str]) -> int:
    """Does what the flags ask for. Returns 0, or the exit code of the first run that failed."""
    if unknown := set(flags) - set(FLAGS):
        print(
            f"error: Expected the flags {', '.join(FLAGS)}, got {' '.join(sorted(unknown))}. "
            "Remove it.",
            file=sys.stderr,
        )
        return 2
    try:
        check_docstrings()
    except ValueError as error:
        print("error:", error, file=sys.stderr)
        return 1
    if "--tables" in flags:
        write_tables()
        return 0
    if "--quick" in flags:
        folder = ROOT / "results" / "figures-quick"
        codes = draw_side_by_side(folder, flags)
        write_bytes(folder / "README.md", gallery_page(folder).encode())
    else:
        codes = [
            draw(name, ROOT / "figures", flags) for name in study.progress(gallery(), "figures")
        ]
        write_tables()
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    run_process(partial(main, sys.argv[1:]))
