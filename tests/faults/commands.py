"""The commands that are attacked, and how one is started, killed and compared.

Each runs in a process of its own, forked from one that has imported everything: an import takes
longer than a small run.
"""

import contextlib
import importlib
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "experiments"
sys.path[:0] = [
    str(path) for path in (ROOT, EXPERIMENTS, EXPERIMENTS / "papers", ROOT / "tests" / "study")
]

import run as papers_run  # noqa: E402  (after the path)
import tiny  # noqa: E402  (after the path)
from _kit.gallery import studies  # noqa: E402  (after the path)

from gradflow import study  # noqa: E402  (after the path)
from gradflow.data.trec import CLASSES  # noqa: E402  (after the path)
from gradflow.study.process import run_process  # noqa: E402  (after the path)

COPY = "checkout"
"""The folder of a checkout of two studies, whose gallery is drawn."""

LAZY = ("xarray", "h5netcdf", "matplotlib.figure", "optax", "flax.linen", "orbax.checkpoint")
"""What a run imports when it is needed."""

PAPERS = [path.stem for path in EXPERIMENTS.glob("papers/[a-z]*.py") if path.stem != "run"]
STUDIES: dict[str, study.Experiment] = {
    "tiny": tiny.EXPERIMENT,
    **studies(),
    **{f"papers/{name}": importlib.import_module(name).EXPERIMENT for name in sorted(PAPERS)},
}
"""All studies and papers, by name."""

LONGEST = 600.0  # seconds: of a command that has to end

FLAGS = {
    "tiny": ("--cells=lstm,gru,rnn",),
    "vanishing": (),
    "flow_map": (),
    "lyapunov": (),
    "training": ("--probe=spectrum", "--probe_every=20"),
    "sequential_images": (),
    "forecasting": ("--models=naive,linear,gru", "--num_epochs=2"),
    "classification": ("--models=gru", "--max_length=9", "--num_epochs=4", "--batch_size=8"),
    "seq2seq": ("--cells=gru",),
    "char_lm": ("--cell=gru", "--hidden_size=4", "--num_updates=40"),
    "papers/bengio1994": (),
    "papers/run": ("--figure=laurent2017", "--quick"),
    "figures": ("--quick",),
}
"""The attacked commands, by name, with flags besides ``--quick``."""


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
      code: Its exit code, negative for a signal.
      shown: What it wrote to stderr.
      most: How many lines that can be if it failed.
    """

    code: int
    shown: str
    most: int = 1

    def check(self, *codes: int) -> None:
        """Raises an AssertionError unless the code is one of these, with a line for a failure."""
        assert self.code in codes, f"exit code {self.code}, expected {codes}: {self.shown[-800:]}"
        lines = self.shown.splitlines()
        assert "Traceback" not in self.shown, f"a traceback: {self.shown[-800:]}"
        few = 1 <= len(lines) <= self.most
        assert self.code <= 0 or few, f"expected {self.most} lines at most: {self.shown[-800:]}"


class Running:
    """A command in a process.

    Args:
      name: The command.
      folder: Its workdir.
      data: The folder of the files that it reads.
      given: Its flags; by default those of `FLAGS`.
      file_size: The bytes that a file can have.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        data: Path,
        given: Sequence[str] | None = None,
        file_size: int | None = None,
    ) -> None:
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # where the server looks for these
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["processes", "bad_flags", *LAZY])
        self.most = 2 if name == "figures" else 1  # one for each of its two studies
        self.errors = data / f"stderr-{time.monotonic_ns()}"
        arguments = (name, folder, data, self.errors, given, file_size)
        self.process = context.Process(target=perform, args=arguments)
        self.process.start()
        begun = [self.errors] if name != "figures" else [self.errors, data / COPY / "results"]
        while not all(path.exists() for path in begun) and self.process.is_alive():
            time.sleep(0.002)

    def send(self, number: int) -> None:
        """Sends a signal, unless the process has ended."""
        if self.process.is_alive() and self.process.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def end(self) -> Ended:
        """Waits until the command has ended."""
        ended = self.end_within(LONGEST)
        assert ended, f"it has not ended in {LONGEST:.0f} s"
        return ended

    def end_within(self, seconds: float) -> Ended | None:
        """Waits until the command has ended; if that takes longer, kills it and returns None."""
        self.process.join(seconds)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            self.process.join()
        shown = self.errors.read_text(errors="replace")
        self.errors.unlink()
        return None if code is None else Ended(code, shown, self.most)


def perform(
    name: str,
    folder: Path,
    data: Path,
    errors: Path,
    given: Sequence[str] | None,
    file_size: int | None,
) -> None:
    """Runs a command in this process, which ends with it."""
    output = os.open(data / "stdout", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    if name == "figures":
        program = str(data / COPY / "experiments" / "figures.py")
        os.chdir(folder.parent)
        os.execv(sys.executable, [sys.executable, program, *FLAGS[name]])
    if name == "papers/run":
        places = papers_run.Places(folder / "gallery", folder / "papers.md", folder / "runs")
        run_process(partial(papers_run.main, FLAGS[name], places))
    given = flags(name, data) if given is None else given
    sys.argv = [name, f"--workdir={folder}", *given]
    study.main(STUDIES[name])


def flags(name: str, data: Path) -> list[str]:
    """The flags of a study's small run."""
    files = {"char_lm": f"--text={data / 'text.txt'}", "classification": f"--data_dir={data}"}
    return ["--quick", *FLAGS[name], *([files[name]] if name in files else [])]


def make_data(folder: Path) -> None:
    """Writes the files that the commands read: questions, a text, and a checkout of two studies."""
    rng = Random(0)
    for name, count in (("train_5500.label", 120), ("TREC_10.label", 48)):
        words = [" ".join(f"w{rng.randrange(9)}" for _ in range(5)) for _ in range(count)]
        lines = [f"{CLASSES[i % 6]}:x kind{i % 6} {line} ?\n" for i, line in enumerate(words)]
        (folder / name).write_text("".join(lines))
    line = "the quick brown fox jumps over the lazy dog.\n"
    (folder / "text.txt").write_text("".join(line[rng.randrange(20) :] for _ in range(30)))
    copy = folder / COPY / "experiments"
    shutil.copytree(EXPERIMENTS / "_kit", copy / "_kit")
    for name in ("figures", "flow_map", "constant_error_carousel"):
        shutil.copy(EXPERIMENTS / f"{name}.py", copy)


def written(name: str, folder: Path, data: Path) -> Path:
    """The folder that a command writes to."""
    return data / COPY / "results" if name == "figures" else folder


def results(root: Path) -> dict[str, bytes]:
    """The result of each run in a folder, by its place."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("result.nc"))
    }


@contextlib.contextmanager
def cleared(name: str, folder: Path, data: Path) -> Iterator[Path]:
    """The folder of one attack, empty; it is removed afterwards with what the command left."""
    folder.mkdir(parents=True)
    try:
        yield folder / "run"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if name == "figures":
            shutil.rmtree(written(name, folder, data), ignore_errors=True)


def interrupted(number: int) -> int:
    """The exit code of a command that a signal ended."""
    return -number if number == signal.SIGKILL else 128 + number
