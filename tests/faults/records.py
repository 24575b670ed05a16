"""Attacks on the record of a run: no number is lost or changed, and each refusal has a cure.

An attack is done on the study of tests/study/tiny.py, or on the training of tests/train/echo.py, in
an empty folder. It returns "survived" if the record is in the end what it would have been without
the attack, and "refused" if the same command first ended with an error of one line, whose advice
was then followed. An AssertionError says that something is wrong.
"""

import contextlib
import dataclasses
import io
import json
import os
import random
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from gradflow import study
from gradflow.locks import LOCK, OWNER

TESTS = Path(__file__).parents[1]
TINY, ECHO = TESTS / "study" / "tiny.py", TESTS / "train" / "echo.py"
FLAGS = ("--cells=lstm,gru,rnn",)

LIMITED = """
import resource, runpy, sys
size = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a program whose files cannot become larger than so many bytes."""

UNFINISHED = ("config.json", "env.json", "result.nc", "parts")
FINISHED = ("config.json", "env.json", "result.nc", "DONE", "figure.png", "figure.pdf")
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)

Attack = Callable[[random.Random, Path], str]
"""(random choices, an empty folder) -> "survived" or "refused"."""


def run(folder: Path, *flags: str, stop: bool = False) -> tuple[int, str]:
    """Runs the tiny study in this process. Returns its exit code and what it said of errors.

    Args:
      folder: The folder of the record.
      *flags: Further flags.
      stop: Whether to end, as by Ctrl-C, after the result is stored and before it is drawn.
    """
    experiment, said = runpy.run_path(str(TINY))["EXPERIMENT"], io.StringIO()
    if stop:
        experiment = dataclasses.replace(experiment, figure=_interrupt)
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = study.main(experiment, [*FLAGS, *flags, f"--workdir={folder}"])
    return code, said.getvalue()


def _interrupt(dataset: object) -> None:
    raise KeyboardInterrupt


@cache
def expected() -> bytes:
    """The bytes of the result of the tiny study without any attack."""
    with tempfile.TemporaryDirectory() as folder:
        assert run(Path(folder) / "run")[0] == 0
        return (Path(folder) / "run" / "result.nc").read_bytes()


def check(folder: Path) -> None:
    """Checks a finished record: its result, and that nothing is left over."""
    names = {path.name for path in folder.iterdir()}
    assert names == set(FINISHED), f"the record has {sorted(names)}"
    assert (folder / "result.nc").read_bytes() == expected(), "the result is another one"
    environment = study.read_environment(folder)
    assert environment["seconds"] > 0 and environment["precision"] == "float64"


def cure(folder: Path, said: str) -> str:
    """Follows the advice of an error, and checks the record that comes of it."""
    assert said.startswith("error: ") and said.count("\n") == 1, f"not one line: {said!r}"
    if "Remove that file" in said:
        (folder / "env.json").unlink()
        flags = []
    else:
        assert "--overwrite" in said, f"no advice: {said!r}"
        flags = ["--overwrite"]
    code, said = run(folder, *flags)
    assert code == 0, f"the advice does not help: {said!r}"
    if not (folder / "env.json").exists():  # it was removed; all numbers are there
        assert (folder / "result.nc").read_bytes() == expected()
        return "refused"
    check(folder)
    return "refused"


def damage(path: Path, choose: random.Random) -> None:
    """Flips a bit of a file, or cuts it, or empties it, or fills it with other bytes."""
    content = bytearray(path.read_bytes())
    kind = choose.choice(["flip", "flip", "flip", "cut", "empty", "noise", "null"])
    if kind == "flip" and content:
        bit = choose.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
    elif kind == "cut":
        content = content[: choose.randrange(len(content) + 1)]
    elif kind == "noise":
        content = bytearray(choose.randbytes(len(content)))
    else:
        content = bytearray(b"null" if kind == "null" else b"")
    path.write_bytes(bytes(content))


def damaged_unfinished(choose: random.Random, folder: Path) -> str:
    """Damages a file of a run that was interrupted before its figure, and resumes the run."""
    name = choose.choice(UNFINISHED)
    assert run(folder / "run", stop=True)[0] == 130
    if name == "parts":  # read only without the result
        (folder / "run" / "result.nc").unlink()
        damage(choose.choice(sorted((folder / "run" / "parts").iterdir())), choose)
    else:
        damage(folder / "run" / name, choose)
    code, said = run(folder / "run")
    if code:
        assert code == 1, f"exit code {code}: {said!r}"
        assert name in said, f"{name} was damaged, and the error is {said!r}"
        return cure(folder / "run", said)
    check(folder / "run")
    return "survived"


def damaged_finished(choose: random.Random, folder: Path) -> str:
    """Damages a file of a finished run, and repeats its command, and draws it again."""
    name = choose.choice(("config.json", "env.json", "result.nc"))
    assert run(folder / "run")[0] == 0
    damage(folder / "run" / name, choose)
    for flags in ([], ["--replot"]):
        code, said = run(folder / "run", *flags)
        if code:
            assert code == 1, f"exit code {code}: {said!r}"
            assert name in said, f"{name} was damaged, and the error is {said!r}"
            return cure(folder / "run", said)
    whole = name == "config.json" or (folder / "run" / "result.nc").read_bytes() == expected()
    if not whole:  # a bit that no reader interprets
        found = study.read_dataset(folder / "run" / "result.nc")
        assert run(folder / "whole")[0] == 0
        assert found.identical(study.read_dataset(folder / "whole" / "result.nc"))
    return "survived"


