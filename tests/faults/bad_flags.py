"""Attacks on command lines: flags with bad values, and flags crossed at random."""

from pathlib import Path
from random import Random
from typing import Literal, get_args, get_origin, get_type_hints

import commands

from gradflow import study

SECONDS = 2.0  # after which a run that goes on counts as survived: its flags were accepted

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


def attack(rng: Random, folder: Path) -> str:
    """Tries one command line. Returns "survived" or "refused"."""
    name = rng.choice([*commands.STUDIES])
    flags = ["--quick", *line(commands.STUDIES[name], rng)]
    ended = commands.Running(name, folder / "run", folder, flags).end_within(SECONDS)
    if ended is None or ended.code == 0:
        return "survived"
    try:
        ended.check(1, 2)
        assert ended.shown.startswith("error: ") and len(ended.shown) < 20_000
    except AssertionError as error:
        raise AssertionError(f"{name} {flags}: {error}") from None
    return "refused"
