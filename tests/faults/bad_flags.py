"""Attacks on command lines: flags with bad values, and flags crossed at random, in this process."""

import contextlib
import io
import signal
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Literal, get_args, get_origin, get_type_hints

import commands
from _kit.gallery import studies

from gradflow import study

SECONDS = 2.0  # after which a run that has begun counts as survived

PAPERS = sorted(path.stem for path in commands.EXPERIMENTS.glob("papers/[a-z]*.py"))
NUMBERS = ("0", "-1", "1", "2", "3", "5", "7", "1.5", "1e400", "-inf", "nan", "1_0", "0x10", " 4")
NUMBERS += (
    "1e-320",
    "-0.0",
    "1,2",
    "1,,2",
    "true",
    "none",
    "١",
    "9" * 20,
    "9" * 5000,
    "1" + "0" * 12,
)
TEXTS = (
    "",
    " ",
    ",",
    "none",
    "lstm",
    "rnn,gru",
    "lstm(",
    "lstm)",
    "lstm(forget_bias=)",
    "a" * 3000,
)
TEXTS += ("lstm(forget_bias=1e999)", "stack(cells='lstm,gru')", "x.py:f", "no.such:f", "os:system")
TEXTS += (
    "(" * 400,
    "text:/none",
    "npy:/dev/null",
    "series:a:b",
    "gaussian(std=-1)",
    "adding",
    "\0",
)
TEXTS += (
    "adam(learning_rate=nan)",
    "sgd",
    "global_norm(threshold=-1)",
    "../..",
    "=",
    "--",
    "h",
    "c",
)
STRAY = ("--", "-", "=", "--=", "--no", "--noquick", "-x", "7", "--seed", "--jax_platforms=moon")
STRAY += ("--quick=maybe", "--nohelp=1", "--verbosity=x", "--replot", "--full", "--overwrite")
STRAY += (
    "--jax_enable_x64",
    "--num-steps=3",
    "--Seed=1",
    "--seed=1",
    "--seed=2",
    "--flagfile=/none",
)


class Late(BaseException):
    """A run that takes long has begun: its flags were accepted."""


def value(hint: object, rng: Random) -> str:
    """A value for a field, rarely a good one."""
    if get_origin(hint) is Literal and rng.random() < 0.7:
        return rng.choice(get_args(hint))
    likely, other = (TEXTS, NUMBERS) if "str" in str(hint) else (NUMBERS, TEXTS)
    return rng.choice(other if rng.random() < 0.1 else likely)


def line(experiment: study.Experiment, rng: Random) -> list[str]:
    """A random command line of an experiment's small run."""
    hints = sorted(get_type_hints(experiment.config).items())
    chosen = rng.sample(hints, rng.randint(1, min(4, len(hints))))
    flags = [f"--{name}={value(hint, rng)}" for name, hint in chosen]
    if rng.random() < 0.2:
        flags.insert(rng.randrange(len(flags) + 1), rng.choice(STRAY))
    return flags


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises `Late` in the block after a time."""

    def late(*_: object) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attack(rng: Random, folder: Path) -> str:
    """Tries one command line. Returns "survived" or "refused"."""
    names = [*studies(), *(f"papers/{name}" for name in PAPERS if name != "run")]
    experiment = commands.experiment(rng.choice(names))
    flags = line(experiment, rng)
    command = f"{experiment.name} --quick {flags}"
    shown, code = io.StringIO(), 0
    with contextlib.redirect_stderr(shown), contextlib.redirect_stdout(io.StringIO()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with at_most(SECONDS):
                    code = study.main(experiment, ["--quick", f"--workdir={folder}/run", *flags])
            except Late:
                return "survived"
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                reason = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
                raise AssertionError(f"{command}: {reason}") from error
    lines = shown.getvalue().splitlines()
    if code == 0:
        return "survived"
    good = code in (1, 2) and len(lines) == 1 and lines[0].startswith("error: ") and lines[0][7:]
    assert good, f"{command}: exit code {code}, {lines}"
    assert len(lines[0]) < 20_000, f"{command}: a line of {len(lines[0])} characters"
    return "refused"