def changed_file(choose: random.Random, folder: Path) -> str:
    """Changes the file of a cell between two runs in one folder, finished or not."""
    mine, is_changed = folder / "mine.py", choose.random() < 0.7
    mine.write_text("one")
    flags = [f"--cells={choose.choice(['', 'lstm,'])}mine.py:cell(gain={choose.random():.3f})"]
    stop = choose.random() < 0.5
    with contextlib.chdir(folder):
        assert run(folder / "run", *flags, stop=stop)[0] == (130 if stop else 0)
        mine.write_text("two" if is_changed else "one")
        code, said = run(folder / "run", *flags)
        assert code == int(is_changed), f"exit code {code}: {said!r}"
        if not is_changed:
            return "survived"
        start, end = "error: Expected the file mine.py as it was", "choose another --workdir."
        assert said.startswith(start) and end in said and said.count("\n") == 1, said
        for more in (["--overwrite"], []):
            assert run(folder / "run", *flags, *more)[0] == 0
    return "refused"


def start(program: Path, *arguments: str, file_size: int | None = None) -> subprocess.Popen:
    """Starts a program of the tests; a size in bytes is the largest that it may give a file."""
    command = [sys.executable, str(program), *arguments]
    cache = {"JAX_COMPILATION_CACHE_DIR": os.environ.get("GRADFLOW_TEST_CACHE", "")}
    if file_size is not None:
        command[1:1] = ["-c", LIMITED, str(file_size)]
        cache = {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    return subprocess.Popen(
        command,
        env={**os.environ, **cache, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed(choose: random.Random, folder: Path) -> str:
    """Ends a run by a signal at a random moment after its first file, and resumes it."""
    process = start(TINY, *FLAGS, f"--workdir={folder / 'run'}")
    while process.poll() is None and not (folder / "run").exists():
        time.sleep(0.001)
    time.sleep(choose.uniform(0, 1.5))
    process.send_signal(how := choose.choice(SIGNALS))
    _, said = process.communicate(timeout=120)
    assert process.returncode in (0, -how, 128 + how), f"{process.returncode}: {said}"
    code, said = run(folder / "run")
    assert code == 0, f"it cannot be resumed: {said!r}"
    names = {path.name for path in (folder / "run").iterdir()}
    for name in names - set(FINISHED):  # killed after the last file and before the lock's end
        assert name in (LOCK, OWNER), f"{name} is left over"
        (folder / "run" / name).unlink()
    check(folder / "run")
    return "survived"


def two_at_once(choose: random.Random, folder: Path) -> str:
    """Starts two runs in one folder."""
    processes = []
    for _ in range(2):
        processes.append(start(TINY, *FLAGS, f"--workdir={folder / 'run'}"))
        time.sleep(choose.uniform(0, 0.3))
    said = [process.communicate(timeout=120)[1] for process in processes]
    codes = [process.returncode for process in processes]
    for code, line in zip(codes, said, strict=True):
        assert code in (0, 1), f"exit code {code}: {line}"
        assert code == 0 or ("is using this folder" in line and line.count("\n") == 1), line
    assert 0 in codes, f"neither run was let in: {said}"
    check(folder / "run")
    return "refused" if 1 in codes else "survived"


def full_disk(choose: random.Random, folder: Path) -> str:
    """Lets no file of a run grow above a random size, and runs it again without that limit."""
    size = choose.randrange(150_000)
    process = start(TINY, *FLAGS, f"--workdir={folder / 'run'}", file_size=size)
    _, said = process.communicate(timeout=120)
    if process.returncode:
        assert process.returncode == 1, f"{process.returncode} at {size} bytes: {said}"
        assert said.startswith("error: Expected room for ") and said.count("\n") == 1, said
    assert run(folder / "run")[0] == 0
    check(folder / "run")
    return "refused" if process.returncode else "survived"


@cache
def trained() -> bytes:
    """The lines of the training without any attack."""
    with tempfile.TemporaryDirectory() as folder:
        return _train(Path(folder))


def _train(folder: Path) -> bytes:
    process = start(ECHO, str(folder))
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return (folder / "metrics.jsonl").read_bytes()


def killed_training(choose: random.Random, folder: Path) -> str:
    """Ends a training by a signal, damages a file of it or none, and resumes it."""
    process, metrics = start(ECHO, str(folder)), folder / "metrics.jsonl"
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < 6:
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    time.sleep(choose.uniform(0, 0.5))
    process.send_signal(choose.choice(SIGNALS))
    process.communicate(timeout=120)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    files = [path for path in files if path.name not in (LOCK, OWNER, "timings.jsonl")]
    if choose.random() < 0.7:
        damage(choose.choice(files), choose)
    found = _train(folder)
    assert found == trained(), "the lines are other ones"
    for line in found.splitlines():
        json.loads(line)
    return "survived"


ATTACKS: Mapping[str, Attack] = {
    "a damaged file of an unfinished run": damaged_unfinished,
    "a damaged file of a finished run": damaged_finished,
    "a changed file of a cell": changed_file,
    "a run ended by a signal": killed,
    "two runs at once": two_at_once,
    "a full disk": full_disk,
    "a training ended by a signal, and damaged": killed_training,
}
"""All attacks on records, by what is done."""
