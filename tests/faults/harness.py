"""Attacks everything at random: flags, files that are read, records, and whole commands.

    ./run.sh faults                                    # ten minutes
    ./run.sh faults --minutes=120 --seed=1
    ./run.sh faults --only=kill --seed=17 --tries=1    # one attack again
    ./run.sh faults --guided                           # the readers of files, by atheris

Each try of a kind has a seed of its own, from --seed on. Every wrong one is printed with the
command that repeats it, and the exit code is then 1.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import bad_flags
import commands
import guided
import pytest
import records
from damage import damage
from loaders import LOADERS
from processes import ATTACKS, Commands

from gradflow import study
from gradflow.study.settings import compile_quickly

KILLS = ("kill", "interrupt", "terminate")
COLUMNS = ("tried", "survived", "refused", "skipped", "wrong")


class Kind(NamedTuple):
    """A kind of attack.

    Attributes:
      run: (random numbers, empty folder) -> "survived" or "refused"; an AssertionError if wrong.
      weight: Its part of the time.
    """

    run: Callable[[Random, Path], str]
    weight: float


def kinds(folder: Path, names: Sequence[str]) -> dict[str, Kind]:
    """All kinds of attack, by name."""
    whole = Commands(folder, tuple(names))
    return {
        "flags": Kind(bad_flags.attack, 16),
        **{name: Kind(attack, 1) for name, attack in beside()},
        **{
            name: Kind(
                lambda rng, _, name=name: whole.attack(name, rng), 20 if name in KILLS else 8
            )
            for name in ATTACKS
        },
    }


def beside() -> Iterator[tuple[str, Callable[[Random, Path], str]]]:
    """The attacks on readers of files, with damaged bytes, and those on records."""
    for name, attack in LOADERS.items():
        yield f"loaders: {name}", partial(on_example, attack)
    for name, attack in records.ATTACKS.items():
        yield f"records: {name}", attack


def on_example(attack: Any, rng: Random, folder: Path) -> str:
    """Damages the example of an attack, and attacks with it."""
    return attack.run(damage(attack.example, rng), folder)


def one_try(name: str, kind: Kind, seed: int) -> tuple[str, str]:
    """Tries a kind once. Returns the outcome, and the reason if it is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return kind.run(Random(f"{name} {seed}"), Path(folder)), ""
        except pytest.skip.Exception as reason:
            return "skipped", str(reason)
        except Exception as error:
            return "wrong", " ".join(f"{type(error).__name__}: {error}".split())


class Tally:
    """What has come of the tries, by kind."""

    def __init__(self, kinds: dict[str, Kind], seed: int, option: str = "") -> None:
        self.kinds, self.seed, self.option = kinds, seed, option
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in kinds}
        self.seconds = dict.fromkeys(kinds, 0.0)

    def next(self) -> str:
        """The kind that has had the least of its part of the time."""
        return min(self.kinds, key=lambda name: self.seconds[name] / self.kinds[name].weight)

    def once(self, name: str) -> None:
        """Tries a kind once more, and prints what is wrong with how to repeat it."""
        seed, start = self.seed + self.counts[name]["tried"], time.monotonic()
        outcome, reason = one_try(name, self.kinds[name], seed)
        self.seconds[name] += time.monotonic() - start
        if outcome == "skipped":
            self.seconds[name] = float("inf")
        self.counts[name].update(["tried", outcome])
        if outcome == "wrong":
            repeat = f"./run.sh faults --only='{name}' --seed={seed} --tries=1{self.option}"
            print(f"{repeat}\n  {reason}", flush=True)

    @property
    def wrong(self) -> int:
        """How many tries were wrong."""
        return sum(count["wrong"] for count in self.counts.values())

    def __str__(self) -> str:
        """Writes the table."""
        total = sum(self.counts.values(), Counter())
        rows = [*self.counts.items(), ("all", total)]
        return study.table(
            [{"kind": name, **{c: str(count[c]) for c in COLUMNS}} for name, count in rows]
        )


def attack(tally: Tally, *, minutes: float, tries: int | None = None) -> None:
    """Attacks for a time, or as often as given in every kind."""
    if tries is not None:
        for name in tally.kinds:
            for _ in range(tries):
                tally.once(name)
        return
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        tally.once(tally.next())


def attack_guided(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Attacks the readers of files by inputs that reach new code. Returns 1 if any was wrong."""
    if not guided.available():
        parser.error("expected atheris to be installed: pip install 'gradflow-rnn[fuzz]'")
    names = [name for name in LOADERS if name.startswith(given.only or "")]
    found = guided.attack_all(names, minutes=given.minutes, seed=given.seed)
    for name, (_, wrong) in found.items():
        if wrong:
            print(f"{name}:\n{wrong}", flush=True)
    rows = [
        {"reader": name, "tried": str(tried), "wrong": str(int(bool(wrong)))}
        for name, (tried, wrong) in found.items()
    ]
    print(study.table(rows))
    return int(any(wrong for _, wrong in found.values()))


def main(arguments: Sequence[str]) -> int:
    """Attacks as the command line asks. Returns 1 if anything was wrong."""
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("./run.sh faults", None, __doc__, formatter_class=about)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to attack")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the first try of a kind")
    parser.add_argument("--tries", type=int, help="tries of each kind, in place of --minutes")
    parser.add_argument("--only", help="one kind, or the beginning of the names of several")
    parser.add_argument("--command", choices=commands.FLAGS, help="the command that is attacked")
    parser.add_argument("--guided", action="store_true", help="attack the readers by coverage")
    given = parser.parse_args(arguments)
    if given.guided:
        return attack_guided(parser, given)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("GRADFLOW_COMPILATION_CACHE", f"{folder}/compiled")
        compile_quickly()
        found = kinds(Path(folder), [given.command] if given.command else [*commands.FLAGS])
        chosen = {name: k for name, k in found.items() if name.startswith(given.only or "")}
        if not chosen:
            parser.error(f"expected one of {', '.join(found)}, got --only={given.only}")
        option = f" --command={given.command}" if given.command else ""
        tally = Tally(chosen, given.seed, option)
        attack(tally, minutes=given.minutes, tries=given.tries)
    print(tally)
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
