"""A lock on a folder: one process at a time writes to it.

The operating system holds the lock and releases it when the process ends, however it ends. What a
killed process leaves in the folder therefore locks nothing.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

LOCK, OWNER = ".gradflow.lock", ".gradflow.lock-owner"
"""The names of the lock's file, and of the file that says who holds it."""

PATIENCE = 0.5  # seconds: longer than another process needs to release a lock and remove its file


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds the lock on a folder within the block.

    The folder is made if it does not exist, and removed afterwards if it was made here and nothing
    was written to it.

    Args:
      folder: The folder.
      wait: Whether to wait until another process has released the lock.

    Raises:
      OSError: If another process, or this one, holds the lock, or the folder cannot be written to.
    """
    lock, made = _acquire(folder, -1 if wait else PATIENCE)
    try:
        owner = f"pid {os.getpid()}, since {time.strftime('%H:%M:%S')}"
        (folder / OWNER).write_text(owner, encoding="utf-8")
        yield
    finally:
        # While the lock is held: afterwards these could be the files of the next holder.
        for name in (OWNER, LOCK):
            (folder / name).unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):  # it is not empty, and is to stay
            for path in made:
                path.rmdir()


def _acquire(folder: Path, seconds: float) -> tuple[FileLock, Sequence[Path]]:
    """Returns the lock, and the folders that were made for it, the innermost first."""
    while True:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=seconds, thread_local=False)
        try:
            lock.acquire()
            return lock, made
        except FileNotFoundError:
            continue  # the process that had made the folder has just removed it
        except Timeout:
            raise OSError(_refusal(folder)) from None


def _refusal(folder: Path) -> str:
    owner = ""
    with contextlib.suppress(OSError, ValueError):  # the lock has just been taken, or released
        owner = f" ({(folder / OWNER).read_text(encoding='utf-8')})"
    if owner.startswith(f" (pid {os.getpid()},"):
        # Such as an interrupted loop over `gradflow.train.fit`, whose iterator a notebook keeps.
        return (
            f"Expected {folder} to be free, but this process is using this folder in a run that "
            "has not ended. Delete its iterator, or choose another folder."
        )
    return (
        f"Expected {folder} to be free, but another run{owner} is using this folder. Wait until "
        "that run has ended, or choose another folder."
    )
