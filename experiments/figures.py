"""Draws the gallery in figures/ again: each picture, the small record of its numbers, and a page.

    python experiments/figures.py             # the committed gallery
    python experiments/figures.py --quick     # small versions, into results/figures-quick

A figure whose run is finished in results/ is drawn from its record; --overwrite measures anew.
Those of real sequences want the official files in data/, and are left as they are without them.
"""

import json
import multiprocessing
import shlex
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cell_zoo
import char_lm
import classification
import clipping
import constant_error_carousel
import depth
import exploding
import flow_map
import forecasting
import framework_presets
import gates
import identity_init
import lyapunov
import measurements
import normalisation
import parallel_in_time
import relu_vs_tanh
import seq2seq
import sequential_images
import timescales
import training
import truncation
import vanishing

from gradflow import study
from gradflow.study.settings import compile_quickly
from gradflow.study.store import write_bytes

ROOT = Path(__file__).parents[1]


class Picture(NamedTuple):
    """One picture of the gallery.

    Attributes:
      experiment: What is run.
      flags: What it is run with.
      files: What has to be there, relative to the root of the checkout.
    """

    experiment: study.Experiment
    flags: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


GALLERY: dict[str, Picture] = {
    "vanishing": Picture(vanishing.EXPERIMENT, ("--cell=rnn,lstm,gru",)),
    "vanishing_digits": Picture(
        vanishing.EXPERIMENT,
        ("--cell=rnn,lstm,gru", "--inputs=digits", "--num_steps=64", "--spectrum_lags=1,10,32,64"),
    ),
    "measurements": Picture(measurements.EXPERIMENT),
    "flow_map": Picture(flow_map.EXPERIMENT),
    "cell_zoo": Picture(cell_zoo.EXPERIMENT),
    "framework_presets": Picture(framework_presets.EXPERIMENT),
    "exploding": Picture(exploding.EXPERIMENT),
    "gates": Picture(gates.EXPERIMENT),
    "constant_error_carousel": Picture(constant_error_carousel.EXPERIMENT),
    "normalisation": Picture(normalisation.EXPERIMENT),
    "depth": Picture(depth.EXPERIMENT),
    "timescales": Picture(timescales.EXPERIMENT),
    "lyapunov": Picture(lyapunov.EXPERIMENT),
    "parallel_in_time": Picture(parallel_in_time.EXPERIMENT),
    "training": Picture(
        training.EXPERIMENT,
        ("--cell=rnn,lstm,gru", "--learning_rate=0.003", "--probe=adjoints,components"),
    ),
    "clipping": Picture(clipping.EXPERIMENT),
    "truncation": Picture(truncation.EXPERIMENT),
    "identity_init": Picture(identity_init.EXPERIMENT),
    "relu_vs_tanh": Picture(relu_vs_tanh.EXPERIMENT),
    "forecasting": Picture(forecasting.EXPERIMENT),
    "forecasting_bitcoin": Picture(
        forecasting.EXPERIMENT, ("--data=bitcoin", "--data_dir=data"), ("data/coin_Bitcoin.csv",)
    ),
    "forecasting_sunspots": Picture(
        forecasting.EXPERIMENT,
        ("--data=sunspots", "--data_dir=data"),
        ("data/SN_m_tot_V2.0.csv",),
    ),
    "sequential_images": Picture(sequential_images.EXPERIMENT),
    "seq2seq": Picture(seq2seq.EXPERIMENT),
    "classification": Picture(
        classification.EXPERIMENT,
        ("--data=trec", "--data_dir=data"),
        ("data/train_5500.label", "data/TREC_10.label"),
    ),
    "char_lm": Picture(char_lm.EXPERIMENT, ("--text=data/input.txt",), ("data/input.txt",)),
}
"""The pictures by the names of their files."""

HEAD = """# Gallery

`./run.sh figures` draws these again. Beside each picture lies a JSON file with its numbers, its
configuration and the versions that it was made with; times are wall time on two CPU cores.
"""


def draw(name: str, folder: Path, flags: Sequence[str]) -> int:
    """Runs one experiment, or finds its record, and exports its picture and numbers."""
    experiment, given, files = GALLERY[name]
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
    closing = experiment.closing(dataset).splitlines()
    picture = experiment.draw(dataset)
    seconds = environment["seconds"]
    study.export({"closing": closing}, picture, folder, name, config=config, seconds=seconds)
    return 0


def _tuples(config: dict) -> dict:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}


def page(folder: Path) -> str:
    """The gallery as Markdown: each picture with its question, its command and what came out."""
    drawn = [name for name in GALLERY if (folder / f"{name}.json").exists()]
    return "\n".join([HEAD, *(_section(name, folder) for name in drawn)])


def _section(name: str, folder: Path) -> str:
    experiment, flags, _ = GALLERY[name]
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
        *record["numbers"]["closing"],
        "```",
        "",
    ]
    return "\n".join(lines)


def draw_side_by_side(folder: Path, flags: Sequence[str]) -> list[int]:
    """Draws the pictures in two processes: most of a quick run is compiling, on one core."""
    compile_quickly()
    one = partial(draw, folder=folder, flags=flags)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        drawn = [pool.submit(one, name) for name in GALLERY]
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
        codes = [draw(name, folder, flags) for name in study.progress(GALLERY, "figures")]
    code = next((code for code in codes if code), 0)
    if not code:
        write_bytes(folder / "README.md", page(folder).encode())
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
