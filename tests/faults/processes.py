"""Attacks on whole commands: kills, full disks, other processes, damaged files.

After each attack the same command must end with the record of an undisturbed run.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from commands import Running, cleared, interrupted, make_data, results, written
from damage import damage

READ_BACK = (".nc", ".json", "")
"""The endings of the files that a run reads back; figures are only written."""


BEGUN = 0.2  # seconds from the start of a command's process to its handling of signals


class Place(NamedTuple):
    """Where one command is attacked, and what it does when it is not.

    Attributes:
      name: The command.
      folder: The workdir of the attack, which does not exist yet.
      data: The folder of the files that the commands read.
      seconds: How long an undisturbed run takes.
      expected: Its results.
    """

    name: str
    folder: Path
    data: Path
    seconds: float
    expected: dict[str, bytes]

    def start(self, file_size: int | None = None) -> Running:
        """Starts the command."""
        return Running(self.name, self.folder, self.data, None, file_size)

    @property
    def written(self) -> Path:
        """The folder that the command writes to."""
        return written(self.name, self.folder, self.data)

    def resume(self) -> None:
        """Runs the command again, which must end with the results of an undisturbed run."""
        self.start().end().check(0)
        self.check()

    def check(self) -> None:
        """Raises an AssertionError if the results are not those of an undisturbed run."""
        found = results(self.written)
        assert found.keys() == self.expected.keys(), f"results {[*found]}, not {[*self.expected]}"
        wrong = [name for name, content in found.items() if content != self.expected[name]]
        assert not wrong, f"other results in {wrong}"


Attack = Callable[[Place, Random], str]


def signalled(number: int) -> Attack:
    """The attack that sends a signal at a random moment."""

    def attack(place: Place, rng: Random) -> str:
        running = place.start()
        time.sleep(BEGUN + rng.uniform(0, place.seconds))
        running.send(number)
        ended = running.end()
        ended.check(0, interrupted(number))
        place.resume()
        return "refused" if ended.code > 0 else "survived"

    return attack


def together(place: Place, rng: Random) -> str:
    """Two processes at once in one folder: the second waits, is refused, or does the same work."""
    first = place.start()
    time.sleep(rng.uniform(0, place.seconds))
    second = place.start()
    ended = [first.end(), second.end()]
    for one in ended:
        one.check(0, 1)
    assert 0 in {one.code for one in ended}, f"both failed: {ended}"
    place.resume()
    return "refused" if any(one.code for one in ended) else "survived"


def file_limit(place: Place, rng: Random) -> str:
    """A limit on the size of files, as a quota sets."""
    ended = place.start(file_size=round(10 ** rng.uniform(3, 6))).end()
    ended.check(0, 1)
    place.resume()
    return "refused" if ended.code else "survived"


def vanishing(place: Place, rng: Random) -> str:
    """The folder is removed at a random moment."""
    running = place.start()
    time.sleep(rng.uniform(0, place.seconds))
    finished = [*place.written.rglob("DONE")]
    shutil.rmtree(place.written, ignore_errors=True)
    ended = running.end()
    ended.check(0, 1)
    if ended.code == 0 and not finished:
        place.check()
    again = place.start().end()
    again.check(0, 1)
    if again.code:  # what is left is no run, such as a figure alone
        shutil.rmtree(place.written)
    place.resume()
    return "refused" if ended.code or again.code else "survived"


def small_disk(place: Place, rng: Random) -> str:
    """A disk of 16 KiB to 1 MiB."""
    with disk(place.folder.parent, round(2 ** rng.uniform(14, 20))) as remount:
        ended = place.start().end()
        ended.check(0, 1)
        remount("size=64m")
        place.resume()
    return "refused" if ended.code else "survived"


def read_only(place: Place, rng: Random) -> str:
    """A disk that is read-only when the command of a killed run is repeated."""
    with disk(place.folder.parent, 2**26) as remount:
        running = place.start()
        time.sleep(rng.uniform(0, place.seconds))
        running.send(signal.SIGKILL)
        running.end()
        remount("ro")
        ended = place.start().end()
        remount("rw")
        ended.check(0, 1)
        place.resume()
    return "refused" if ended.code else "survived"


@contextlib.contextmanager
def disk(folder: Path, size: int) -> Iterator[Callable[[str], None]]:
    """Mounts a disk in memory on the folder, and gives a function that remounts it."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk is a tmpfs, which this user cannot mount")

    def remount(option: str) -> None:
        for _ in range(500):  # it is busy while a file is open
            command = ["mount", "-o", f"remount,{option}", str(folder)]
            if not subprocess.run(command, capture_output=True).returncode:
                return
            time.sleep(0.01)
        raise AssertionError(f"{folder} cannot be remounted")

    try:
        yield remount
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def damaged(place: Place, rng: Random) -> str:
    """A file of a record is damaged, of a finished run or of one that was killed."""
    running = place.start()
    if rng.random() < 0.7:
        time.sleep(rng.uniform(0, place.seconds))
        running.send(signal.SIGKILL)
    running.end()
    files = [path for path in sorted(place.written.rglob("*")) if path.is_file()]
    files = [path for path in files if path.suffix in READ_BACK and path.stat().st_size]
    if files:
        chosen = rng.choice(files)
        chosen.write_bytes(damage(chosen.read_bytes(), rng))
    ended = place.start().end()
    ended.check(0, 1)
    if not ended.code:
        place.check()
    return "refused" if ended.code else "survived"


ATTACKS: dict[str, Attack] = {
    "kill": signalled(signal.SIGKILL),
    "interrupt": signalled(signal.SIGINT),
    "terminate": signalled(signal.SIGTERM),
    "two at once": together,
    "file limit": file_limit,
    "small disk": small_disk,
    "read-only": read_only,
    "vanishing": vanishing,
    "damaged": damaged,
}
"""The attacks on whole commands, by name."""


class Commands:
    """The attacked commands, whose undisturbed runs are made when they are first needed."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self.folder, self.names = folder, names
        self.known: dict[str, tuple[float, dict[str, bytes]]] = {}
        self.tries = 0
        make_data(folder)

    def attack(self, kind: str, rng: Random) -> str:
        """Attacks a random command. Returns "survived" or "refused"."""
        name = rng.choice(self.names)
        self.tries += 1
        folder = self.folder / f"attack-{self.tries}"  # what one leaves concerns no other
        try:
            if name not in self.known:
                self.known[name] = self._undisturbed(name, folder)
            with cleared(name, folder, self.folder) as run:
                return ATTACKS[kind](Place(name, run, self.folder, *self.known[name]), rng)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None

    def _undisturbed(self, name: str, folder: Path) -> tuple[float, dict[str, bytes]]:
        with cleared(name, folder, self.folder) as run:
            Running(name, run, self.folder).end().check(0)  # which compiles
        with cleared(name, folder, self.folder) as run:
            start = time.monotonic()
            Running(name, run, self.folder).end().check(0)
            return time.monotonic() - start, results(written(name, run, self.folder))
